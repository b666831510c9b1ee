"""A certificate authority of our own, made with openssl, for tests of TLS."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]  # found at once, unlike those of RSA


@dataclass(frozen=True)
class Authority:
    """Signs certificates; everything is in `folder`."""

    folder: Path
    name: str = "ca"

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        more = ["-x509", "-days", "2", "-subj", f"/CN={self.name} of a test", "-keyout", self._key, "-out", self.file]
        _openssl("req", *NEW_KEY, *more)

    @property
    def file(self) -> Path:
        """What a client is to trust."""
        return self.folder / f"{self.name}.pem"

    @property
    def _key(self) -> Path:
        return self.folder / f"{self.name}.key"

    def signed(self, name: str, subject: str = "DNS:localhost", *, expired: bool = False) -> tuple[Path, Path]:
        """A certificate and its key."""
        request, certificate, key = (self.folder / f"{name}.{end}" for end in ("csr", "pem", "key"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={subject}\n")
        _openssl("req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        times = ["-days", "-1"] if expired else ["-days", "2"]
        sign = ["-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-extfile", extensions, *times]
        _openssl("x509", "-req", "-in", request, *sign, "-out", certificate)
        return certificate, key


def locked(key: Path) -> Path:
    """The same key behind a password."""
    made = key.with_suffix(".locked")
    _openssl("pkey", "-in", key, "-aes128", "-passout", "pass:x", "-out", made)
    return made


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
