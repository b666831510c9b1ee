"""Server addresses, TLS trust and proxies."""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies_environment

from engines.base import EngineError
from engines.secrets import hide

UNIX_SCHEME = "http+unix"
NO_PROXY = "none"
TLS_FILES = ("ca", "cert", "key")
_LONGEST_SOCKET_PATH = 107  # bytes, limit of the kernel
_PORTS = {"http": 80, "https": 443, UNIX_SCHEME: 0}
_UNSENDABLE = re.compile(r"[\s\x00-\x1f\x7f]")
_VERSION = re.compile(r"v\d+(\.\d+)?([a-z]+\d*)?")
_OPERATIONS = ("/chat/completions", "/completions", "/responses", "/messages", "/embeddings", "/rerank")
_WRITE = "write http://host:port, https://host or http+unix:///path/to.sock"


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a server. The URL of a Unix socket is `http+unix:///path/to.sock`, then `:` and any base path.

    A base path in front of the paths of the API, such as `/proxy`, is added to them. It replaces their `/v1` if
    it has a version of its own (`/v3`, `/v1beta/openai`), ends in an operation (`/chat/completions`), or if the URL has
    a query, which is part of every request.
    """

    url: str
    secure: bool
    host: str
    port: int
    base_path: str  # without a trailing slash
    socket_path: str | None = None
    query: str = ""

    @classmethod
    def of(cls, url: str) -> Address:
        """Parse a URL. Raises ValueError, one sentence, if it is no such address."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # an invalid port or IPv6 address
            raise ValueError(f"{url!r} is not a server's address; {_WRITE}") from None
        if parts.scheme == UNIX_SCHEME:
            return _unix_address(url, parts)
        if parts.scheme not in _PORTS or not parts.hostname or port == 0 or _UNSENDABLE.search(url):
            raise ValueError(f"{url!r} is not a server's address; {_WRITE}")
        try:
            host = parts.hostname.encode("idna").decode()
        except UnicodeError:
            raise ValueError(f"{url!r} has no valid host name; {_WRITE}") from None
        secure, port = parts.scheme == "https", port or _PORTS[parts.scheme]
        return cls(url, secure, host, port, parts.path.rstrip("/"), query=parts.query)

    @property
    def authority(self) -> str:
        """Value of the Host header, without a default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.socket_path or self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority for an HTTP library, which connects to a Unix socket by itself."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    @property
    def request_url(self) -> str:
        """URL of the base path for an HTTP library."""
        return f"{self.origin}{self.base_path}"

    def target(self, path: str) -> str:
        """Return the target of a request for a path of the API, such as /v1/completions."""
        base, versioned = self._api_base
        own = (
            f"{base}{path.removeprefix('/v1')}" if versioned and path.startswith("/v1/") else f"{self.base_path}{path}"
        )
        return f"{own}?{self.query}" if self.query else own

    def page(self, path: str) -> str:
        """Return the target of a page beside the API, such as /version, or of one of the API's own."""
        base, _ = self._api_base
        if path.startswith("/v1/"):
            return self.target(path)
        segments = base.split("/")
        first = next((number for number, one in enumerate(segments) if _VERSION.fullmatch(one)), len(segments))
        return f"{'/'.join(segments[:first])}{path}"

    def full(self, target: str) -> str:
        """Return the URL of a target."""
        if self.socket_path is not None:
            return f"{UNIX_SCHEME}://{quote(self.socket_path)}:{target}"
        return f"{self.origin}{target}"

    def page_url(self, path: str) -> str:
        """Return the URL of a page."""
        return self.full(self.page(path))

    @property
    def _api_base(self) -> tuple[str, bool]:
        """Return the base path without an operation, and whether it takes the place of the API's /v1."""
        operation = next((one for one in _OPERATIONS if self.base_path.endswith(one)), "")
        base = self.base_path.removesuffix(operation)
        return base, bool(operation or self.query or any(map(_VERSION.fullmatch, base.split("/"))))

    @property
    def at(self) -> str:
        """Host and port, or the socket, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.socket_path or f"{host}:{self.port}"

    @property
    def on_this_machine(self) -> bool:
        """True for a loopback address or a Unix socket."""
        try:
            return self.socket_path is not None or ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


def is_loopback(url: str) -> bool:
    """Return True if the server is on this machine; False if the URL is no address."""
    try:
        return Address.of(url).on_this_machine
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Proxy:
    """Proxy address."""

    host: str
    port: int
    source: str  # setting that names it
    authorization: str | None = field(default=None, repr=False)  # value of Proxy-Authorization
    password: str | None = field(default=None, repr=False)

    @property
    def at(self) -> str:
        """Host and port, without user and password, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Address without user and password."""
        return f"http://{self.at}"


def proxy_for(address: Address, configured: str | None = None) -> Proxy | None:
    """Return the proxy for a server; None for a direct connection.

    Raises ValueError if the proxy cannot be used. The message omits its address.

    Args:
        configured: Address of a proxy, or "none". If None, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY decide
            (lower case takes precedence), and a server on this machine is reached directly.
    """
    if configured == NO_PROXY or address.socket_path is not None:
        return None
    if configured is not None:
        return _proxy(configured, "proxy")
    named = getproxies_environment()
    scheme = "https" if address.secure else "http"
    kind = next((kind for kind in (scheme, "all") if named.get(kind)), None)
    if kind is None or address.on_this_machine or _excepted(address, named.get("no", "")):
        return None
    variable = f"{kind}_proxy"
    return _proxy(named[kind], variable if os.environ.get(variable) else variable.upper())


def check_proxy(configured: str) -> None:
    """Raise ValueError unless this is the address of a proxy without a password, or "none"."""
    if configured != NO_PROXY and _proxy(configured, "proxy").authorization is not None:
        raise ValueError("must not hold a user name or password; set such a proxy in HTTP_PROXY and HTTPS_PROXY")


def _excepted(address: Address, no_proxy: str) -> bool:
    """Return True if NO_PROXY lists the server: `*`, a domain, an address or a network, with or without a port."""
    host = address.host.lower()
    for entry in filter(None, (one.strip().lower() for one in no_proxy.split(","))):
        name, _, port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        name = name.removeprefix("*").removeprefix(".").strip("[]")
        if port not in ("", str(address.port)):
            continue
        try:
            if ip_address(host) in ip_network(name, strict=False):
                return True
        except ValueError:  # one of them is a name
            if entry == "*" or host == name or host.endswith(f".{name}"):
                return True
    return False


def _proxy(url: str, source: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise ValueError(f"{source}: not the address of a proxy (use http://host:port)") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{source}: only http:// proxies are supported (use http://host:port)")
    if parts.username is None:
        return Proxy(parts.hostname, port or 80, source)
    hide(f"http://{parts.netloc}")
    password = unquote(parts.password or "")
    pair = f"{unquote(parts.username)}:{password}".encode()
    return Proxy(parts.hostname, port or 80, source, f"Basic {base64.b64encode(pair).decode()}", password)


def tls_context(tls: Mapping[str, Any]) -> ssl.SSLContext:
    """Return a context that trusts the CA of `tls`, else the system's, with our certificate if given.

    `tls` has paths under `ca`, `cert`, `key`; the file of the certificate may hold the key. `verify: False` trusts any
    server. Raises EngineError if a file cannot be used; the message names it.
    """
    ca, certificate, key = (tls.get(name) for name in TLS_FILES)
    for path in (ca, certificate, key):
        if path is not None and not Path(path).is_file():
            raise EngineError(f"tls names {path}, which is not a file; correct the path")
    try:
        context = ssl.create_default_context(cafile=ca)
    except (ssl.SSLError, OSError) as error:
        why = f"{ca} holds no certificate in PEM format ({_reason(error)})"
        raise EngineError(f"tls.ca: {why}; name the authority's file") from error
    if tls.get("verify") is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, _no_password)
        except (ssl.SSLError, OSError) as error:
            where = certificate if key is None else f"{certificate} and {key}"
            why = f"{where} hold no certificate with its key in PEM format ({_reason(error)})"
            raise EngineError(f"tls.cert: {why}") from error
    return context


def _no_password() -> str:
    """Refuse a locked key. OpenSSL would prompt on the terminal."""
    raise EngineError("tls.key: the key is locked by a password; use one without (`openssl pkey` removes it)")


def _reason(error: ssl.SSLError | OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return (reason or str(error)).replace("_", " ").lower()


def tls_failure(error: ssl.SSLError, host: str) -> str:
    """Return a TLS failure and its fix as one sentence."""
    reason = (error.reason or "").upper()
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        what = f"the certificate of {host} cannot be trusted: {why}"
        if "mismatch" in why.lower():
            return f"{what}; write the certificate's host name in url"
        if "expired" in why or "not yet valid" in why:
            return f"{what}; renew it, or set this machine's clock"
        return f"{what}; name its authority's file under `tls: {{ca: file}}` or in SSL_CERT_FILE"
    if "CERTIFICATE_REQUIRED" in reason:
        return f"{host} requires a client certificate; name yours under `tls: {{cert: file, key: file}}`"
    if any(sign in reason for sign in ("ALERT_UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN")):
        return f"{host} does not accept our certificate ({_reason(error)}); check `tls: {{cert: file, key: file}}`"
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return f"{host} does not speak TLS at this port; write http:// in url, or correct the port"
    return f"no TLS connection to {host}: {error.reason or error}"


def _unix_address(url: str, parts: SplitResult) -> Address:
    path, _, base_path = unquote(parts.path).partition(":")
    if parts.netloc or len(path) < 2:
        raise ValueError(f"{url!r} is not the address of a Unix socket; write http+unix:///path/to.sock")
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of a Unix socket has at most {_LONGEST_SOCKET_PATH} bytes; {path} is longer")
    if base_path and not base_path.startswith("/"):
        raise ValueError(f"the base path in {url!r} must begin with `/`: write http+unix:///path/to.sock:/base")
    return Address(url, False, "localhost", 0, base_path.rstrip("/"), path)
