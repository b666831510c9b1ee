"""What is not known, and the command that measures it: a plan says so instead of extrapolating."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.capacity.measured import SEARCH, Candidate
from harness.capacity.rate import Capacity, Holds
from harness.scenario.loads.saturate import Saturate
from harness.scenario.plan import Assumptions
from harness.units import enumerated, format_duration, parse_duration_s

LENGTHS_BEYOND = 0.05
"""Share by which the demand's mean lengths may differ from those measured."""
WIDE = 1.25
"""Ratio of the rate that fails to the one that holds, above which rates between them are worth measuring."""
HIGHER, LONGER = 4, 2
"""Factors on the largest rate, and on the time, of a search that found no rate too high."""


def measure_command(candidate: Candidate, *sets: str) -> str:
    """Return the command that measures a candidate's scenario with some keys changed.

    It has the options of the run, such as its own `--set`, but for the folder. A later `--set` wins.
    """
    command, words = _asked(candidate)
    changes = [word for one in sets for word in ("--set", one)]
    return shlex.join(["harness", command, *words, *changes])


def _asked(candidate: Candidate) -> tuple[str, list[str]]:
    """Return the command that made a candidate's run, `run` or `saturate`, and its words without `--out`."""
    try:
        words = shlex.split(candidate.manifest.command or "")
    except ValueError:
        words = []
    if len(words) > 2 and words[1] in ("run", "saturate"):
        return words[1], _without(words[2:], "--out")
    return "run", ["SCENARIO"]


def _without(words: Sequence[str], option: str) -> list[str]:
    """Return the words of a command without an option and its value."""
    kept = list[str]()
    for place, word in enumerate(words):
        if word.partition("=")[0] != option and (place == 0 or words[place - 1] != option):
            kept.append(word)
    return kept


def _search_again(candidate: Candidate, found: Mapping[str, Any]) -> str:
    """Return the command that searches up to a higher rate, or for longer if its time was over before an overload."""
    loads = candidate.manifest.scenario.get("load")
    every = [one for one in loads if isinstance(one, dict)] if isinstance(loads, list) else []
    load: dict[str, Any] = next((one for one in every if one.get("kind") == SEARCH), {})
    usual = Saturate.model_validate({"kind": SEARCH}).model_dump(mode="json", by_alias=True)
    change: dict[str, Any]
    if found.get("ended") == "largest_rate":
        higher = float(f"{HIGHER * max(one['rate'] for one in found['rates']):.3g}")
        change, option, value = {"largest_rate": higher}, "--largest-rate", f"{higher:g}"
    else:
        value = format_duration(LONGER * parse_duration_s(load.get("within", usual["within"])))
        change, option = {"within": value}, "--for"
    command, words = _asked(candidate)
    if command == "saturate":
        return shlex.join(["harness", command, *_without(words, option), option, value])
    own = {key: one for key, one in load.items() if one != usual.get(key)}
    return measure_command(candidate, f"load=[{json.dumps({'kind': SEARCH} | own | change)}]")


def _rates(candidate: Candidate, *rates: float, minutes: int = 10) -> str:
    shown = ", ".join(f"{rate:.3g}" for rate in rates)
    return measure_command(candidate, f"load=[{{kind: sustained, rate: [{shown}], duration: {minutes}m}}]")


def other_lengths(candidate: Candidate, assumed: Assumptions) -> tuple[str, str] | None:
    """Return why the demand's lengths were not measured, with the command that does; None if they were."""
    tested = [point.tokens for point in candidate.points]
    for key, asked, measured in (
        ("prompt_tokens", assumed.prompt_tokens, [one.prompt for one in tested]),
        ("output_tokens", assumed.output_tokens, [one.output for one in tested]),
    ):
        known = [one for one in measured if one is not None]
        if asked is None or not known:
            continue
        low, high = min(known) * (1 - LENGTHS_BEYOND), max(known) * (1 + LENGTHS_BEYOND)
        if not low <= asked <= high:
            command = measure_command(candidate, f"workload.{key}={asked:g}")
            return f"the demand has `{key}` {asked:g}, measured were {max(known):.4g}", command
    return None


def no_rate_holds(candidate: Candidate) -> tuple[str, str]:
    """Return why a candidate has no capacity, with the command that measures lower rates, or this one for longer."""
    lowest = candidate.points[0]
    told, rate = lowest.tested(), lowest.rate_rps
    at = f"no tested rate surely holds; at the lowest, {rate:g} requests/s"
    if lowest.why_unknown:
        return f"{at}: {lowest.why_unknown.rstrip('.')}", _rates(candidate, rate)
    if told.holds is Holds.NO:
        return f"{at}, `{told.binding}` fails", _rates(candidate, rate / 2, rate * 0.75)
    return f"{at}, `{told.binding}` is not sure", _rates(candidate, rate / 2, rate, minutes=30)


def surer(candidate: Candidate, chance: float, asked: float) -> tuple[str, str] | None:
    """Return that a plan's chance is less than asked for, with the command that measures lower rates; None if not."""
    if chance >= asked:
        return None
    lowest = candidate.points[0].rate_rps
    why = f"the chance is {chance:.1%}, {asked:.1%} were asked for: the lowest tested rate is not surer"
    return why, _rates(candidate, lowest / 2, lowest, minutes=30)


def finer(candidate: Candidate, capacity: Capacity) -> Iterator[tuple[str, str]]:
    """Yield what would make the rate of a replica better known, each with its command."""
    lower, upper = capacity.lower_rps, capacity.upper_rps
    if candidate.searched is not None:
        if upper is None:
            why = f"no rate was too high, so a replica holds at least {lower:.4g} requests/s: fewer replicas may do"
            yield why, _search_again(candidate, candidate.searched)
        return
    tested = [point.tested() for point in candidate.points]
    below = [one for one in tested if one.rate_rps > lower and (upper is None or one.rate_rps < upper)]
    if below:
        rates = [one.rate_rps for one in below]
        shown = enumerated([f"{rate:g}" for rate in rates])
        yield f"whether a replica holds {shown} requests/s is not sure", _rates(candidate, *rates, minutes=30)
    elif upper is None:
        why = f"no tested rate fails, so a replica holds at least {lower:g} requests/s: fewer replicas may do"
        yield why, _rates(candidate, lower * 1.25, lower * 1.5)
    elif upper / lower > WIDE:
        step = (upper - lower) / 3
        why = f"{lower:g} requests/s hold and {upper:g} fail; between them nothing was tested"
        yield why, _rates(candidate, lower + step, lower + 2 * step)
