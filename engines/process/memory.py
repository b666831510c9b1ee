"""Return of freed memory, which the C library would keep, to the system."""

from __future__ import annotations

import ctypes
import gc
import sys


def free_memory() -> None:
    """Collect garbage, then return free pages. Only glibc has a call for that."""
    gc.collect()
    if sys.platform == "win32":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
