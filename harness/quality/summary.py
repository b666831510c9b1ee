"""Figures of quality as rows of the summary, and limits on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.analysis.columns import ALL
from harness.analysis.stats import Estimate
from harness.analysis.summary import KEYS, POOLED
from harness.metrics import METRICS, QUALITY, SCALAR, find
from harness.quality.figures import LOAD, Columns, estimates
from harness.scenario.limits import parse_limit
from harness.store.manifest import CellEntry, Manifest

NOT_ASKED = "the scenario asks for none: write `quality: {}` into it"
_BOUND_ONLY = "only the likeliest tokens are known, so only a lower bound can be told: kl_bound"
_TRUE_UNKNOWN = "at some positions the true token is not among the likeliest, which are all that is known"
_READ = ("chunk", "nll_reference", "nll", "kl", "kl_lower_bound", "top1_same")


def quality_rows(manifest: Manifest, folder: Path) -> list[dict[str, Any]]:
    """Return rows with `analysis.summary.COLUMNS` for each scored cell of the run in `folder`: load "quality".

    A cell is scored in one repetition, so the rows of the repetition and the pooled ones are equal.
    """
    return [row for cell in manifest.cells for row in _rows_of(cell, folder)]


def _rows_of(cell: CellEntry, folder: Path) -> Iterator[dict[str, Any]]:
    scored = cell.quality
    if scored is None or not scored.path:
        return
    source = "full vocabulary" if scored.k is None else f"likeliest {scored.k} tokens"
    if scored.true_unknown:
        source += f", the true one unknown at {scored.true_unknown} positions"
    window = f"{scored.positions} positions in {scored.chunks} chunks"
    keys = dict(zip(KEYS, quality_keys(cell), strict=True)) | {"class": ALL}
    for name, one in figures_of(folder / scored.path, scored.k).items():
        row: dict[str, Any] = {"metric": name, "statistic": SCALAR, "unit": METRICS[name].unit}
        row |= {"source": source, "window": window, "value": one.value, "low": one.low, "high": one.high}
        row |= {"bound": one.bound.value, "n": one.n, "n_eff": one.n_eff}
        for repetition in (str(cell.repetition), POOLED):
            yield keys | {"repetition": repetition} | row


def figures_of(positions: Path, k: int | None = None) -> dict[str, Estimate]:
    """Return `estimates` of a stored table of positions. k: number of tokens that the engine reports, None for all."""
    return estimates(positions_of(positions, _READ), k)


def positions_of(positions: Path, names: Sequence[str]) -> Columns:
    """Return columns of a stored table of positions."""
    import pyarrow.parquet as pq

    table = pq.read_table(positions, columns=[*names])
    return {name: table.column(name).to_numpy() for name in names}


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
