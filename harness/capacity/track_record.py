"""Track record of the planner: every check of its predictions that is kept beside the runs, and its errors so far."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from harness.capacity.validation import NUMBERS
from harness.store.streams import storage_errors, write_atomically

FOLDER = "plan-checks"
"""Folder beside the runs, with a file for each check."""
FORMAT = 1
MODERATE = 0.8
"""Load of a replica up to which TTFT is scored apart: above it the tail of the queue is steep."""


class Number(BaseModel):
    """Number of a rate: predicted, and measured with its 95 % interval. log_error: ln(predicted / measured)."""

    predicted: float | None
    measured: float | None
    interval: list[float | None]
    log_error: float | None
    inside: bool | None


class Rate(BaseModel):
    """Rate that was measured. load: of the busiest replica, by the likeliest rate that one holds."""

    rate_rps: float
    load: float
    chance: float | None
    measured: Literal["yes", "no", "unknown"]
    wrong: bool
    why: list[str]
    ttft_p95_ms: Number
    output_tokens_per_s: Number


class KeptCheck(BaseModel):
    """Check that was measured. predicted_utc: None where the measurement was there before the prediction."""

    format: Literal[1]
    asked: str
    kind: Literal["replicas", "mix", "burstiness", "rate"]
    predicted_from: str
    configuration: str
    replicas: int
    cv: float | None
    output: float
    run: str
    predicted_rps: float
    holds_rps: float | None
    fails_rps: float | None
    error_least: float | None
    error_largest: float | None
    rate_error: float | None
    rates: list[Rate]
    predicted_utc: str | None
    measured_utc: str


def keep(record: Mapping[str, Any], runs: Path, name: str) -> None:
    """Store a check under a name; it replaces an earlier one of that name. Raises StorageFailed."""
    folder = runs / FOLDER
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **record}, indent=1, allow_nan=False)
    write_atomically(folder / f"{name}.json", text.encode() + b"\n")


def kept(runs: Path) -> list[dict[str, Any]]:
    """Return the checks that were measured, the oldest first.

    Left out are predictions that nobody measured, and damaged files: such a check can be made again.
    """
    found = []
    for file in sorted((runs / FOLDER).glob("*.json")):
        try:
            found.append(KeptCheck.model_validate_json(file.read_bytes()).model_dump())
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda one: str(one["measured_utc"]))


def errors(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the planner's errors by kind of point and in all, as {kind, number, n, typical, largest, inside, judged}.

    `typical` is exp(mean of |ln(predicted / measured)|) - 1, `largest` the same of the largest one. Of `judged`
    predictions `inside` were inside of the measurement's own 95 % interval. Of `holds` there are `n` outcomes that were
    sure, `wrong` of them other than predicted.
    """
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    rows = []
    for kind in (*kinds, *(["all"] if len(kinds) > 1 else [])):
        of_kind = [record for record in records if kind in (record["kind"], "all")]
        for number in ("rate_rps", *NUMBERS, "ttft_p95_ms_moderate"):
            if found := [*_scores(of_kind, number)]:
                rows.append({"kind": kind, "number": number, **_summary(found)})
        sure = [rate["wrong"] for record in of_kind for rate in record["rates"] if _was_judged(rate)]
        if sure:
            rows.append({"kind": kind, "number": "holds", "n": len(sure), "wrong": sum(sure)})
    return rows


def _summary(found: Sequence[tuple[float, bool | None]]) -> dict[str, float | int]:
    sizes = [abs(error) for error, _ in found]
    judged = [inside for _, inside in found if inside is not None]
    return {
        "n": len(found),
        "typical": math.expm1(sum(sizes) / len(sizes)),
        "largest": math.expm1(max(sizes)),
        "inside": sum(judged),
        "judged": len(judged),
    }


def _scores(records: Sequence[Mapping[str, Any]], number: str) -> Iterator[tuple[float, bool | None]]:
    """Yield the logarithmic errors of a number, and whether each prediction is inside of the measured interval."""
    for record in records:
        if number == "rate_rps":
            yield from () if record["rate_error"] is None else ((record["rate_error"], None),)
            continue
        for rate in record["rates"]:
            one = rate[number.removesuffix("_moderate")]
            if one["log_error"] is not None and (rate["load"] < MODERATE or not number.endswith("_moderate")):
                yield one["log_error"], one["inside"]


def _was_judged(rate: Mapping[str, Any]) -> bool:
    return rate["chance"] is not None and rate["measured"] != "unknown"
