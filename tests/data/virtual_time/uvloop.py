"""In the place of uvloop, by which the process of a cell runs where it is installed: virtual time.

Only for engines in process. However slow or busy the machine, no request is sent late, and every reply takes as long
as it says. Before it jumps far, it listens to the parent for a moment: a process that waits for its turn has nothing
else to do.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.virtual_time import VirtualTimeLoop

T = TypeVar("T")
FAR_S, MOMENT_S = 0.5, 0.01


class ListeningLoop(VirtualTimeLoop):
    """Virtual time in which orders are heard."""

    def _run_once(self) -> None:
        timers = [timer for timer in self._scheduled if not timer._cancelled]  # type: ignore[attr-defined]
        if not self._ready and timers and timers[0]._when - self.time() >= FAR_S:  # type: ignore[attr-defined]
            self._process_events(self._selector.select(MOMENT_S))  # type: ignore[attr-defined]
        super()._run_once()


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns. Its threads are not waited for at the end: only timers make this loop go on."""
    loop = ListeningLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
