"""A known answer: a metric, where it is measured, its true value, and how that follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.known_answers.measured import Measured

Bounds = Callable[[Measured], tuple[float, float]]
LEAST_ROOM = 1e-9  # around a truth of 0


@dataclass(frozen=True, slots=True)
class Case:
    """metric, statistic, load: as in the summary.   cell: what tells the cells of a run apart, a variant or a level.
    follows: how the truth follows, in a few words.   column: of the summary: `low` where only a bound is known.

    truth: a number, the same in every run, which is met but for rounding (`within`, relative). Else `bounds` gives the
    least and the most that it can be, from the run itself, and `follows` says where they come from.
    """

    metric: str
    load: str
    follows: str
    truth: float | None = None
    statistic: str = "value"
    cell: str = ""
    column: str = "value"
    within: float = 1e-6
    bounds: Bounds | None = None

    @property
    def label(self) -> str:
        """What tells it from the other cases."""
        place = "-".join(part for part in (self.cell, self.load) if part).replace(" ", "_")
        return f"{self.metric}-{self.statistic}-{place}"

    def measured(self, run: Measured) -> float:
        """What the run says."""
        return float(run.row(self.metric, self.statistic, self.load, self.cell)[self.column])

    def allowed(self, run: Measured) -> tuple[float, float]:
        """The least and the most that may be measured."""
        if self.bounds is not None:
            return self.bounds(run)
        assert self.truth is not None
        room = max(abs(self.truth) * self.within, LEAST_ROOM)
        return self.truth - room, self.truth + room
