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
_PROT_NONE, _MAP_SHARED = 0, 1


def dropped_share(files: Sequence[Path]) -> float | None:
    """Ask the system to drop files from its cache; return the share of their bytes that is gone, None if unknown.

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
    except OSError:
        return None


def resident_bytes(file: int) -> int | None:
    """Return the bytes of an open file in memory, in whole pages (mincore(2)); None if the system does not report them.

    For files that the process neither owns nor may write to, Linux always reports all pages as resident.
    """
    size = os.fstat(file).st_size
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore") or not _is_reported(file):
        return None
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    found = 0
    for begin in range(0, size, _WINDOW_BYTES):
        length = min(_WINDOW_BYTES, size - begin)
        pages = _resident_pages(libc, file, begin, length)
        if pages is None:
            return None
        found += min(pages * mmap.PAGESIZE, length)
    return found


def _is_reported(file: int) -> bool:
    own = os.geteuid()
    return own in (0, os.fstat(file).st_uid) or os.access(f"/proc/self/fd/{file}", os.W_OK)


def _resident_pages(libc: ctypes.CDLL, file: int, begin: int, length: int) -> int | None:
    address = libc.mmap(None, length, _PROT_NONE, _MAP_SHARED, file, begin)
    if address in (None, ctypes.c_void_p(-1).value):
        return None
    try:
        flags = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
        if libc.mincore(address, length, flags):
            return None
        return int((np.frombuffer(flags.raw, dtype=np.uint8) & 1).sum())
    finally:
        libc.munmap(address, length)
