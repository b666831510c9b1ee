"""What a planner predicted and what was measured, as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.format import THIN, UNKNOWN, amount, count, digits, dotted
from reports.names import ended
from reports.tables.base import Cell, Table

Data = Mapping[str, Any]
SHOWN = 20
"""Points of the table, the newest ones."""
_KINDS = {"replicas": "replicas", "mix": "lengths", "burstiness": "burstiness", "rate": "rate", "all": "all"}
_NUMBERS = {
    "rate_rps": "largest rate",
    "output_tokens_per_s": "output tokens/s",
    "ttft_p95_ms": "TTFT p95",
    "ttft_p95_ms_moderate": f"TTFT p95 below 80{THIN}% load",
    "holds": "whether a rate holds",
}
_OUTCOMES = {"yes": ("holds", "good"), "no": ("fails", "bad"), "unknown": ("not sure", "doubtful")}


def has_sentence(check: Data) -> bool:
    """Return whether a check is about the largest rate: of a stored run, or of a search."""
    return check["predicted_utc"] is None or not check["rates"]


def sentence(check: Data) -> str:
    """Return the largest rate that was predicted of some replicas, and what they did."""
    replicas = check["replicas"]
    predicted = (
        f"{count(replicas, 'replica')} of {check['predicted_from']} {'was' if replicas == 1 else 'were'} predicted"
    )
    holds, fails = check["holds_rps"], check["fails_rps"]
    measured = "no tested rate surely holds" if holds is None else f"{digits(holds, 4)} hold"
    measured += f" and {digits(fails, 4)} fail" if fails is not None else ""
    ends = [end for end in (check["error_least"], check["error_largest"]) if end is not None]
    error = f"; error {' to '.join(_signed(end) for end in ends)}" if ends else ""
    wrong = sum(rate["wrong"] for rate in check["rates"])
    rates = f"; {wrong} of {len(check['rates'])} tested rates turned out otherwise" if check["rates"] else ""
    held = digits(check["predicted_rps"], 4)
    return f"{predicted} to hold {held} requests/s. In {check['run']}, {measured}{error}{rates}."


def _signed(share: float) -> str:
    share = round(share, 6)
    return f"{'+' if share > 0 else '−' if share < 0 else ''}{digits(abs(100 * share), 3)}{THIN}%"


def record(data: Data) -> str:
    """Return the planner's errors so far, each with its number of points."""
    total = [one for one in data.get("planner_errors", ()) if one["kind"] == _widest(data)]
    if not total:
        return (
            "Its predictions were not checked in this folder; `--validate all` measures four points that it predicts."
        )
    return f"Errors of its predictions in this folder: {dotted(map(_told, total))}."


def _widest(data: Data) -> str:
    """Return the kind of points that the rows of all of them have."""
    kinds = {one["kind"] for one in data.get("planner_errors", ())}
    return "all" if len(kinds) != 1 else kinds.pop()


def _told(one: Data) -> str:
    name, points = _NUMBERS[one["number"]], count(one["n"], "point")
    if one["number"] == "holds":
        return f"{name} was predicted wrongly at {one['wrong']} of {points}"
    judged = f", {one['inside']} of {one['judged']} inside of the measured interval" if one["judged"] else ""
    return f"{name} {_share(one['typical'])}, at most {_share(one['largest'])} ({points}{judged})"


def points(data: Data) -> Table:
    """Return every rate that was predicted and measured, the newest first."""
    head = (
        *("point", "run", "rate", "chance", "it", "TTFT p95, ms", "TTFT predicted", "TTFT error"),
        *("tokens/s", "tokens/s predicted", "tokens/s error"),
    )
    found = [(check, rate) for check in reversed(data.get("checks", ())) for rate in check["rates"]]
    reasons = dict.fromkeys(ended(_sentence(why)) for _, rate in found[:SHOWN] for why in rate["why"])
    older = [f"{count(len(found) - SHOWN, 'older point')} in runs/plan-checks."] if len(found) > SHOWN else []
    rows = [_point(check, rate) for check, rate in found[:SHOWN]]
    return Table("Points that the planner predicted", head, rows, texts=2, foot=(*reasons, *older))


def _sentence(why: str) -> str:
    return f"{why[:1].upper()}{why[1:]}"


def _point(check: Data, rate: Data) -> tuple[Cell, ...]:
    word, tone = _OUTCOMES[rate["measured"]]
    chance = rate["chance"]
    return (
        Cell(check["asked"]),
        Cell(check["run"]),
        Cell(digits(rate["rate_rps"], 4), value=rate["rate_rps"]),
        Cell(UNKNOWN if chance is None else f"{100 * chance:.3g}{THIN}%", value=chance),
        Cell(word, tone=tone),
        *_number(rate["ttft_p95_ms"], "time"),
        *_number(rate["output_tokens_per_s"], ""),
    )


def _number(one: Data, show: str) -> tuple[Cell, Cell, Cell]:
    """Return a measured number, what was predicted, and the error of the prediction."""
    measured, predicted, error = one["measured"], one["predicted"], None
    if one["log_error"] is not None:
        error = predicted / measured - 1
    shown = [UNKNOWN if value is None else amount(value, show=show) for value in (measured, predicted)]
    return (
        Cell(shown[0], value=measured),
        Cell(shown[1], value=predicted),
        Cell(UNKNOWN if error is None else _signed(error), value=error),
    )


def errors(data: Data) -> Table:
    """Return the planner's errors for each kind of point."""
    rows = [
        (
            Cell(_KINDS[one["kind"]]),
            Cell(_NUMBERS[one["number"]]),
            Cell(str(one["n"]), value=float(one["n"])),
            Cell(_share(one["typical"]) if "typical" in one else f"{one['wrong']} wrong"),
            Cell(_share(one["largest"]) if "largest" in one else ""),
            Cell(f"{one['inside']} of {one['judged']}" if one.get("judged") else ""),
        )
        for one in data.get("planner_errors", ())
    ]
    head = ("points with another", "number", "n", "typical error", "largest", "inside")
    foot = (
        "Typical: exp(mean of |ln(predicted / measured)|) − 1. Inside: of the measurement's own 95\u202f% interval.",
    )
    return Table("Errors of the planner", head, rows, texts=2, foot=foot)


def _share(value: float) -> str:
    """Return a share with at least two digits."""
    return f"{100 * value:.{0 if value >= 0.1 else 1}f}{THIN}%" if value >= 0.01 else amount(value, show="share")
