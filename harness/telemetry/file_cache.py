"""System's file cache: drop files from it and measure the result."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_WINDOW_BYTES = 1 << 30  # size of one mapping; a multiple of every page size


def dropped_share(files: Sequence[Path]) -> float | None:
    """Drop files from the system's cache; return the share of their bytes that is gone, None if unknown.

    Dirty pages, pages mapped by other processes, and files in memory (tmpfs) stay.
    """
    total = sum(path.stat().st_size for path in files)
    if not total or not hasattr(os, "posix_fadvise"):
        return None
    kept = [_kept_bytes(path) for path in files]
    return None if None in kept else 1 - sum(one for one in kept if one is not None) / total


def _kept_bytes(path: Path) -> int | None:
    """Return the bytes of a file that stay in memory after it was dropped."""
    try:
        with path.open("rb") as file:
            with contextlib.suppress(OSError):  # some file systems refuse it for read-only files
                os.fsync(file.fileno())  # dirty pages cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return resident_bytes(file.fileno())
    except (OSError, ValueError):
        return None


def resident_bytes(file: int) -> int | None:
    """Return the bytes of an open file in memory, in whole pages (mincore(2)); None if the system does not report them.

    For files that the process neither owns nor may write to, Linux always reports all pages as resident.
    """
    size = os.fstat(file).st_size
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore") or not _is_reported(file):
        return None
    found = 0
    for begin in range(0, size, _WINDOW_BYTES):
        length = min(_WINDOW_BYTES, size - begin)
        flags = np.empty(-(-length // mmap.PAGESIZE), np.uint8)
        with mmap.mmap(file, length, prot=mmap.PROT_READ, offset=begin) as mapped:
            address = np.frombuffer(mapped, np.uint8).ctypes.data
            if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), ctypes.c_void_p(flags.ctypes.data)):
                return None
        found += min(int((flags & 1).sum()) * mmap.PAGESIZE, length)
    return found


def _is_reported(file: int) -> bool:
    own = os.geteuid()
    return own in (0, os.fstat(file).st_uid) or os.access(f"/proc/self/fd/{file}", os.W_OK)
