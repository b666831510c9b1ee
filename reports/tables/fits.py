"""Curves through sweeps: each with its numbers and their intervals, or the reason for which there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reports.data import ReportData, place
from reports.format import UNKNOWN, amount, between, dotted
from reports.sweeps import names_of
from reports.tables.base import Cell, Table, counted, number

HEAD = ("where", "curve", "number", "unit", "value", "95 % interval", "points", "hold-out error")
TITLES = {
    "throughput": "throughput over users",
    "decode": "time per token over requests decoding at once",
    "prefill": "time to the first token over prompt tokens, one user",
}
SUBJECTS = {"output_tokens_per_s": "output tokens/s", "completed_rps": "requests/s"}
NAMES = {"most": "throughput at the ceiling", "ceiling": "users at the ceiling", "peak": "users at the peak"}
SIGNS = {"throughput": "N", "decode": "b", "prefill": "L"}
OF = {"decode": "b requests decoding at once", "prefill": "L tokens of the prompt"}
FOOT = (
    "Each curve holds within what was measured only.",
    "Hold-out error: mean error at a load that the curve was fitted without, each load once.",
)

Fit = Mapping[str, Any]


def fits(data: ReportData) -> Table:
    """Return a row for each number of a curve, and for each curve that does not fit."""
    rows = [row for one in data.fits for row in _rows(data, one)]
    return Table("Curves through the loads", HEAD, rows, texts=4, foot=FOOT if rows else ())


def _rows(data: ReportData, fit: Fit) -> list[tuple[Cell, ...]]:
    about = (Cell(place((*fit["keys"], ""))), Cell(TITLES[fit["fit"]]))
    if "refused" in fit:
        nothing = (Cell(UNKNOWN), Cell(UNKNOWN), counted(fit["points"]), Cell(UNKNOWN))
        return [(*about, Cell(f"not fitted: {fit['refused']}"), Cell(""), *nothing)]
    told = (counted(fit["points"]), number(fit["hold_out"], "share"))
    return [
        (*about, Cell(_name(fit, one["name"])), Cell(one["unit"]), _value(one), Cell(_between(one)), *told)
        for one in fit["numbers"]
    ]


def where(data: ReportData, fit: Fit) -> str:
    """Return the configuration of a fit, and the kind of its loads if there are several; "" if it is the only one."""
    names = names_of(data)
    kinds = {one["kind"] for one in data.fits if one["keys"] == fit["keys"]}
    own = tuple(fit["keys"])
    return dotted((names.get(own, place((*own, ""))) if len(names) > 1 else "", fit["kind"] if len(kinds) > 1 else ""))


def _name(fit: Fit, name: str) -> str:
    if name.isdigit():
        return {"0": "constant"}.get(name, f"per {SIGNS[fit['fit']]}{' squared' if name == '2' else ''}")
    return NAMES.get(name, name)


def _value(one: Mapping[str, Any]) -> Cell:
    return Cell(UNKNOWN if one["value"] is None else _short(one["value"]), value=one["value"])


def _between(one: Mapping[str, Any]) -> str:
    low, high = (-math.inf if one["low"] is None else one["low"], math.inf if one["high"] is None else one["high"])
    if one["value"] is None:
        return UNKNOWN
    return between(low, high) or UNKNOWN


def _short(value: float) -> str:
    """Return a number with three digits; small ones as a power of ten, for they are factors of large numbers."""
    return amount(value) if abs(value) >= 1e-3 or not value else f"{value:.2e}"


def lines(data: ReportData) -> list[tuple[str, str]]:
    """Return (configuration, words) of each curve of throughput, or why there is none, and of costs beyond chance."""
    return [(where(data, one), in_words(one)) for one in data.fits if one["fit"] == "throughput" or _is_a_cost(one)]


def _is_a_cost(fit: Fit) -> bool:
    """Return whether a cost grows beyond chance with what it is over, or with its square."""
    slopes: list[Fit] = [] if "refused" in fit else fit["numbers"][1:]
    return any((one["low"] or 0.0) > 0 for one in slopes)


def in_words(fit: Fit) -> str:
    """Return a curve as a sentence without a full stop."""
    if "refused" in fit:
        return f"no curve of throughput over users: {fit['refused']}"
    error = f"hold-out error {amount(fit['hold_out'], show='share')}"
    if fit["fit"] == "throughput":
        return f"{SUBJECTS.get(fit['metric'], fit['metric'])} = {_throughput(fit)}; {error}"
    name, over = {"decode": "mean TPOT", "prefill": "TTFT of one user"}[fit["fit"]], OF[fit["fit"]]
    over = f"{over} ({amount(fit['least'])} to {amount(fit['largest'])})"
    return f"{name} = {_polynomial(fit)} ms, {over}; {error}"


def _polynomial(fit: Fit) -> str:
    """Return "8.2 + 0.31 b"."""
    sign = SIGNS[fit["fit"]]
    powers = ("", f" {sign}", f" {sign}^2")
    terms = (
        f"{'-' if one['value'] < 0 else '+'} {_short(abs(one['value']))}{power}"
        for one, power in zip(fit["numbers"], powers, strict=False)
    )
    return " ".join(terms).removeprefix("+ ")


def _throughput(fit: Fit) -> str:
    known = {one["name"]: one for one in fit["numbers"]}
    formula = f"{_short(known['gamma']['value'])} N{_slowdown(known)}"
    if fit["law"] == "ceiling":
        at, most = known["ceiling"], _short(known["most"]["value"])
        return f"{formula}, at most {most}: level from {amount(at['value'])} users{_ends(at)} on"
    peak = known["peak"]
    if not fit["is_near"]:
        return f"{formula}; no peak up to twice the {fit['largest']:g} users that were measured"
    return f"{formula}; predicted peak at N = {amount(peak['value'])}{_ends(peak)}"


def _slowdown(known: Mapping[str, Mapping[str, Any]]) -> str:
    """Return " / (1 + 0.02 (N-1))"; "" without contention and coherency."""
    factors = {"alpha": "(N-1)", "beta": "N(N-1)"}
    terms = [f"{_short(known[name]['value'])} {of}" for name, of in factors.items() if known.get(name, {}).get("value")]
    return f" / (1 + {' + '.join(terms)})" if terms else ""


def _ends(one: Mapping[str, Any]) -> str:
    found = _between(one)
    return "" if found == UNKNOWN else f" [{found}]"
