"""Figures of quality as rows of the summary, and limits on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.analysis.columns import ALL
from harness.analysis.stats import Estimate
from harness.analysis.summary import KEYS, POOLED
from harness.errors import FileUnreadable, shortened
from harness.metrics import METRICS, QUALITY, SCALAR, find
from harness.quality.figures import LOAD, Columns, estimates
from harness.scenario.limits import parse_limit
from harness.store.manifest import CellEntry, Manifest, QualityEntry
from harness.store.streams import check_columns, reading_errors

NOT_ASKED = "the scenario asks for none: write `quality: {}` into it"
_BOUND_ONLY = "only the likeliest tokens are known, so only a lower bound can be told: kl_bound"
_TRUE_UNKNOWN = "at some positions the true token is not among the likeliest, which are all that is known"
_READ = ("chunk", "top1_same", "nll_reference", "nll", "kl", "kl_lower_bound")
_TYPES = (
    dict.fromkeys(("chunk", "position", "token"), "int32") | {"top1_same": "bool"} | dict.fromkeys(_READ[2:], "double")
)


def quality_rows(manifest: Manifest, folder: Path) -> list[dict[str, Any]]:
    """Return rows with `analysis.summary.COLUMNS` for each scored cell of the run in `folder`: load "quality".

    A cell is scored in one repetition, so the rows of the repetition and the pooled ones are equal. A cell whose table
    is damaged has none, which its entry and a note of the run then say.
    """
    rows: list[dict[str, Any]] = []
    for cell in manifest.cells:
        if cell.quality is None or not cell.quality.path:
            continue
        try:
            rows.extend(_rows_of(cell, cell.quality, folder))
        except FileUnreadable as error:
            cell.quality.status, cell.quality.reason = "failed", str(error)
            cell.quality.indistinguishable = None
            manifest.notes = [*manifest.notes, f"{error}; the figures of quality of its configuration are missing"]
    return rows


def _rows_of(cell: CellEntry, scored: QualityEntry, folder: Path) -> Iterator[dict[str, Any]]:
    source = "full vocabulary" if scored.k is None else f"likeliest {scored.k} tokens"
    if scored.true_unknown:
        source += f", the true one unknown at {scored.true_unknown} positions"
    window = f"{scored.positions} positions in {scored.chunks} chunks"
    keys = dict(zip(KEYS, quality_keys(cell), strict=True)) | {"class": ALL}
    for name, one in figures_of(folder / str(scored.path), scored).items():
        row: dict[str, Any] = {"metric": name, "statistic": SCALAR, "unit": METRICS[name].unit}
        row |= {"source": source, "window": window, "value": one.value, "low": one.low, "high": one.high}
        row |= {"bound": one.bound.value, "n": one.n, "n_eff": one.n_eff}
        for repetition in (str(cell.repetition), POOLED):
            yield keys | {"repetition": repetition} | row


def figures_of(positions: Path, scored: QualityEntry) -> dict[str, Estimate]:
    """Return `estimates` of a stored table of positions. Raises FileUnreadable if it is not the whole of it."""
    return estimates(positions_of(positions, scored, _READ), scored.k)


def positions_of(positions: Path, scored: QualityEntry, names: Sequence[str]) -> Columns:
    """Return columns of a stored table of positions. Raises FileUnreadable if it is not the whole of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not positions.is_file():
        raise FileUnreadable(f"{shortened(str(positions))} is missing")
    with reading_errors(positions):
        wanted = pa.schema([(name, pa.type_for_alias(_TYPES[name])) for name in names])
        check_columns(pq.read_schema(positions), wanted, names)
        table = pq.read_table(positions, columns=[*names], page_checksum_verification=True)
        found = {name: table.column(name).to_numpy() for name in names}
        chunks = len(set(found["chunk"].tolist()))
        if (len(table), chunks) != (scored.positions, scored.chunks):
            whole = f"{scored.positions} positions in {scored.chunks} chunks"
            raise ValueError(f"it has {len(table)} positions in {chunks} chunks, and there were {whole}")
        if table["chunk"].null_count or table["top1_same"].null_count:
            raise ValueError("it has rows without a value")
    return found


def quality_keys(cell: CellEntry) -> tuple[str, ...]:
    """Return the keys of a cell's figures of quality in the summary."""
    return (*cell.keys, LOAD)


def is_about_quality(limit: str) -> bool:
    """Return whether a limit is on a figure of quality, which belongs to a cell and to none of its loads."""
    metric = find(parse_limit(limit).metric)
    return metric is not None and metric.name in QUALITY


def quality_limits(manifest: Manifest, cell: CellEntry) -> tuple[str, ...]:
    """Return the limits on a cell's quality, each once: the scenario's and those of its loads."""
    own = [limit for trial in cell.trials for limit in trial.limits]
    return tuple(dict.fromkeys(limit for limit in (*manifest.scenario_keys.limits, *own) if is_about_quality(limit)))


def why_missing(cell: CellEntry) -> dict[str, str]:
    """Return by metric why a figure of quality has no value."""
    scored = cell.quality
    if scored is None:
        return dict.fromkeys(QUALITY, cell.reason or NOT_ASKED)
    if scored.reason:
        return dict.fromkeys(QUALITY, scored.reason)
    found = dict.fromkeys(QUALITY, _BOUND_ONLY) | dict.fromkeys(("ppl", "ppl_ratio"), _TRUE_UNKNOWN)
    return found | {"kl_bound": "the whole vocabulary is known: see kl_mean"}
