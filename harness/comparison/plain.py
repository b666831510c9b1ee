"""A comparison as plain data, which reports show and `--json` prints."""

from __future__ import annotations

import math
from typing import Any

from harness.analysis.stats import Measured
from harness.analysis.summary import KEYS
from harness.comparison.change import pairs_needed
from harness.comparison.comparison import Comparison, Row
from harness.comparison.judgement import Word
from harness.comparison.sides import Origin, Side, seconds_of
from harness.metrics import METRICS
from harness.scenario.margins import Scale

FORMAT = 1


def as_data(found: Comparison, *, inconclusive_fails: bool = True) -> dict[str, Any]:
    """Return {format, base, head, word, exit_code, starts, pairs, blocks, were_started, alpha, rows, differs, missing,
    cache_audit, quality}.

    Ratios and differences of a row stand under `change`, with the ends that each hold with a chance of 1 - `alpha`
    under `low` and `high`. Unknown numbers are None. `origin` of a side is that of another tool's file, else None.
    """
    return {
        "format": FORMAT,
        "base": _side(found.base),
        "head": _side(found.head),
        "word": found.word.value,
        "exit_code": int(found.exit_code(inconclusive_fails=inconclusive_fails)),
        "starts": [*found.starts],
        "pairs": found.pairs,
        "blocks": found.blocks,
        "were_started": found.were_started,
        "alpha": found.alpha,
        "rows": [_row(row, found.alpha) for row in found.rows],
        "differs": [
            {"kind": one.kind, "what": one.what, "base": one.base, "head": one.head, "load": one.load}
            for one in found.differs
        ],
        "missing": [*found.missing],
        "cache_audit": [
            {"side": name, **one.as_data()}
            for name, side in (("base", found.base), ("head", found.head))
            for one in side.audits
        ],
        "quality": [dict(one) for one in found.quality],
    }


def _side(side: Side) -> dict[str, Any]:
    manifest = side.manifest
    engines = dict.fromkeys(
        " ".join(filter(None, (cell.engine_info.name or cell.engine, cell.engine_info.version)))
        for cell in manifest.cells
        if cell.status != "skipped"
    )
    return {
        "name": side.name,
        "run": manifest.name,
        "path": str(side.path),
        "created_utc": manifest.created_utc or "",
        "labels": dict(manifest.labels or {}),
        "seconds": _seconds(side),
        "engines": [*filter(None, engines)],
        "origin": None if side.origin is None else _origin(side.origin),
    }


def _origin(origin: Origin) -> dict[str, Any]:
    return {
        "tool": origin.tool,
        "version": origin.version,
        "load_generator_verified": False,
        "values_only": origin.values_only,
        "notes": [*origin.notes],
    }


def _seconds(side: Side) -> float:
    """Return how long the cells of a run took that a side is of, their starts included."""
    own = {start.cell.id for one in side.measurements for start in one.starts}
    return seconds_of(cell for cell in side.manifest.cells if cell.id in own)


def _pairs_needed(row: Row) -> int | None:
    """Return how many pairs would tell whether a number is beyond its margin; None if it is told, or without pairs."""
    change = row.change
    if row.word is not Word.CANNOT_TELL or not change.pairs or not change.known:
        return None
    margin = row.margin.size if change.scale is Scale.DIFFERENCE else abs(math.log(row.margin.worse))
    return pairs_needed(change.below * math.sqrt(change.pairs), margin)


def _row(row: Row, alpha: float) -> dict[str, Any]:
    metric, (low, high) = METRICS[row.margin.metric], row.change.interval(alpha)
    return {
        **dict(zip(KEYS, row.keys, strict=True)),
        "class": row.class_name,
        "metric": metric.name,
        "statistic": row.margin.statistic,
        "unit": metric.unit,
        "direction": metric.direction.value,
        "show": metric.show,
        "base": _number(row.base),
        "head": _number(row.head),
        "scale": row.change.scale.value,
        "change": _known(row.change.value),
        "low": _known(low),
        "high": _known(high),
        "method": row.change.method,
        "values": [[_known(one) for one in pair] for pair in row.values],
        "margin": row.margin.size,
        "worse_beyond": row.margin.worse,
        "least_seen": _known(row.change.least_seen),
        "pairs_needed": _pairs_needed(row),
        "gates": row.gates,
        "word": row.word.value,
        "doubt": row.doubt,
    }


def _number(number: Measured) -> dict[str, float | None]:
    return {name: _known(getattr(number, name)) for name in ("value", "low", "high")}


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
