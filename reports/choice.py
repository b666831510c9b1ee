"""Sentences of a choice among configurations, from the data of `harness.verdict.decision.recommendation`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.format import ROUGHLY, THIN, amount, count, digits, estimate, interval, joined

QUALIFIED = ("while it loads", "without the KV cache that it reserves and does not use")
"""Sources of memory that is not the peak while serving."""
OF_NO_LOAD = "quality"
FATES = dict.fromkeys(("fail", "stopped"), "rejected") | dict.fromkeys(("invalid", "cannot_tell", ""), "undecided")
"""Words for rows that do not meet all limits, by `cause`."""
SHORT_S, LONG_S = 90.0, 5400.0

Table = Mapping[str, Any]


def worded(table: Table) -> dict[str, Any]:
    """Return a table of the decision whose recommendation has its `sentence`, and `why` for each row that is out."""
    advice = table["recommendation"]
    sentence = " ".join(_sentences(advice, table)).replace(THIN, " ")
    out = [one | {"why": _why(one)} for one in advice["out"]]
    return {**table, "recommendation": advice | {"sentence": sentence, "out": out}}


def numbers(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value as a row of the summary, with NaN for the unknown."""
    ends = {name: math.nan if value[name] is None else value[name] for name in ("value", "low", "high")}
    return {**value, **ends}


def _sentences(advice: Table, table: Table) -> Iterator[str]:
    outcome, chosen, race = advice["outcome"], advice["chosen"], advice["race"]
    if outcome == "unknown":
        yield "No recommendation: no configuration has a known speed."
    elif outcome == "none":
        yield f"No recommendation: {_none(advice)}."
    elif len(chosen) == 1:
        odds = f" ({race['certainty']})" if race["certainty"] == "likely" or advice["meeting"] > 1 else ""
        yield f"Recommended: {', '.join([chosen[0] + odds, *_speeds(chosen[0], table)])}."
        yield f"{_alone(chosen[0], table) if outcome == 'front' else _meeting(advice)}."
        if advice["likely_limits"]:
            yield f"It meets {count(advice['likely_limits'], 'limit')} likely, not surely."
        yield from _settled(race, "the choice")
    elif outcome == "tie":
        yield f"Recommended: {' or '.join(chosen)}. They meet {_limits(advice)}."
        yield from _strengths(advice, table)
    else:
        yield f"No limits decide between {joined(chosen)} (Pareto-optimal)."
        yield from _strengths(advice, table)


def _meeting(advice: Table) -> str:
    meet = f"shown to meet {_limits(advice)} (others are inconclusive)" if advice["undecided"] else ""
    meet = meet or f"that meet{'s' * (advice['meeting'] == 1)} {_limits(advice)}"
    if advice["meeting"] == 1:
        return f"It is the only configuration {meet}"
    return f"Fastest of the {advice['meeting']} configurations {meet}"


def _limits(advice: Table) -> str:
    """Return how many limits they meet: engines with loads of their own may have limits of their own."""
    number = advice["limits"]
    return {None: "all their limits", 1: "the limit", 2: "both limits"}.get(number, f"all {number} limits")


def _alone(label: str, table: Table) -> str:
    """Return why a row is the only one that is not dominated."""
    others = [row["front"] for row in table["rows"] if row["label"] != label]
    if not others:
        return "It is the only configuration"
    if False not in others:
        return "No other configuration can be compared with it"
    return f"It dominates every other configuration{' that can be compared' if None in others else ''}"


