"""Export of series: one row for each night of each, for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.history.plain import FORMAT
from harness.history.series import Event, Series
from harness.history.store.notes import key_facts
from harness.metrics import METRICS
from harness.store.streams import storage_errors, write_atomically

KINDS = ("csv", "parquet", "json")
"""Endings of files that can be written."""
_TYPES = {"value": pa.float64(), "low": pa.float64(), "high": pa.float64(), "starts": pa.int32(), "method": pa.int32()}
_TYPES |= {"control": pa.bool_(), "reset": pa.bool_(), "at": pa.timestamp("us", tz="UTC")}


def export(series: Sequence[Series], path: Path) -> int:
    """Write the nights of series, as the ending of the file says; return their number. Raises StorageFailed."""
    rows = [row for one in series for row in _rows(one)]
    content = {"csv": _csv, "parquet": _parquet, "json": _json}[path.suffix.removeprefix(".")](rows)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return len(rows)


def _rows(one: Series) -> list[dict[str, Any]]:
    metric = METRICS.get(one.key.metric)
    about = {**key_facts(one.key), "unit": "" if metric is None else metric.unit, "better": one.better}
    about["control"] = one.control  # type: ignore[assignment]
    events: dict[Any, list[Event]] = {}
    for event in one.events:
        events.setdefault(event.at, []).append(event)
    return [
        {
            **about,
            "at": point.at,
            "value": _known(point.value),
            "low": _known(point.low),
            "high": _known(point.high),
            "starts": point.starts,
            "run": point.run,
            "plan": point.plan,
            "method": point.method,
            "doubt": point.doubt,
            "labels": json.dumps(dict(point.labels), ensure_ascii=False, sort_keys=True),
            "events": "; ".join(f"{event.kind}: {event.text}" for event in events.get(point.at, [])),
            "reset": place in one.resets,
        }
        for place, point in enumerate(one.points)
    ]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    names = [*rows[0]] if rows else []
    columns = {name: pa.array([row[name] for row in rows], _TYPES.get(name, pa.string())) for name in names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue())


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, [*rows[0]] if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "at": row["at"].isoformat()} for row in rows)
    return out.getvalue().encode()


def _json(rows: Sequence[dict[str, Any]]) -> bytes:
    plain = [{**row, "at": row["at"].isoformat(), "labels": json.loads(row["labels"])} for row in rows]
    return json.dumps({"format": FORMAT, "nights": plain}, indent=1, ensure_ascii=False).encode() + b"\n"
