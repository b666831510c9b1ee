"""Track record of the planner: every check of its predictions that is kept beside the runs, and its errors so far."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.capacity.validation import NUMBERS
from harness.store.streams import storage_errors, write_atomically

FOLDER = "plan-checks"
"""Folder beside the runs, with a file for each check."""
FORMAT = 1
MODERATE = 0.8
"""Load of a replica up to which TTFT is scored apart: above it the tail of the queue is steep."""


def keep(record: Mapping[str, Any], runs: Path, name: str) -> None:
    """Store a check under a name; it replaces an earlier one of that name. Raises StorageFailed."""
    folder = runs / FOLDER
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **record}, indent=1, allow_nan=False)
    write_atomically(folder / f"{name}.json", text.encode() + b"\n")


def kept(runs: Path) -> list[dict[str, Any]]:
    """Return the checks that were measured, the oldest first; unreadable ones are left out, as they are made again."""
    found = []
    for file in sorted((runs / FOLDER).glob("*.json")):
        try:
            record = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("format") == FORMAT and record.get("measured_utc"):
            found.append(record)
    return sorted(found, key=lambda one: str(one["measured_utc"]))


def errors(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the planner's errors by kind of point and in all, as {kind, number, n, typical, largest}.

    `typical` is exp(mean of |ln(predicted / measured)|) - 1, `largest` the same of the largest one. Of `holds` there
    are `n` outcomes that were sure, `wrong` of them other than predicted.
    """
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    rows = []
    for kind in (*kinds, *(["all"] if len(kinds) > 1 else [])):
        of_kind = [record for record in records if kind in (record["kind"], "all")]
        for number in ("rate_rps", *NUMBERS, "ttft_p95_ms_moderate"):
            found = [abs(error) for error in _errors_of(of_kind, number)]
            if found:
                typical, largest = (math.expm1(one) for one in (sum(found) / len(found), max(found)))
                rows.append({"kind": kind, "number": number, "n": len(found), "typical": typical, "largest": largest})
        sure = [rate["wrong"] for record in of_kind for rate in record["rates"] if _was_judged(rate)]
        if sure:
            rows.append({"kind": kind, "number": "holds", "n": len(sure), "wrong": sum(sure)})
    return rows


def _errors_of(records: Sequence[Mapping[str, Any]], number: str) -> Iterator[float]:
    """Yield the logarithmic errors of a number."""
    for record in records:
        if number == "rate_rps":
            yield from () if record["rate_error"] is None else (record["rate_error"],)
            continue
        for rate in record["rates"]:
            error = rate[number.removesuffix("_moderate")]["log_error"]
            if error is not None and (rate["load"] < MODERATE or not number.endswith("_moderate")):
                yield error


def _was_judged(rate: Mapping[str, Any]) -> bool:
    return rate["chance"] is not None and rate["measured"] != "unknown"
