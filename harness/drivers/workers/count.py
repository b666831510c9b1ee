"""The number of processes that send the load of a trial."""

from __future__ import annotations

import math

from engines.cores import usable_cores
from harness.drivers.drive import most_in_a_second
from harness.schedule.requests import Schedule

STREAMS_EACH = 512
TOKENS_PER_S_EACH = 25_600
REQUESTS_PER_S_EACH = 1_000
_LOOKED_AT = 1_000


def worker_count(schedule: Schedule, asked: int | str, cores: int | None = None) -> int:
    """Return the number of load processes: as given, or for "auto" as the plan needs; at most one per chain.

    One process meets its targets (`make bench`) with 512 streams of 50 tokens/s and with 1,000 requests/s, several
    times below its limits. So "auto" takes one process per 512 users, per 25,600 tokens/s due in the busiest second, or
    per 1,000 requests due in it, whichever gives most. The speed of a closed loop is the server's and unknown before,
    so its users count. One core is left for the rest of the harness and a local server. `cores` defaults to the cores
    of this process, by affinity and control group.
    """
    chains = max(1, len(schedule.starts))
    if asked != "auto":
        return min(int(asked), chains)
    needed = schedule.users / STREAMS_EACH
    if schedule.due_ns is not None:
        peak = most_in_a_second(schedule.due_ns)
        needed = max(needed, peak / REQUESTS_PER_S_EACH, peak * _tokens_each(schedule) / TOKENS_PER_S_EACH)
    spare = (usable_cores() if cores is None else cores) - 1
    return max(1, min(math.ceil(needed), spare, chains))


def _tokens_each(schedule: Schedule) -> float:
    """Compute the mean output tokens of a request, from rows evenly spread over the plan."""
    count = schedule.count or 0
    rows = range(0, count, max(1, count // _LOOKED_AT))
    return sum(schedule.row(i).output_tokens for i in rows) / max(1, len(rows))