def _strengths(advice: Table, table: Table) -> Iterator[str]:
    """Yield which is the fastest, the smallest, and the nearest to the reference."""
    first, race = advice["race"]["first"], advice["race"]
    speeds = [", ".join(_speeds(label, table)) for label in first]
    if not any(speeds):
        yield "No speed was measured, so they cannot be ranked."
    elif len(first) > 1:
        known = (f"{label} {speed or 'unknown'}" for label, speed in zip(first, speeds, strict=True))
        yield f"Which is faster cannot be told: {'; '.join(known)}."
    else:
        yield f"Fastest{' (likely)' if race['certainty'] == 'likely' else ''}: {first[0]}, {speeds[0]}."
    yield from _settled(race, "which is faster")
    if advice["smallest"]:
        memory = _of(table, advice["smallest"][0], "memory_needed_bytes")
        about = f" {memory['source']}" if memory["source"] in QUALIFIED else ""
        yield f"Least memory: {joined(advice['smallest'])}, {estimate(memory, 'bytes')}{about}."
    if advice["nearest"]:
        distance = _of(table, advice["nearest"][0], "kl_mean")
        yield f"Nearest to the reference: {joined(advice['nearest'])}, KL {estimate(distance)} {distance['unit']}."


def _of(table: Table, label: str, name: str) -> dict[str, Any]:
    (row,) = (row for row in table["rows"] if row["label"] == label)
    return numbers(row["values"][name])


def _speeds(label: str, table: Table) -> list[str]:
    """Return a row's speed beside the reference's, and in tokens/s with a narrow interval; nothing if it is unknown."""
    speed, ratio = _of(table, label, "speed"), _of(table, label, "speed_ratio")
    if math.isnan(speed["value"]) or speed["invalid"]:
        return []
    own, ends = f"{estimate(speed)} tokens/s", interval(speed).replace(" to ", ", ")
    if ends and ROUGHLY not in own:
        own = f"{own} [{ends}]"
    reference = (table["reference"] or {}).get("label", label)
    known = reference != label and not math.isnan(ratio["value"]) and not ratio["invalid"]
    return [*([f"{amount(ratio['value'])} x {reference}"] if known else []), own]


def _settled(race: Table, what: str) -> Iterator[str]:
    if race["repetitions"]:
        took = f", about {_time(race['seconds'])}" if race["seconds"] else ""
        number = f"{race['repetitions']} repetitions"
        needed = f"At least {number} are needed to tell" if race["at_least"] else f"{number} would settle"
        yield f"{needed} {what}{took}."


def _time(seconds: float) -> str:
    if seconds < SHORT_S:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < LONG_S else f"{seconds / 3600:.1f} h"


def _none(advice: Table) -> str:
    if advice["closest"]:
        (closest,) = (one for one in advice["out"] if one["label"] == advice["closest"])
        return f"no configuration meets every limit. Closest: {closest['label']}, which {_why(closest)}"
    if any(one["cause"] == "fail" for one in advice["out"]):
        return "every configuration violates a limit, or has one that could not be checked"
    return "every configuration has at least one limit that could not be checked"


def _why(one: Table) -> str:
    """Return why a row does not meet all limits."""
    if not one["limit"]:
        return one["about"] or "no limit was checked"
    more = f", and {one['more']} more" if one["more"] else ""
    where = f"{one['limit']}{'' if one['load'] == OF_NO_LOAD else ' under ' + one['load']}"
    if one["cause"] != "fail":
        return f"{where}: {one['about'].rstrip('.')}{more}"
    return f"violates {where}{_by(one['missed'])}: {re.split('; | [(]', one['about'])[0].rstrip('.')}{more}"


def _by(missed: float | None) -> str:
    """Return by how much a limit is missed; "" if that is unknown."""
    if missed is None:
        return ""
    return f" by {digits(missed, 3)} x the limit" if missed >= 1 else f" by {digits(missed * 100, 2)} %"


def against(out: Sequence[Table]) -> list[str]:
    """Return a line for the rejected rows, and one for those whose limits could not be checked."""
    found: dict[str, list[str]] = {}
    for one in out:
        found.setdefault(FATES[one["cause"]], []).append(f"{one['label']}: {one['why']}")
    return [f"{fate.capitalize()}: {'; '.join(lines)}." for fate, lines in found.items()]
