"""In the place of uvloop, by which the process of a cell runs where it is installed: virtual time.

Only for engines in process. However slow or busy the machine, no request is sent late, and every reply takes as long
as it says.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.virtual_time import VirtualTimeLoop

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns. Its threads are not waited for at the end: only timers make this loop go on."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
