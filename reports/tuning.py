"""Tuning as tables and sentences; its input is the plain data of `harness tune --json`."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import Any

from reports.comparison import change_text, number_name, sentence
from reports.format import UNKNOWN, amount, count, dotted, shortened
from reports.tables.base import Cell, Table

TONES = {
    "better": "good",
    "keeps the limits": "good",
    "worse": "",
    "tie": "",
    "none left": "",
    "cannot tell": "doubtful",
    "poor data": "doubtful",
    "unfinished": "doubtful",
}
FATES = {"failed": "bad", "breaks a limit": "bad", "poor data": "doubtful", "not tried": "doubtful", "best": "good"}
_WHY, _MOST_CAUSES = 300, 4
_CAUSED = {"failed": "FAILED", "breaks a limit": "BROKE"}
_WITH_UNIT = ("ms", "s")


def title(data: Mapping[str, Any]) -> str:
    """Return what was tuned, for which number, in one line."""
    axes = ", ".join(f"{axis['key']}={','.join(axis['values'])}" for axis in data["over"])
    return f"{data['name']}: {_number(data)} over {shortened(axes, 200)}"


def _number(data: Mapping[str, Any]) -> str:
    return number_name(data["number"])


def table(data: Mapping[str, Any]) -> Table:
    """Return the candidates of the race with their fates and causes: the best first, the failed last."""
    order = ("best", "undecided", "worse", "the defaults", "not tried", "breaks a limit", "poor data", "failed")
    rows = sorted(data["candidates"], key=lambda one: (order.index(one["fate"]), _rank(data, one)))
    head = ("candidate", "race", "because", f"mean {_number(data)}", "starts")
    return Table("Race", head, [_row(data, one) for one in rows], texts=3)


def _rank(data: Mapping[str, Any], one: Mapping[str, Any]) -> float:
    if one["value"] is None:
        return float(one["number"])
    return float(one["value"]) if data["number"]["direction"] == "lower" else -float(one["value"])


def _row(data: Mapping[str, Any], one: Mapping[str, Any]) -> tuple[Cell, ...]:
    return (
        Cell(one["name"]),
        Cell(one["fate"], tone=FATES.get(one["fate"], "")),
        Cell(shortened(_because(data, one), _WHY)),
        Cell(_value(data, one["value"]), value=one["value"]),
        Cell(str(one["starts"])),
    )


def _because(data: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """Return the cause of a fate: that of a failure, or the distance from the best."""
    behind = one["behind"]
    if one["why"] or behind is None:
        return str(one["why"])
    best = data["candidates"][behind["best"]]["name"]
    scale = data["number"]["scale"]
    change, ends = (
        change_text(behind["change"], scale),
        [change_text(end, scale) for end in (behind["low"], behind["high"])],
    )
    return f"{change} [{ends[0]} to {ends[1]}] against {best}"


def _value(data: Mapping[str, Any], value: float | None) -> str:
    if value is None:
        return UNKNOWN
    number = data["number"]
    return amount(value, show=number["show"]) + (f" {number['unit']}" if number["unit"] in _WITH_UNIT else "")


def verdict(data: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return word, reason and tone."""
    word, tone = data["word"], TONES[data["word"]]
    if data["uses"]:
        more = f", and {data['why']}" if data["why"] else ""
        return f"USE {data['best']}", f"{sentence(data['confirmed'])}{more}", tone
    if word == "unfinished":
        return "UNFINISHED", data["why"], tone
    return "KEEP THE DEFAULTS", _why_kept(data), tone


def _why_kept(data: Mapping[str, Any]) -> str:
    """Return why no candidate is used."""
    word, margin = data["word"], _margin(data)
    if word == "none left":
        return f"no other candidate is left: {data['why']}"
    if word == "poor data":
        return f"the data is poor: {data['why']}"
    gain = _gain(data)
    if word == "worse":
        return f"{data['best']}, the best of the race, {gain}: {data['why'] or 'it is worse'}"
    shown = "is" if word == "tie" else "is shown to be"
    return f"no candidate {shown} better by more than {margin} (best: {data['best']} {gain})"


def _margin(data: Mapping[str, Any]) -> str:
    unit = " %" if data["number"]["scale"] == "ratio" else " points"
    return f"{100 * data['number']['margin']:g}{unit}"


def _gain(data: Mapping[str, Any]) -> str:
    """Return the change of the fresh pairs with its interval."""
    row = data["confirmed"]
    change = change_text(row["change"], row["scale"], row["unit"])
    if row["low"] is None or row["high"] is None:
        return f"{change} [{row['method']}]"
    ends = [change_text(row[end], row["scale"], row["unit"]) for end in ("low", "high")]
    return f"{change} [{ends[0]} to {ends[1]}]"


def lines(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the sentences below the table, each with its label."""
    found = [*_causes(data), ("RACE", _raced(data))]
    if data["confirming_pairs"]:
        sure = f"each end of its interval holds with {100 * (1 - data['alpha']):.3g} %"
        pairs = count(data["confirming_pairs"], "fresh pair")
        found.append(("CONFIRMED", f"{data['best']} against the defaults by {pairs}; {sure} ({data['confirmed_in']})."))
    if data["pairs_needed"] is not None:
        found.append(
            (
                "SETTLES IT",
                f"about {data['pairs_needed']} pairs, as much as these differ: `--pairs {data['pairs_needed']}`",
            )
        )
    worse = [
        f"{number_name(row)} {change_text(row['change'], row['scale'], row['unit'])}" for row in data["others_worse"]
    ]
    if worse:
        found.append(("BUT WORSE", f"with {data['best']}: {dotted(worse)}"))
    scored = [
        f"{number_name(row)} {change_text(row['change'], row['scale'], row['unit'])}: {row['word']}"
        for row in data["quality"]
    ]
    found += [("QUALITY", dotted(scored))] if scored else []
    return [*found, *_to_copy(data)]


def _causes(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return why candidates failed or broke a limit in full: a terminal has no room for it in the table."""
    out = [one for one in data["candidates"] if one["fate"] in _CAUSED]
    told = [(_CAUSED[one["fate"]], f"{one['name']}: {one['why']}") for one in out[:_MOST_CAUSES]]
    more = len(out) - len(told)
    return [*told, ("AND", f"{more} more, in tuning.html")] if more > 0 else told


def _raced(data: Mapping[str, Any]) -> str:
    tried = sum(1 for one in data["candidates"] if one["starts"])
    ended = f": {data['ended']}" if data["ended"] else ""
    means = "These means picked the best, so its own is too good."
    return f"{tried} of {len(data['candidates'])} candidates in {count(data['rounds'], 'whole round')}{ended}. {means}"


def _to_copy(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what to write to use the best candidate."""
    use = data["use"]
    if not data["uses"]:
        return []
    found = [("SCENARIO", f"engine `{use['engine']}`: {line}") for line in use["snippet"]]
    found += [("COMMAND", f"`{use['command']}`")] if use["command"] else []
    return [*found, ("TO TRY IT", " ".join(("harness run SCENARIO", *(f"--set {quote(one)}" for one in use["sets"]))))]
