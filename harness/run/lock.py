"""Locks: one run at a time on this machine's engines, one process at a time on a run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from engines.models.cache import directory
from harness.errors import StorageFailed, UsageError, shortened
from harness.store.streams import storage_errors


@contextlib.contextmanager
def machine_to_ourselves(name: str, *, wait_s: float = 0.0, folder: Path | None = None) -> Iterator[None]:
    """Hold the lock of this machine's engines during a run. The system releases it when the process ends.

    Raises UsageError if another run holds it for longer than `wait_s`, StorageFailed if the cache folder cannot be
    written. `name` is shown to a run that is refused.
    """
    try:
        where = folder or directory()
        where.mkdir(parents=True, exist_ok=True)
        holder = where / "running.json"
        lock = FileLock(where / "running.lock").acquire(timeout=wait_s)
    except Timeout:
        raise UsageError(
            f"another run is measuring on this machine ({_holder(holder)}); two at once would measure each other: "
            "wait for it, or let this one wait with --wait 30m"
        ) from None
    except OSError as error:  # after Timeout, which is one
        raise StorageFailed(cache_refusal(error)) from error
    facts = {"name": name, "pid": os.getpid(), "since": datetime.now(UTC).isoformat()}
    with lock:
        try:
            with contextlib.suppress(OSError):  # a full disk: the lock holds without it
                holder.write_text(json.dumps(facts))
            yield
        finally:
            with contextlib.suppress(OSError):
                holder.unlink(missing_ok=True)


def other_run(folder: Path | None = None) -> str | None:
    """Return which run holds the lock of this machine's engines, in words; None if none does."""
    where = folder or directory()
    holder = where / "running.json"
    if not holder.is_file():
        return None
    try:
        # It was left behind if its process was killed. Only then may this disturb a run that begins at this moment.
        with FileLock(where / "running.lock").acquire(timeout=0):
            return None
    except Timeout:
        return _holder(holder)
    except OSError:
        return None  # the cache cannot be written, so no run holds a lock in it


@contextlib.contextmanager
def run_to_ourselves(path: Path) -> Iterator[None]:
    """Hold the lock of a run's folder while it is made. Raises UsageError if another process holds it."""
    with storage_errors(path):
        try:
            lock = FileLock(path / ".lock").acquire(timeout=0)
        except Timeout:  # an OSError too
            raise UsageError(f"another process is making {path} at this moment; wait for it to end") from None
    with lock:
        yield


def refuse_links(path: Path) -> None:
    """Raise UsageError if a stored run holds a symbolic link: what is measured next would be written where it leads."""
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            if (found := Path(folder) / name).is_symlink():
                raise UsageError(f"{found} is a symbolic link; put what it names in its place, then resume the run")


def cache_refusal(error: OSError) -> str:
    """Return the sentence for a cache folder that cannot be written."""
    where = shortened(str(error.filename or "the cache folder"))
    return f"{where}: {error.strerror or error}; set HARNESS_CACHE to a folder that can be written"


def _holder(file: Path) -> str:
    try:
        facts = json.loads(file.read_text())
        return f"{facts['name']}, process {facts['pid']}, since {facts['since'][:19]}Z"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown which"
