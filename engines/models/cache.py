"""Folder for derived models: each is built once, whole or not at all, by one process at a time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from engines.base import ModelError

_BLOCK_BYTES = 1 << 20


def directory() -> Path:
    """Return `models` under HARNESS_CACHE, else under `harness` in the user's cache folder (see XDG_CACHE_HOME).

    Raises OSError for a user without a home.
    """
    try:
        if own := os.environ.get("HARNESS_CACHE"):
            return Path(own).expanduser() / "models"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "harness" / "models"
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "harness" / "models"
    except RuntimeError as error:  # HOME is not set, and the system does not know the user
        raise FileNotFoundError(errno.ENOENT, "this user has no home folder", "HOME") from error


def build_once(name: str, build: Callable[[Path], None]) -> Path:
    """Return the file `name` of the cache folder. If it is missing, `build` writes it to the given path.

    The file appears complete and synced to disk, or not at all. If several processes need it, one builds it.

    Raises ModelError if it cannot be written.
    """
    from filelock import FileLock

    final = Path(name)
    try:
        final = directory() / name
        if final.is_file():
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_path(final)):
            if not final.is_file():
                _remove_abandoned(final.parent)
                _build(final, build)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(
            f"{final} could not be written: {reason}; free space there or set HARNESS_CACHE to another folder"
        ) from error
    return final


def digest(paths: Sequence[Path]) -> str:
    """Return the SHA-256 (hex) of the files' contents, remembered by path, size and modification time."""
    stats = [path.stat() for path in paths]
    key = [[str(path.resolve()), stat.st_size, stat.st_mtime_ns] for path, stat in zip(paths, stats, strict=True)]
    memory = directory() / "digests" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))["sha256"]
        if isinstance(known, str):
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass  # missing or damaged: the digest is computed again
    found = _sha256(paths)
    _remember(memory, found)
    return found


def _build(final: Path, build: Callable[[Path], None]) -> None:
    partial = final.with_name(final.name + ".partial")
    try:
        build(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(final)
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _remove_abandoned(folder: Path) -> None:
    """Remove partial files of killed builders: those without a lock."""
    from filelock import FileLock, Timeout

    for partial in folder.glob("*.partial"):
        final = partial.with_suffix("")
        try:
            with FileLock(_lock_path(final), timeout=0):
                partial.unlink(missing_ok=True)
        except Timeout:
            continue


def _lock_path(final: Path) -> str:
    return str(final.with_name(f".{final.name}.lock"))


def _sha256(paths: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                total.update(block)
    return total.hexdigest()


def _remember(memory: Path, found: str) -> None:
    partial = memory.with_name(f"{memory.name}.{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"sha256": found}), encoding="utf-8")
        partial.replace(memory)
    except OSError:
        with suppress(OSError):  # without this file, the digest is only computed again
            partial.unlink()
