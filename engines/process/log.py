"""Log that an engine's process appends to, read from an offset."""

from __future__ import annotations

from pathlib import Path


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
