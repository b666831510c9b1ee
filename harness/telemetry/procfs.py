"""Kernel files kept open for repeated reading: cheaper than opening, and tied to one process."""

from __future__ import annotations

import os
import re
from pathlib import Path


class KeptFile:
    """File that is read again from its start. Raises OSError if it cannot be opened."""

    def __init__(self, path: str | Path, most_bytes: int = 4096) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._most_bytes = most_bytes

    def read(self) -> bytes:
        return os.pread(self._file, self._most_bytes, 0)

    def numbers(self, *names: bytes) -> dict[str, int]:
        """Return the numbers behind these names at the start of a line (`Name:  12 kB`, `name 12`)."""
        return numbers(self.read(), *names)

    def close(self) -> None:
        os.close(self._file)


def numbers(text: bytes, *names: bytes) -> dict[str, int]:
    """Return the numbers of a text, as `KeptFile.numbers` does."""
    lines = re.finditer(rb"^(" + b"|".join(names) + rb")[: ][ \t]*(\d+)(?!\S)", text, re.MULTILINE)
    return {line[1].decode(): int(line[2]) for line in lines}


def kept(path: str | Path, most_bytes: int = 4096) -> KeptFile | None:
    """Open a kept file; return None if that fails."""
    try:
        return KeptFile(path, most_bytes)
    except OSError:
        return None
