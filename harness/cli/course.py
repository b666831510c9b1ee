"""Course of a run: how much of its time is over, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from reports.format import clock

if TYPE_CHECKING:
    from harness.schedule.cells import Cell, Skip

BAR = 24


class Course:
    """Planned trials in order, by (cell id, number of the load), with the expected seconds of each; None: unknown.

    `now_s` is a clock.
    """

    def __init__(
        self, expected: Mapping[tuple[str, int], float | None], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._left, self._expected, self._now_s = dict(expected), dict(expected), now_s
        self._took: dict[int, list[float]] = {}
        self._ended = 0
        self._began_s = self._trial_began_s = now_s()

    @classmethod
    def of(cls, planned: Sequence[Cell | Skip], done: Collection[tuple[str, int]] = ()) -> Course:
        """Return the course of planned cells, before any of them runs, without trials that are done already."""
        from harness.schedule.cells import Cell
        from harness.schedule.duration import trial_time_s
        from harness.schedule.speed import speed_of

        cells = [cell for cell in planned if isinstance(cell, Cell)]
        return cls(
            {
                (cell.id, plan.index): trial_time_s(plan, speed)
                for cell in cells
                for speed in [speed_of(cell)]
                for plan in cell.trials
                if (cell.id, plan.index) not in done
            }
        )

    @property
    def total(self) -> int:
        """Number of trials, without those that will not run."""
        return self._ended + len(self._left)

    @property
    def ended(self) -> int:
        """Number of trials that have ended."""
        return self._ended

    def begins(self) -> None:
        """Note the start of a trial."""
        self._trial_began_s = self._now_s()

    def ends(self, cell: str, trial: int, *, complete: bool = True) -> None:
        """Note the end of a trial; only complete ones say how long others take."""
        if complete:
            self._took.setdefault(trial, []).append(self._now_s() - self._trial_began_s)
        self._ended += 1
        self._left.pop((cell, trial), None)

    def drop(self, cell: str) -> None:
        """Forget the trials of a cell that will not run."""
        for key in [key for key in self._left if key[0] == cell]:
            del self._left[key]

    def left_s(self, cell: str, trial: int, of_trial_s: float | None) -> float | None:
        """Return the seconds to the end of the run; `of_trial_s`: to the end of the running trial; None: unknown."""
        others = [self._seconds(key) for key in self._left if key != (cell, trial)]
        if of_trial_s is None:
            expected = self._seconds((cell, trial))
            of_trial_s = None if expected is None else max(0.0, expected - (self._now_s() - self._trial_began_s))
        known = [one for one in (of_trial_s, *others) if one is not None]
        return sum(known) if len(known) == len(others) + 1 else None

    def _seconds(self, key: tuple[str, int]) -> float | None:
        """Return the expected seconds of a trial: the mean of complete ones under the same load, or else the plan's."""
        took = self._took.get(key[1])
        return sum(took) / len(took) if took else self._expected.get(key)

    def line(self, left_s: float | None) -> str:
        """Return a bar, the number of ended trials and the time left of the whole run."""
        passed_s = self._now_s() - self._began_s
        share = passed_s / (passed_s + left_s) if left_s is not None else self.ended / max(1, self.total)
        full = min(BAR, int(BAR * share))
        left = f" · {clock(left_s)} left" if left_s is not None else f" · {clock(passed_s)} so far"
        return f"{'█' * full}{'░' * (BAR - full)} {self.ended} of {self.total} trials{left}"
