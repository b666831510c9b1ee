"""The log that a process of an engine appends to: what it has said since a moment."""

from __future__ import annotations

from pathlib import Path


def size_of(log: Path | None) -> int:
    """How long a log is now."""
    return log.stat().st_size if log is not None and log.is_file() else 0


def begun(log: Path | None) -> int:
    """Make the folder of a log to which a process will write; how long it is now."""
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    return size_of(log)


def read_from(log: Path | None, start: int) -> str:
    """What a log has gained since it was `start` bytes long; empty without a log."""
    if log is None or not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", "replace")
