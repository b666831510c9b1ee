"""Number of load processes of a trial: what the plan needs, and more if its warm-up was read late."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.cores import usable_cores
from harness.drivers.drive import most_within
from harness.drivers.timeline import NS_PER_S
from harness.records import Phase
from harness.schedule.requests import Schedule

STREAMS_EACH = 512
TOKENS_PER_S_EACH = 25_600
REQUESTS_PER_S_EACH = 1_000
LATE_SHARE = 0.05  # of the first tokens: one in twenty moves a p95
LEAST_FIRST_TOKENS = 20
BETTER = 0.8  # of the share before: more processes that gain less are of no use
_LOOKED_AT = 1_000


@dataclass(slots=True)
class WorkerCount:
    """Number of load processes, which may grow while the load warms up.

    Attributes:
        most: Largest number of processes that it may become.
        late: Share of the first tokens of a warm-up that were read late, where the number was found too small.
        too_few: Whether the present number was found too small.
    """

    number: int
    most: int
    late: float = math.inf
    too_few: bool = False

    @classmethod
    def of(cls, schedule: Schedule, wanted: int | str, cores: int | None = None, *, chunks: bool = True) -> WorkerCount:
        """Return the number to begin with: as given, or for "auto" as the plan needs; at most one per chain.

        One process meets its targets (`make bench`) with 25,600 tokens/s and with 1,000 requests/s, several times below
        its limits. So "auto" takes one process per 25,600 tokens/s due in the busiest second, or per 1,000 requests due
        in it, whichever gives more. The speed of a closed loop is the server's and unknown before. Its number grows
        with what the warm-up shows; without a warm-up or `chunks` it is one per 512 users. One core is left for the
        rest of the harness and a local server. `cores` defaults to the cores of this process, by affinity and control
        group.
        """
        chains = max(1, len(schedule.starts))
        if wanted != "auto":
            number = min(int(wanted), chains)
            return cls(number, number)
        shows = chunks and schedule.window.start_ns > 0
        needed = 0.0 if shows else schedule.users / STREAMS_EACH
        if schedule.due_ns is not None:
            peak = most_within(NS_PER_S, schedule.due_ns)
            needed = max(needed, peak / REQUESTS_PER_S_EACH, peak * _tokens_each(schedule) / TOKENS_PER_S_EACH)
        spare = (usable_cores() if cores is None else cores) - 1
        most = max(1, min(spare, chains))
        number = max(1, min(math.ceil(needed), most))
        return cls(number, most if shows else number)

    def look(self, progress: Mapping[str, Any]) -> bool:
        """Judge the number by a progress of the trial (`Progress.facts`); return whether it is found too small."""
        seen = progress["warm_up_first_tokens"]
        if progress["phase"] != Phase.MEASURE or seen < LEAST_FIRST_TOKENS or self.number >= self.most:
            return False
        late = progress["warm_up_read_late"] / seen
        if LATE_SHARE < late < BETTER * self.late:
            self.late, self.too_few = late, True
        return self.too_few

    def grow(self) -> str:
        """Double the number; return what happened, as a note."""
        before, self.number, self.too_few = self.number, min(2 * self.number, self.most), False
        return (
            f"{before} load process{'es' * (before > 1)} read {self.late:.0%} of the first tokens of the warm-up late: "
            f"it began again with {self.number}"
        )


def _tokens_each(schedule: Schedule) -> float:
    """Return the mean output tokens of a request, from rows evenly spread over the plan."""
    count = schedule.count or 0
    rows = range(0, count, max(1, count // _LOOKED_AT))
    return sum(schedule.row(i).output_tokens for i in rows) / max(1, len(rows))
