"""Choice among configurations: the fastest that meets all limits, how sure that is, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.analysis.stats import MIN_PAIRS
from harness.verdict.decision.odds import Lead
from harness.verdict.decision.rows import WORST_FIRST, Row
from harness.verdict.limits.gate import Verdict
from harness.verdict.limits.held import LIKELY, SURE
from harness.verdict.thresholds import SAME_MEMORY


@dataclass(frozen=True, slots=True)
class Out:
    """A configuration that does not meet all limits, and its worst verdict.

    Attributes:
        cause: Outcome of that verdict; "stopped" if it has no results; "" if no limit was checked.
        about: Sentence of the verdict, or why it cannot be chosen whatever its limits.
        missed: Share of the limit by which it is violated; None if unknown, or if the limit is zero.
        more: Number of further limits that it does not meet.
    """

    label: str
    cause: str
    about: str = ""
    limit: str = ""
    load: str = ""
    missed: float | None = None
    more: int = 0


@dataclass(frozen=True, slots=True)
class Race:
    """The fastest of some configurations.

    Attributes:
        first: Labels: the fastest, with all that cannot be ranked behind it.
        certainty: SURE or LIKELY; "" for several.
        repetitions: That would make it sure; None if it is, or if that is unknown.
        at_least: Whether it lacks an interval, so that more may be needed.
        seconds: Time that they would take for the configurations in question.
    """

    first: tuple[str, ...] = ()
    certainty: str = ""
    repetitions: int | None = None
    at_least: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Recommendation for one model.

    Attributes:
        outcome: "choice": one configuration; "tie": several that cannot be ranked; "none": none meets all limits;
            "front": there are no limits; "unknown": no speed is known.
        chosen: Labels.
        meeting: Number of configurations that meet all limits.
        limits: Number of limits that they meet; None if it differs.
        undecided: Whether others might meet them too.
        likely_limits: Number of limits that the choice likely meets.
        closest: Of those that violate a limit, the one that misses its limits by least.
        smallest: Those of `chosen` that need the least memory; none if all do, or if it is unknown.
        nearest: The same by the distance from the reference of quality.
    """

    outcome: str
    chosen: tuple[str, ...] = ()
    race: Race = Race()
    meeting: int = 0
    limits: int | None = None
    undecided: bool = False
    likely_limits: int = 0
    closest: str | None = None
    smallest: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    out: tuple[Out, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for reports, which add the sentences."""
        return {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(self).items()}


LeadOf = Callable[[Row, Row], Lead]


def choose(rows: Sequence[Row], lead: LeadOf) -> Choice:
    """Return what to run of one model's configurations; with `decide: any` the exit code agrees."""
    if not any(row.verdicts for row in rows):
        return _without_limits(rows, lead)
    holding = [row for row in rows if row.outcome == "pass" and not row.stopped]
    out = tuple(_why_out(row) for row in rows if row not in holding)
    if not holding:
        misses = {row.label: _excess(row) for row in rows if row.outcome == "fail" and not row.stopped}
        closest = min(misses, key=lambda label: misses[label], default="")
        return Choice("none", closest=closest if misses.get(closest, math.inf) < math.inf else None, out=out)
    race = _race(holding, lead)
    first = [row for row in holding if row.label in race.first]
    likely = (
        0 if len(first) > 1 else len({verdict.limit for verdict in first[0].verdicts if verdict.certainty == LIKELY})
    )
    kept = {frozenset(verdict.limit for verdict in row.verdicts) for row in holding}
    return Choice(
        "tie" if len(first) > 1 else "choice",
        race.first,
        replace(race, certainty=LIKELY) if likely else race,
        meeting=len(holding),
        limits=len(next(iter(kept))) if len(kept) == 1 else None,
        undecided=any(one.cause in ("invalid", "cannot_tell") for one in out),
        likely_limits=likely,
        smallest=_smallest(first),
        out=out,
    )


def _without_limits(rows: Sequence[Row], lead: LeadOf) -> Choice:
    """Return the best of the Pareto-optimal in speed, memory and quality."""
    timed = [row for row in rows if row.values["speed"].comparable]
    front = [row for row in timed if row.front] or [row for row in timed if row.front is None]
    if not front:
        return Choice("unknown")
    labels = tuple(row.label for row in front)
    return Choice("front", labels, _race(front, lead), smallest=_smallest(front), nearest=_nearest(front))


def _race(rows: Sequence[Row], lead: LeadOf) -> Race:
    """Return the fastest; an unknown speed neither wins nor loses."""
    speeds = {row.label: row.values["speed"] for row in rows}
    first = max(rows, key=lambda row: speeds[row.label].value if speeds[row.label].comparable else -math.inf)
    others = [row for row in rows if row is not first]
    leads = [(row, lead(first, row) if speeds[row.label].comparable else Lead()) for row in others]
    unsure = [(row, one) for row, one in leads if one.certainty != SURE]
    tied = tuple(row.label for row, one in unsure if not one.certainty)
    needed = [one.needed or (MIN_PAIRS if one.lacks_interval else math.inf) for _, one in unsure]
    repetitions = int(max(needed)) if needed and max(needed) < math.inf else None
    at_least = repetitions is not None and any(one.lacks_interval for _, one in unsure)
    seconds = (repetitions or 0) * (first.seconds + sum(row.seconds for row, _ in unsure))
    return Race((first.label, *tied), "" if tied else LIKELY if unsure else SURE, repetitions, at_least, seconds)


def _smallest(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return those that need the least memory; none if all do, or if one's is unknown or of another kind."""
    needs = {row.label: row.values["memory_needed_bytes"] for row in rows}
    if len({row.memory_name for row in rows}) > 1 or not all(need.comparable for need in needs.values()):
        return ()
    most = min(need.value for need in needs.values()) * (1 + SAME_MEMORY.value)
    alike = tuple(label for label, need in needs.items() if need.value <= most)
    return alike if len(alike) < len(rows) else ()


def _nearest(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return those whose distance from the reference lies within the interval of the smallest; none if all do."""
    scored = {row.label: row.values["kl_mean"] for row in rows if row.values["kl_mean"].comparable}
    end = min(((one.value, one.ends[1]) for one in scored.values()), default=(0.0, 0.0))[1]
    near = tuple(label for label, one in scored.items() if one.value <= end)
    return near if len(near) < len(scored) else ()


def _excess(row: Row) -> float:
    """Return the largest share by which it misses a limit; infinite if one could not be judged."""
    if any(verdict.outcome in ("invalid", "cannot_tell") for verdict in row.verdicts):
        return math.inf
    return max(_missed(verdict) for verdict in row.verdicts if verdict.outcome == "fail")


def _missed(verdict: Verdict) -> float:
    """Return the share of the limit by which a value misses it; the value itself if it is zero, infinite if unknown."""
    bound = verdict.bound
    if math.isnan(bound):  # a multiple of a number that is known by an end only
        return math.inf
    seen = next((one for one in (verdict.value, verdict.low, verdict.high) if math.isfinite(one)), bound)
    return abs(seen - bound) / abs(bound) if bound else abs(seen)


def _why_out(row: Row) -> Out:
    if row.stopped:
        return Out(row.label, *row.stopped)
    broken = [verdict for verdict in row.verdicts if verdict.outcome != "pass"]
    if not broken:
        return Out(row.label, "")
    worst = min(broken, key=lambda verdict: WORST_FIRST.index(str(verdict.outcome)))
    told = worst.outcome == "fail" and worst.bound and not math.isnan(worst.bound)
    missed = _missed(worst) if told else None
    return Out(row.label, row.outcome, worst.sentence, worst.limit, worst.keys[-1], missed, len(broken) - 1)
