"""Configurations of one run as sides: its engines, levels, variants, models or loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.analysis.summary import KEYS
from harness.comparison.measured import Measurement
from harness.comparison.rounds import BASE, HEAD, interleaved
from harness.comparison.sides import Side
from harness.errors import UsageError
from harness.scenario.base import near
from harness.scenario.compare import LEAST_PAIRS

DIMENSIONS = {"model": "model", "engine": "engine", "quantization": "level", "variant": "variant", "load": "load"}
"""Names of what configurations differ in, each with its key."""


def parts_of(side: Side, dimension: str) -> dict[str, Side]:
    """Return a run's measurements by their value of a dimension, which is then no longer among their keys.

    Raises UsageError for an unknown dimension, and if there are fewer than two values.
    """
    if dimension not in DIMENSIONS:
        raise UsageError(f"--by {dimension}: {near(dimension, DIMENSIONS)}")
    place = KEYS.index(DIMENSIONS[dimension])
    values = list(dict.fromkeys(one.keys[place] for one in side.measurements))
    if len(values) < 2:
        has = f"one {dimension}, {values[0] or 'without a name'}" if values else "measured nothing"
        raise UsageError(f"--by {dimension}: {side.name} has {has}; there is nothing to compare")
    return {value or "default": _part(side, place, value) for value in values}


def _part(side: Side, place: int, value: str) -> Side:
    def without(keys: Sequence[str]) -> tuple[str, ...]:
        return (*keys[:place], "", *keys[place + 1 :])

    own = [one for one in side.measurements if one.keys[place] == value]
    return replace(
        side,
        name=value or "default",
        measurements=tuple(replace(one, keys=without(one.keys)) for one in own),
        distributions={without(keys): frame for keys, frame in side.distributions.items() if keys[place] == value},
        times={without(keys): frame for keys, frame in side.times.items() if keys[place] == value},
        quality={without(keys): one for keys, one in side.quality.items() if keys[place : place + 1] == (value,)},
    )


def pairs_in_turns(base: Side, head: Side) -> int:
    """Return how many pairs the starts of two configurations of a run make; 0 if they did not take turns."""
    others = {one.keys: one for one in head.measurements}
    counts = [_in_turns(one, others[one.keys]) for one in base.measurements if one.keys in others]
    return min(counts, default=0)


def _in_turns(base: Measurement, head: Measurement) -> int:
    starts = len(base.starts)
    if starts != len(head.starts) or starts < LEAST_PAIRS:
        return 0
    begun = [(start.trial.t0_utc or "", side) for side, one in ((BASE, base), (HEAD, head)) for start in one.starts]
    return starts if interleaved([side for _, side in sorted(begun)]) else 0
