"""Plan of a tuning, as its folder stores it in `tune.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.scenario.compare import Pairs
from harness.scenario.margins import Margin, parse_margin
from harness.seeding import generator
from harness.store.plans import read_plan, save_plan
from harness.tuning.race import LEAST_ROUNDS, MOST_ROUNDS, Rounds

STATE = "tune.json"
FORMAT = 1
_ROUNDS, _CONFIRMING = 34, 35  # of the seed's random numbers


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a tuning.

    Attributes:
        over: Axes, as written.
        number: Number that is tuned, with its margin, as `--fail-on` writes it.
        rounds: Of the race.
        pairs: Of the best candidate and the defaults.
        budget_s: Time after which no further start begins; None without.
        candidates: Of each its `given`, resolved `scenario` and `why_not` (`candidates.Candidate`), the defaults first.
        only: Configuration of it, as `--only`.
        command: Scenario, options and folder of the command, to go on with it.
    """

    over: tuple[str, ...]
    number: str
    seed: int
    rounds: Rounds
    pairs: Pairs
    budget_s: float | None
    candidates: tuple[dict[str, Any], ...]
    only: dict[str, str] = field(default_factory=dict)
    command: dict[str, Any] = field(default_factory=dict)

    @property
    def margin(self) -> Margin:
        return parse_margin(self.number)

    @property
    def name(self) -> str:
        """Name of the scenario."""
        return str(self.candidates[0]["scenario"]["name"])

    def seed_of_round(self, number: int) -> int:
        """Return the seed that all starts of a round share."""
        return int(generator(self.seed, _ROUNDS, number).integers(2**32))

    def seed_of_pairs(self, candidate: int) -> int:
        """Return the seed of the pairs that confirm a candidate; no round has their requests."""
        return int(generator(self.seed, _CONFIRMING, candidate).integers(2**32))

    def save(self, folder: Path) -> None:
        """Store the plan. Raises StorageFailed if it cannot be written."""
        save_plan(folder / STATE, FORMAT, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read a stored plan. Raises RunUnreadable, one sentence, if it is none."""
        return read_plan(folder / STATE, FORMAT, "a tuning", cls._of)

    @classmethod
    def _of(cls, stored: dict[str, Any]) -> Plan:
        over, candidates = tuple(stored.pop("over")), tuple(stored.pop("candidates"))
        rounds, pairs = Rounds(**stored.pop("rounds")), Pairs(**stored.pop("pairs"))
        return cls(over=over, candidates=candidates, rounds=rounds, pairs=pairs, **stored)


def parse_rounds(text: str) -> Rounds:
    """Return the rounds of `4`, or `2..6`. Raises ValueError, with the fix."""
    least, dots, most = text.replace(" ", "").partition("..")
    if not (least.isdecimal() and (most.isdecimal() or not dots)):
        raise ValueError(f"{text!r} is no number of starts; write 4, or 2..6")
    found = Rounds(int(least), int(most or least))
    if found.least < LEAST_ROUNDS:
        raise ValueError(f"fewer than {LEAST_ROUNDS} starts say nothing of their noise; write {LEAST_ROUNDS} or more")
    if not found.least <= found.most <= MOST_ROUNDS:
        raise ValueError(f"{text!r}: write the smaller number first, and at most {MOST_ROUNDS}")
    return found
