"""What to run, in one sentence: the fastest row that holds all limits, or why none qualifies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.verdict.gate import Verdict
from harness.verdict.held import Outcome
from harness.verdict.thresholds import SAME_MEMORY

Value = dict[str, Any]
WHILE_LOADING = "while it loads"
UNRESERVED = "without the KV cache that it reserves and does not use"
QUALIFIED = (WHILE_LOADING, UNRESERVED)
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Option:
    """A row to choose. verdicts: of its limits under all its loads.   out: why it cannot be chosen, else "".

    speed, memory, divergence: values of `decision_rows`.   front: nothing beats it.
    """

    label: str
    verdicts: Sequence[Verdict]
    speed: Value
    memory: Value
    divergence: Value
    out: str
    front: bool

    @property
    def holds(self) -> bool:
        """Every limit is met, and there is one: as the gate counts with `decide: any`."""
        return bool(self.verdicts) and all(verdict.outcome is Outcome.PASS for verdict in self.verdicts)

    @property
    def undecided(self) -> bool:
        """It breaks no limit, but was not measured well enough to hold them all."""
        outcomes = {verdict.outcome for verdict in self.verdicts}
        return bool(outcomes - {Outcome.PASS}) and Outcome.FAIL not in outcomes


def recommend(options: Sequence[Option], speed: str) -> dict[str, Any]:
    """The advice for one model: {outcome, sentence, chosen, out, closest}.

    speed: what the rows' speed is, in words.   outcome: "choice": one row; "tie": several that cannot be told apart;
    "none": no row holds all limits; "front": there are no limits; "unknown": nothing was measured.
    chosen: labels.   out: {label, why} of each row that does not hold.   closest: the label of the row nearest to
    holding, None where another is chosen.
    """
    if not any(option.verdicts for option in options):
        return _without_limits(options, speed)
    holding = [option for option in options if option.holds]
    out = [{"label": option.label, "why": why_out(option)} for option in options if not option.holds]
    if not holding:
        sentence, closest = _none(options)
        return _advice("none", sentence, [], out, closest)
    undecided = any(option.undecided for option in options)
    outcome, sentence, chosen = _best(holding, speed, "known to hold" if undecided else "")
    return _advice(outcome, sentence, chosen, out)


def _advice(
    outcome: str, sentence: str, chosen: Sequence[str], out: Sequence[dict[str, str]] = (), closest: str | None = None
) -> dict[str, Any]:
    return {"outcome": outcome, "sentence": sentence, "chosen": list(chosen), "out": list(out), "closest": closest}


def _limits(holding: Sequence[Option]) -> str:
    """How many limits they hold: engines with loads of their own may have limits of their own."""
    held = [frozenset(verdict.limit for verdict in option.verdicts) for option in holding]
    if len(set(held)) > 1:
        return "all their limits"
    return {1: "the limit", 2: "both limits"}.get(len(held[0]), f"all {len(held[0])} limits")


def _best(holding: Sequence[Option], speed: str, known: str) -> tuple[str, str, list[str]]:
    """The fastest, or all that may be it. known: words for "hold" where other rows may hold the limits too."""
    limits = _limits(holding)
    if len(holding) == 1:
        only = holding[0]
        told = f"; {speed}: {text(only.speed)}" if only.speed["value"] is not None else ""
        return (
            "choice",
            f"Take {only.label}: it alone {'is ' + known if known else 'holds'} {limits}{told}.",
            [only.label],
        )
    timed = [option for option in holding if option.speed["value"] is not None]
    if not timed:
        return (
            "tie",
            f"{_names(holding)} hold {limits}; which is faster cannot be told: no speed is known.",
            [option.label for option in holding],
        )
    fastest = max(timed, key=lambda option: float(option.speed["value"]))
    rivals = [option for option in holding if option is not fastest and not clearly_faster(fastest, option)]
    if not rivals:
        sentence = (
            f"Take {fastest.label}: of {len(holding)} {known or 'that hold'} {limits} it is the fastest; {speed}: "
        )
        return "choice", f"{sentence}{text(fastest.speed)}.", [fastest.label]
    tied = [fastest, *rivals]
    speeds = ", ".join(f"{option.label} {text(option.speed)}" for option in tied)
    sentence = f"{_names(tied)} hold {limits}; which is faster cannot be told ({speed}: {speeds}){_smallest(tied)}."
    return "tie", sentence, [option.label for option in tied]


def clearly_faster(one: Option, other: Option) -> bool:
    """Whether it is faster beyond chance: the 95 % intervals do not meet, and both are known."""
    low, high = one.speed["low"], other.speed["high"]
    return low is not None and high is not None and other.speed["value"] is not None and low > high


def _smallest(options: Sequence[Option]) -> str:
    """Which of them takes the least memory, where all are known."""
    sizes = [option.memory["value"] for option in options]
    if None in sizes or max(sizes) <= min(sizes) * (1 + SAME_MEMORY.value):
        return ""
    least = min(options, key=lambda option: float(option.memory["value"]))
    return f"; {least.label} takes the least memory, {size(least.memory)}"


def _none(options: Sequence[Option]) -> tuple[str, str | None]:
    """Why no row qualifies, and the row that is nearest."""
    judged = [option for option in options if option.verdicts]
    known = [option for option in judged if _excess(option) < math.inf]
    if not known and not any(verdict.outcome is Outcome.FAIL for option in judged for verdict in option.verdicts):
        return "None can be chosen yet: no row breaks a limit, but none could be held against all of them.", None
    if not known:
        return "None qualifies: each row breaks a limit, or could not be held against all of them.", None
    closest = min(known, key=_excess)
    broken = [verdict for verdict in closest.verdicts if verdict.outcome is Outcome.FAIL]
    what = "; ".join(_broken(verdict) for verdict in broken)
    return f"None qualifies: closest is {closest.label}, which breaks {what}.", closest.label


def _excess(option: Option) -> float:
    """How far it is from holding: the largest share by which it misses a limit; infinite where one cannot be judged."""
    missed = 0.0
    for verdict in option.verdicts:
        if verdict.outcome is Outcome.FAIL:
            missed = max(missed, _missed(verdict))
        elif verdict.outcome is not Outcome.PASS:
            return math.inf
    return missed


def _missed(verdict: Verdict) -> float:
    """The share of the limit by which a value misses it; where the limit is zero, the value itself."""
    limit = verdict.bound
    seen = next((one for one in (verdict.value, verdict.low, verdict.high) if math.isfinite(one)), math.nan)
    missed = abs(seen - limit) / abs(limit) if limit else abs(seen)
    return missed if math.isfinite(missed) else 1e9


def _broken(verdict: Verdict) -> str:
    missed, limit = _missed(verdict), verdict.bound
    by = f", missed by {missed:.3g} times the limit" if missed >= 1 else f", missed by {missed * 100:.2g} %"
    sentence = verdict.sentence.rstrip(".").partition(" (")[0]
    return f"`{verdict.limit}` under {verdict.keys[-1]} ({sentence}{by if limit and missed < 1e9 else ''})"


def why_out(option: Option) -> str:
    """Why a row does not hold all limits."""
    if option.out:
        return option.out
    broken = [verdict for verdict in option.verdicts if verdict.outcome is not Outcome.PASS]
    if not broken:
        return "no limit was checked"
    order = (Outcome.FAIL, Outcome.INVALID, Outcome.CANNOT_TELL)
    worst = min(broken, key=lambda verdict: order.index(verdict.outcome))
    more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
    if worst.outcome is Outcome.FAIL:
        return f"breaks {_broken(worst)}{more}"
    if worst.outcome is Outcome.INVALID:
        return f"`{worst.limit}` under {worst.keys[-1]} is invalid{more}"
    return f"cannot tell `{worst.limit}` under {worst.keys[-1]}: {worst.sentence.rstrip('.')}{more}"


def _without_limits(options: Sequence[Option], speed: str) -> dict[str, Any]:
    """What each of the rows that nothing beats is best at."""
    front = [option for option in options if option.front]
    if not front:
        return _advice("unknown", "Nothing to choose from: no row has a valid speed.", [])
    if len(front) == 1:
        only = front[0]
        others = [option.speed["value"] is not None for option in options if option is not only]
        why = "every other row is beaten by another" if all(others) else "every other row with a valid speed is beaten"
        if not any(others):
            why = "no other row has a valid speed" if others else "it is the only row"
        return _advice("front", f"{only.label}: {why}; {speed}: {text(only.speed)}.", [only.label])
    words = [f"{_names(group)} {what}" for group, what in _strengths(front)]
    sentence = f"No limits decide between {_names(front)}, which no other row beats: {'; '.join(words)}."
    return _advice("front", sentence, [option.label for option in front])


def _strengths(front: Sequence[Option]) -> list[tuple[list[Option], str]]:
    """What rows of the front are best at: the fastest (all that may be it), the smallest, the nearest in quality."""
    found = []
    fastest = max(front, key=lambda option: float(option.speed["value"]))
    rivals = [option for option in front if option is not fastest and not clearly_faster(fastest, option)]
    if rivals:
        speeds = " and ".join(text(option.speed) for option in (fastest, *rivals))
        found.append(([fastest, *rivals], f"cannot be told apart in speed ({speeds})"))
    else:
        found.append(([fastest], f"is the fastest, {text(fastest.speed)}"))
    sized = [option for option in front if option.memory["value"] is not None]
    if len(sized) > 1:
        least = min(sized, key=lambda option: float(option.memory["value"]))
        largest = least.memory["value"] * (1 + SAME_MEMORY.value)
        alike = [option for option in sized if option.memory["value"] <= largest]
        if len(alike) < len(sized):
            what = "takes" if len(alike) == 1 else "take"
            found.append((alike, f"{what} the least memory, {size(least.memory)}"))
    scored = [option for option in front if option.divergence["value"] is not None]
    if len(scored) > 1:
        nearest = min(scored, key=lambda option: float(option.divergence["value"]))
        near = [option for option in scored if option is nearest or _is_as_near(option, nearest)]
        if len(near) < len(scored):
            verb = "is" if len(near) == 1 else "are"
            found.append((near, f"{verb} nearest to the reference, KL {text(nearest.divergence)}"))
    return found


def _is_as_near(one: Option, nearest: Option) -> bool:
    """Whether its divergence lies within what the smallest may be."""
    high = nearest.divergence["high"]
    return high is not None and float(one.divergence["value"]) <= float(high)


def _names(options: Sequence[Option]) -> str:
    labels = [option.label for option in options]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def size(memory: Value) -> str:
    """Memory for a sentence, and what it is where that is not the peak while serving."""
    return f"{text(memory)} ({memory['source']})" if memory["source"] in QUALIFIED else text(memory)


def text(value: Value) -> str:
    """A value with its unit and interval, for a sentence."""
    if value["value"] is None:
        return f"unknown ({value['reason']})"
    number, unit = float(value["value"]), str(value["unit"])
    if unit == "bytes":
        power = min(int(math.log(abs(number), 1024)), len(_BINARY) - 1) if abs(number) >= 1 else 0
        return f"{number / 1024**power:.3g} {_BINARY[power]}"
    low, high = value["low"], value["high"]
    if low is None or high is None or not low < high:
        return f"{number:.4g} {unit}".rstrip()
    decimals = 1 - math.floor(math.log10(high - low))
    shown = [f"{round(one, decimals):.{max(0, decimals)}f}" for one in (number, low, high)]
    return f"{shown[0]} {unit} ({shown[1]} to {shown[2]})"
