"""The system's file cache: asking it to forget files, and looking whether it has."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_WINDOW_BYTES = 1 << 30  # looked at together; a multiple of every page size
_PROT_NONE, _MAP_SHARED = 0, 1


def dropped_share(files: Sequence[Path]) -> float | None:
    """Ask the system to forget these files, and give the share of their bytes that it has forgotten, by what it says
    of their pages; None where nothing can be asked or known.

    Pages that are not yet on the disk, that somebody else has mapped, or that lie in memory alone (tmpfs) stay.
    """
    total = sum(path.stat().st_size for path in files)
    if not total or not hasattr(os, "posix_fadvise"):
        return None
    kept = [_kept_bytes(path) for path in files]
    return None if None in kept else 1 - sum(one for one in kept if one is not None) / total


def _kept_bytes(path: Path) -> int | None:
    """What of a file stays in memory although the system was asked to forget it."""
    try:
        with path.open("rb") as file:
            with contextlib.suppress(OSError):  # not every file system takes it for a file that is only read
                os.fsync(file.fileno())  # what was only just written cannot be forgotten
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return resident_bytes(file.fileno())
    except OSError:
        return None


def resident_bytes(file: int) -> int | None:
    """How much of an open file lies in memory, by whole pages (mincore(2)); None where the system does not tell.

    Of files that a process neither owns nor may write to, Linux says that all of it does, whatever is so.
    """
    size = os.fstat(file).st_size
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore") or not _is_told(file):
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


def _is_told(file: int) -> bool:
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
