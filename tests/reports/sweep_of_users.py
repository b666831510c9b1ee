"""A fabricated sweep: users who wait for replies, on a server of known throughput and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from harness.cli.commands.report import report_data
from harness.records import Record
from harness.results import derive
from reports.data import ReportData
from tests.fabricated import FabricatedTrial, again, cell_entry, streamed, trial_entry
from tests.reports.conftest import manifest

USERS = (1, 2, 4, 8, 16, 32, 64)
GAMMA, ALPHA, BETA = 5.0, 0.02, 4e-4
SLO = {"ttft_ms": 150.0, "tpot_ms": None, "e2e_ms": None, "stall_ms": None}
_TOKENS = 10


def requests_per_s(users: float) -> float:
    """Throughput by the universal scalability law; its peak is at 49.5 users."""
    return GAMMA * users / (1 + ALPHA * (users - 1) + BETA * users * (users - 1))


def requests_of(users: int, per_s: float, seconds: float, seed: int) -> list[Record]:
    """Requests of users who send again at once, together so many a second; a fifth of a request is its first token."""
    rng = np.random.default_rng(seed)
    found = []
    for user in range(users):
        at_ms = 1000 * users / per_s * rng.random()
        while at_ms < 1000 * seconds:
            lasts_ms = 1000 * users / per_s * float(rng.lognormal(-0.02, 0.2))
            tokens = int(rng.integers(50, 1000))
            found.append((at_ms, lasts_ms, user, tokens))
            at_ms += lasts_ms
    return [
        streamed(
            number, at_ms, ttft_ms=0.2 * lasts_ms, gap_ms=0.8 * lasts_ms / (_TOKENS - 1), tokens=_TOKENS,
            prompt_tokens=tokens, requested_prompt_tokens=tokens, loop="closed", user=user,
        )
        for number, (at_ms, lasts_ms, user, tokens) in enumerate(sorted(found))
    ]  # fmt: skip


def trials_of(
    users: Sequence[int], seconds: float, per_s: Callable[[float], float], changes: dict[str, Any]
) -> Iterator[FabricatedTrial]:
    """A trial of each number of users, all on one configuration."""
    cell = cell_entry()
    for place, number in enumerate(users):
        named: dict[str, Any] = {"id": f"{place:03}", "index": place, "load": f"sustained-users-{number}"}
        known: dict[str, Any] = {"loop": "closed", "users": number, "slo": SLO, "end_s": seconds}
        trial = trial_entry(**(named | known | changes))
        yield FabricatedTrial(cell, trial, requests_of(number, per_s(number), seconds, place))


@lru_cache
def sweep_of_users(
    *users: int, seconds: float = 60.0, per_s: Callable[[float], float] = requests_per_s, **changes: Any
) -> ReportData:
    """A run of these numbers of users. changes: keys of every trial's entry."""
    made = list(trials_of(users or USERS, seconds, per_s, changes))
    cell = again(made[0].cell, trials=[one.trial for one in made])
    for one in made:
        one.cell = cell
    return report_data(derive(manifest([cell]), made))
