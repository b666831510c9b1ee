"""Handing freed memory back to the system, which the C library would keep for the next time."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_back() -> None:
    """Collect garbage, then return free pages. Only glibc has a call for that; elsewhere they go when they go."""
    gc.collect()
    if sys.platform == "win32":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
