"""How a server is reached: its address, whom TLS trusts, and the proxy in between."""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment

from engines.base import EngineError

UNIX_SCHEME = "http+unix"
NO_PROXY = "none"
TLS_FILES = ("ca", "cert", "key")
_LONGEST_SOCKET_PATH = 107  # bytes, of the system
_PORTS = {"http": 80, "https": 443, UNIX_SCHEME: 0}
_UNSENDABLE = re.compile(r"[\s\x00-\x1f\x7f]")
_WRITE = "write http://host:port, https://host or http+unix:///path/to.sock"


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address, from a URL.

    base_path: what stands before the API's own paths, without a trailing slash.   socket_path: of a Unix socket, else
    None; its URL is `http+unix:///path/to.sock`, with `:` and a base path after it where there is one.
    """

    url: str
    secure: bool
    host: str
    port: int
    base_path: str
    socket_path: str | None = None

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises ValueError, one sentence, for what is no such address."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # a port that is no number, a broken IPv6 address
            raise ValueError(f"{url!r} is not a server's address; {_WRITE}") from None
        if parts.scheme == UNIX_SCHEME:
            return _unix(url, parts)
        if parts.scheme not in _PORTS or not parts.hostname or port == 0 or _UNSENDABLE.search(url):
            raise ValueError(f"{url!r} is not a server's address; {_WRITE}")
        try:
            host = parts.hostname.encode("idna").decode()
        except UnicodeError:
            raise ValueError(f"{url!r} has no host name that a name server could know; {_WRITE}") from None
        return cls(url, parts.scheme == "https", host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """The value of a Host header: the port is left out where it is the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.socket_path or self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def at(self) -> str:
        """The place for a sentence."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.socket_path or f"{host}:{self.port}"

    @property
    def on_this_machine(self) -> bool:
        """Whether it is a loopback address or a Unix socket."""
        try:
            return self.socket_path is not None or ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


def is_loopback(url: str) -> bool:
    """Whether a server's address is this machine; what is no address is not."""
    try:
        return Address.of(url).on_this_machine
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. source: where it was named.   authorization: the value of Proxy-Authorization, a secret."""

    host: str
    port: int
    source: str
    authorization: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def at(self) -> str:
        """The place for a sentence, without user and password."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address without user and password."""
        return f"http://{self.at}"


def proxy_for(address: Address, asked: str | None = None) -> Proxy | None:
    """The proxy through which a server is reached; None: a direct connection.

    asked: a proxy's address, or "none"; without it HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY (or in lower case,
    which count first) decide, and what listens on this machine is reached directly.
    Raises ValueError, one sentence without the address, for a proxy that cannot be used.
    """
    if asked == NO_PROXY or address.socket_path is not None:
        return None
    if asked is not None:
        return _proxy(asked, "proxy")
    named = getproxies_environment()
    scheme = "https" if address.secure else "http"
    kind = next((kind for kind in (scheme, "all") if named.get(kind)), None)
    if kind is None or address.on_this_machine or _excepted(address, named.get("no", "")):
        return None
    variable = f"{kind}_proxy"
    return _proxy(named[kind], variable if os.environ.get(variable) else variable.upper())


def check_proxy(asked: str) -> None:
    """Raises ValueError, one sentence, unless this is a proxy's address without a password, or "none"."""
    if asked != NO_PROXY and _proxy(asked, "proxy").authorization is not None:
        raise ValueError("must not hold a user name or password; name such a proxy in HTTP_PROXY and HTTPS_PROXY")


def _excepted(address: Address, no_proxy: str) -> bool:
    """Whether NO_PROXY lists a server: `*`, a name with all below it, with a port or without, an address, a network."""
    host = address.host.lower()
    for entry in filter(None, (one.strip().lower() for one in no_proxy.split(","))):
        name, _, port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        name = name.removeprefix("*").removeprefix(".").strip("[]")
        if port not in ("", str(address.port)):
            continue
        try:
            if ip_address(host) in ip_network(name, strict=False):
                return True
        except ValueError:  # the one or the other is a name
            if entry == "*" or host == name or host.endswith(f".{name}"):
                return True
    return False


def _proxy(url: str, source: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise ValueError(f"{source} holds no address of a proxy; write http://host:port") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{source} names a proxy that is not spoken to by http; write http://host:port")
    if parts.username is None:
        return Proxy(parts.hostname, port or 80, source)
    password = unquote(parts.password or "")
    pair = f"{unquote(parts.username)}:{password}".encode()
    return Proxy(parts.hostname, port or 80, source, f"Basic {base64.b64encode(pair).decode()}", password)


def tls_context(files: Mapping[str, str]) -> ssl.SSLContext:
    """Verification against the CA of `files` (else the system's), with our certificate where it names one.

    files: paths under `ca`, `cert`, `key`; the key may be in the file of the certificate.
    Raises EngineError, one sentence naming the file.
    """
    ca, certificate, key = (files.get(name) for name in TLS_FILES)
    for path in (ca, certificate, key):
        if path is not None and not Path(path).is_file():
            raise EngineError(f"tls names {path}, which is not a file; correct the path")
    try:
        context = ssl.create_default_context(cafile=ca)
    except (ssl.SSLError, OSError) as error:
        why = f"{ca} holds no certificate in PEM format ({_reason(error)})"
        raise EngineError(f"tls.ca: {why}; name the authority's file") from error
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, _no_password)
        except (ssl.SSLError, OSError) as error:
            where = certificate if key is None else f"{certificate} and {key}"
            why = f"{where} hold no certificate with its key in PEM format ({_reason(error)})"
            raise EngineError(f"tls.cert: {why}") from error
    return context


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise EngineError("tls.key: the key is locked by a password; give one without (`openssl pkey` removes it)")


def _reason(error: ssl.SSLError | OSError) -> str:
    said = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return (said or str(error)).replace("_", " ").lower()


def distrust(error: ssl.SSLError, host: str) -> str:
    """A TLS failure for the user, with what to do."""
    said = (error.reason or "").upper()
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        what = f"the certificate of {host} cannot be trusted: {why}"
        if "mismatch" in why.lower():
            return f"{what}; write the name that it was made for in url"
        if "expired" in why or "not yet valid" in why:
            return f"{what}; have it renewed, or set this machine's clock"
        return f"{what}; name its authority's file under `tls: {{ca: file}}` or in SSL_CERT_FILE"
    if "CERTIFICATE_REQUIRED" in said:
        return f"{host} asks for a client's certificate; name yours under `tls: {{cert: file, key: file}}`"
    if any(sign in said for sign in ("ALERT_UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN")):
        return f"{host} does not accept our certificate ({_reason(error)}); check `tls: {{cert: file, key: file}}`"
    if said in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return f"{host} does not speak TLS at this port; write http:// in url, or correct the port"
    return f"no TLS connection to {host}: {error.reason or error}"


def _unix(url: str, parts: SplitResult) -> Address:
    path, _, base_path = unquote(parts.path).partition(":")
    if parts.netloc or len(path) < 2:
        raise ValueError(f"{url!r} is not the address of a Unix socket; write http+unix:///path/to.sock")
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of a Unix socket has at most {_LONGEST_SOCKET_PATH} bytes; {path} is longer")
    if base_path and not base_path.startswith("/"):
        raise ValueError(f"the base path in {url!r} must begin with `/`: write http+unix:///path/to.sock:/base")
    return Address(url, False, "localhost", 0, base_path.rstrip("/"), path)
