"""Log that an engine's process appends to, read from an offset, and without secrets once the process has ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from engines.secrets import masked

_AT_ONCE = 1 << 20  # bytes of whole lines


def size_of(log: Path | None) -> int:
    """Return the current length of a log."""
    return log.stat().st_size if log is not None and log.is_file() else 0


def begun(log: Path | None) -> int:
    """Make the folder of a log. Return the current length of the log."""
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    return size_of(log)


def read_from(log: Path | None, start: int) -> str:
    """Return the text after the first `start` bytes of a log; "" without a log."""
    if log is None or not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", "replace")


def mask(log: Path) -> None:
    """Mask the secrets in a log whose writers have ended, which an engine may have printed. Raises OSError."""
    if not log.is_file() or log.is_symlink() or not any(map(_masked_lines, _lines(log))):
        return
    temporary = log.with_name(f".{log.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            file.writelines(_masked_lines(lines) or lines for lines in _lines(log))
        temporary.replace(log)
    finally:
        temporary.unlink(missing_ok=True)


def _lines(log: Path) -> Iterator[bytes]:
    """Yield a log in pieces of whole lines."""
    with log.open("rb") as file:
        while lines := file.readlines(_AT_ONCE):
            yield b"".join(lines)


def _masked_lines(lines: bytes) -> bytes | None:
    """Return lines without secrets; None if they hold none."""
    text = lines.decode("utf-8", "surrogateescape")
    found = masked(text)
    return None if found == text else found.encode("utf-8", "surrogateescape")
