"""Table of a search for the largest rate: every rate tried, and the result in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.data import ReportData
from reports.format import UNKNOWN, amount, count, joined, seconds
from reports.tables.base import Cell, Table, counted, number, trial_name

HEAD = ("where", "state", "rate, req/s", "time", "requests", "effective", "SLO met", "95 % interval")
ENDS = {
    "width": "",
    "budget": "its time was over before the rate was known as well as asked for; set a longer `within`",
    "lowest_rate": "",
    "largest_rate": "no overload up to the largest rate that it may send; raise `largest_rate`",
    "errors": "no request succeeded at the first rate",
    None: "it was interrupted",
}
CONFIRMED = {
    "yes": "met the SLO",
    "likely": "met the SLO, but was too short to be sure",
    "unlikely": "missed the SLO, within chance",
    "no": "missed the SLO",
}
LEAST_EFFECTIVE = 1.0  # requests that an interval needs
BINDING = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "stall": "the longest stall", "errors": "errors"}


def saturation(data: ReportData) -> Table:
    """Return one row per rate that a search tried; the answer above has its result (`in_words`)."""
    lines = list[tuple[Cell, ...]]()
    for cell, trial in data.trials():
        found = data.facts_of(cell.id, trial.id).get("saturation")
        if not found:
            continue
        where = trial_name(cell, trial, data)
        lines += [_line(where, one) for one in found["rates"]]
    return Table("Saturation", HEAD, lines, texts=2)


def _line(where: str, one: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Return the row of a rate; a visit that the server did not keep up with says so."""
    state = Cell(f"{one['state']}, overloaded" if one["overloaded"] else one["state"], tone="bad" * one["overloaded"])
    low, high = (amount(one[end], show="share") if one[end] is not None else UNKNOWN for end in ("low", "high"))
    between = f"{low} to {high}" if (one["effective"] or 0.0) >= LEAST_EFFECTIVE else UNKNOWN
    time = Cell(seconds(one["seconds"]), value=one["seconds"])
    sizes = (counted(one["requests"]), number(one["effective"]))
    return (Cell(where), state, number(one["rate"]), time, *sizes, number(one["attainment"], "share"), Cell(between))


def in_words(found: Mapping[str, Any]) -> str:
    """Return the result of a search as the beginning of a report says it."""
    lower, value, upper = (found[name] for name in ("lower_rps", "value_rps", "upper_rps"))
    if value is None:
        return f"at least {_rate(lower)} req/s: {ENDS[found['ended']]}" if lower else _none_in_words(found)
    limits = BINDING.get(found["binding"], "the backlog, which grows beyond it")
    text = f"plan with {_rate(lower)} req/s; the largest rate is {_rate(lower)} to {_rate(upper)}"
    text += f" (90 % each way), median {_rate(value)}, limited by {limits}"
    measured = [one["rate"] for one in found["rates"] if "confirm" in one["state"]]
    if measured and found["confirmed"]:
        text += f"; the measurement at {_rate(measured[0])} {CONFIRMED[found['confirmed']]}"
    why = ENDS[found["ended"]]
    return f"{text}; {why}" if why else text


def _none_in_words(found: Mapping[str, Any]) -> str:
    """Return what is known where no rate is known to meet the requirement: how the lowest rate did."""
    text = "no rate is known to meet the SLO"
    if found["ended"] in ("errors", None):
        return f"{text}: {ENDS[found['ended']]}"
    lowest = next(one for one in found["rates"] if one["requests"])
    met = amount(lowest["attainment"], show="share")
    return f"{text}; at {_rate(lowest['rate'])} req/s, the lowest that was tried, {met} of the requests met it"


def _rate(value: float | None) -> str:
    return UNKNOWN if value is None else amount(value)


def users_in_words(found: Mapping[str, Any]) -> str:
    """Return the largest number of users of a sweep as the beginning of a report says it."""
    share = f"{100 * found['share']:g} %"
    meets, misses = found["meets"], found["misses"]
    if meets is None:
        missed = f"; {count(misses, 'user')} surely missed it" if misses is not None else ""
        return f"no number of users is sure to meet the SLO with {share} of the requests{missed}"
    if misses is None and not found["unsure"]:
        return f"at least {count(meets, 'user')}: {share} surely met the SLO, and no number is known to miss it"
    text = f"plan with {count(meets, 'user')}: {share} surely met the SLO; "
    if found["unsure"]:
        text += f"{joined([f'{one:g}' for one in found['unsure']])} may meet it; "
    text += f"{misses:g} surely missed it" if misses is not None else "none surely missed it"
    return text if found["value"] is None else f"{text}; by interpolation {amount(found['value'])} users"
