"""Blocks: a scenario whose loads are cut into short ones, so that two servers can take turns; pure.

A block is a load of its own, with its own requests. The blocks of a load are even in number, so that ABBA comes out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from harness.errors import UsageError
from harness.scenario.loads.kinds import Load, load_names
from harness.scenario.model import Scenario

BLOCK_S = 5.0
"""Length of a block, unless there are too few or too many of them."""
FEW, MANY = 4, 24
LEAST_REQUESTS = 5  # of a block; of a closed loop at least two for each user
FURTHER_WARMUP_S = 2.0  # longest warm-up of a later block of a number of requests
_NAME = re.compile(r"(?P<load>.+)-block-(?P<number>[0-9]{2})")


def in_blocks(scenario: Scenario) -> Scenario:
    """Return the scenario with its loads in blocks, and one start of each configuration.

    Raises UsageError for a load that has no equal parts.
    """
    engines = tuple(
        block if block.load is None else block.model_copy(update={"load": cut(block.load)})
        for block in scenario.engines
    )
    changed: dict[str, Any] = {"engines": engines, "repetitions": 1, "restart": "per_cell"}
    return scenario.model_copy(update=changed | ({"load": cut(scenario.load)} if scenario.load else {}))


def cut(loads: Sequence[Load]) -> tuple[Load, ...]:
    """Return the blocks of all loads, those of a load in a row. Raises UsageError like `in_blocks`."""
    return tuple(block for load, name in zip(loads, load_names(loads), strict=True) for block in _blocks_of(load, name))


def whole(name: str) -> str:
    """Return the name of the load that a block is of."""
    found = _NAME.fullmatch(name)
    return name if found is None else found["load"]


def number_of(name: str) -> int | None:
    """Return the number of a block, from 1; None for a load that is none."""
    found = _NAME.fullmatch(name)
    return None if found is None else int(found["number"])


def _blocks_of(load: Load, name: str) -> list[Load]:
    _check(load, name)
    count = blocks_in(load)
    size: dict[str, Any] = {}
    if load.measured_s is not None:
        size["duration_s"] = load.measured_s / count
    elif load.measured_count is not None:
        size["sessions" if load.kind == "sessions" else "requests"] = math.ceil(load.measured_count / count)
    longest_s = FURTHER_WARMUP_S if load.measured_s is None else load.measured_s / count / 2
    return [
        load.model_copy(
            update={
                **size,
                "name": f"{name}-block-{number:02}",
                "warmup_s": load.warmup_s if number == 1 else min(load.warmup_s, longest_s),
            }
        )
        for number in range(1, count + 1)
    ]


def _check(load: Load, name: str) -> None:
    """Raise UsageError for a load that has no equal parts."""
    if load.changes_by_plan or getattr(load, "ramp", None) is not None:
        raise UsageError(f"load {name}: its rate changes by plan, so it has no equal blocks; leave --alternate out")
    if load.driver == "locust":
        raise UsageError(f"load {name}: Locust starts anew for each block; leave --alternate or `driver: locust` out")


def blocks_in(load: Load) -> int:
    """Return the number of blocks of a load: even, each of about BLOCK_S, and of requests enough."""
    seconds, count, users = load.measured_s, load.measured_count, load.user_count
    if seconds is None and users is None and load.mean_rate > 0:
        seconds = (count or 0) / load.mean_rate
    if count is None and users is None:
        count = round((seconds or 0.0) * load.mean_rate)
    wanted = FEW if seconds is None else min(MANY, max(FEW, seconds / BLOCK_S))
    if count is not None:
        wanted = min(wanted, count / max(LEAST_REQUESTS, 2 * (users or 0)))
    return max(2, 2 * int(wanted / 2))
