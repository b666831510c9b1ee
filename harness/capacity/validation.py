"""Check of a plan's rule against replicas that were measured: predicted first, then compared, never refitted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.capacity.measured import Candidate, check_alike
from harness.capacity.rate import Capacity, Holds
from harness.capacity.uncertainty import Draws
from harness.errors import UsageError
from harness.scenario.plan import Assumptions
from harness.store.streams import write_atomically

RECORD = "plan-check.json"
"""File in the folder of a run of several replicas, with what was predicted of it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Rate that several replicas were tested at.

    Attributes:
        chance: Chance that they hold it, as predicted.
        measured: Whether they did.
    """

    rate_rps: float
    chance: float
    measured: Holds

    @property
    def is_wrong(self) -> bool:
        """Whether the likelier outcome was predicted wrongly."""
        return self.measured is not Holds.UNKNOWN and (self.chance >= 0.5) is not (self.measured is Holds.YES)


@dataclass(frozen=True, slots=True)
class Validation:
    """Prediction from one replica, and what some replicas did.

    Attributes:
        predicted_rps: Rate that the replicas hold by the likeliest rate of one: replicas * rate / imbalance.
        capacity: What they hold as measured; None if no tested rate holds.
    """

    run: str
    replicas: int
    predicted_rps: float
    capacity: Capacity | None
    rates: tuple[Checked, ...]

    @property
    def error(self) -> tuple[float | None, float | None]:
        """Least and largest error of the predicted rate, as shares: against the rate that fails, and that that holds.

        None where that rate is not known.
        """
        if self.capacity is None:
            return None, None
        upper = self.capacity.upper_rps
        least = None if upper is None else self.predicted_rps / upper - 1
        return least, self.predicted_rps / self.capacity.lower_rps - 1


def validate(one: Candidate, several: Sequence[Candidate], replicas: int, assumed: Assumptions) -> Validation:
    """Return what a plan's rule predicts of some replicas, and what they did.

    Args:
        one: Candidate of one replica, with a capacity.
        several: Candidates of the run against the replicas; the one of the same configuration counts.

    Raises UsageError if that run has no such configuration, or other requirements or requests.
    """
    known = one.capacity
    assert known is not None
    other = _same(one, several)
    check_alike([one, other])
    imbalance = assumed.imbalance if replicas > 1 else 1.0
    rates = []
    for point in other.points:
        draws = Draws.of(known, point.rate_rps, Assumptions.model_construct(imbalance=imbalance, seed=assumed.seed))
        rates.append(Checked(point.rate_rps, draws.chance(replicas), point.tested().holds))
    predicted = replicas * known.value_rps / imbalance
    return Validation(other.run, replicas, predicted, other.capacity, tuple(rates))


def _same(one: Candidate, several: Sequence[Candidate]) -> Candidate:
    """Return the candidate of the same configuration; replicas behind an address do not say their level."""
    found = [other for other in several if other.keys == one.keys]
    found = found or [other for other in several if other.keys[2] in ("", one.keys[2])]
    if len(found) != 1:
        named = ", ".join(other.name for other in several)
        raise UsageError(f"--validate {several[0].run}: it has {named}, and none of them is {one.name}")
    return found[0]


def as_record(found: Validation, one: Candidate) -> dict[str, Any]:
    """Return a check as plain data."""
    least, largest = found.error
    capacity = found.capacity
    return {
        "run": found.run,
        "predicted_from": one.run,
        "configuration": one.name,
        "replicas": found.replicas,
        "predicted_rps": found.predicted_rps,
        "holds_rps": None if capacity is None else capacity.lower_rps,
        "fails_rps": None if capacity is None else capacity.upper_rps,
        "error_least": least,
        "error_largest": largest,
        "rates": [
            {"rate_rps": rate.rate_rps, "chance": rate.chance, "measured": rate.measured.value, "wrong": rate.is_wrong}
            for rate in found.rates
        ],
    }


def keep(record: dict[str, Any], folder: Path) -> None:
    """Store a check in the folder of the run that it is about. Raises StorageFailed."""
    write_atomically(folder / RECORD, json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")


def kept(runs: Path) -> list[dict[str, Any]]:
    """Return the checks that are stored with runs; unreadable ones are left out, as they are made again."""
    found = []
    for file in sorted(runs.glob(f"*/{RECORD}")):
        try:
            record = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and isinstance(record.get("predicted_rps"), int | float):
            found.append(record)
    return found
