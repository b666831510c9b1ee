"""Files of the kernel's, kept open and read again: cheaper than opening them, and they stay those of one process."""

from __future__ import annotations

import os
from pathlib import Path


class KeptFile:
    """A file that is read again from its beginning. Raises OSError where it cannot be opened."""

    def __init__(self, path: str | Path, most_bytes: int = 4096) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._most_bytes = most_bytes

    def read(self) -> bytes:
        """Its content now. Raises OSError."""
        return os.pread(self._file, self._most_bytes, 0)

    def numbers(self, *names: bytes) -> dict[str, int]:
        """The numbers behind names that begin a line, `Name:  12 kB` or `name 12`; those that are not there are left
        out.
        """
        return numbers(self.read(), *names)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)


def numbers(text: bytes, *names: bytes) -> dict[str, int]:
    """See KeptFile.numbers."""
    found = {}
    text = b"\n" + text
    for name in names:
        at = max(text.find(b"\n" + name + b":"), text.find(b"\n" + name + b" "))
        if at >= 0:
            begin = at + len(name) + 2
            end = text.find(b"\n", begin)
            word = text[begin : end if end >= 0 else None].split(None, 1)[:1]
            if word and word[0].isdigit():
                found[name.decode()] = int(word[0])
    return found


def kept(path: str | Path, most_bytes: int = 4096) -> KeptFile | None:
    """The same; None where it cannot be opened."""
    try:
        return KeptFile(path, most_bytes)
    except OSError:
        return None
