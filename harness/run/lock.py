"""One run at a time on this machine's engines: two would measure each other."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from engines.models.cache import directory
from harness.errors import UsageError


@contextlib.contextmanager
def machine_to_ourselves(name: str, *, wait_s: float = 0.0, folder: Path | None = None) -> Iterator[None]:
    """Hold the lock of this machine's engines while a run goes on.

    name: what the other run is told. Raises UsageError if another run holds the lock for longer than `wait_s`. The lock
    is the system's: it ends with the process that holds it, however that ends.
    """
    where = folder or directory()
    where.mkdir(parents=True, exist_ok=True)
    holder = where / "running.json"
    lock = FileLock(where / "running.lock")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise UsageError(
            f"another run is measuring on this machine ({describe(holder)}); two at once would measure each other: "
            "wait for it, or let this one wait with --wait 30m"
        ) from None
    try:
        holder.write_text(json.dumps({"name": name, "pid": os.getpid(), "since": datetime.now(UTC).isoformat()}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def run_to_ourselves(path: Path) -> Iterator[None]:
    """Hold the lock of a run's folder while it is being made. Raises UsageError if another process holds it."""
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"another process is making {path} at this moment; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


def describe(holder: Path) -> str:
    """Who holds the lock, as far as it said."""
    try:
        facts = json.loads(holder.read_text())
        return f"{facts['name']}, process {facts['pid']}, since {facts['since'][:19]}Z"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has not said which"
