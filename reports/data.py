"""Data of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reports.choice import worded
from reports.format import UNKNOWN, dotted

if TYPE_CHECKING:
    import pandas as pd

    from harness.store.manifest import CellEntry, Manifest, TrialEntry

KEYS = ("model", "engine", "level", "variant", "load")
POOLED = "pooled"
ALL = "all"
_RATE_OF_COST = {"cost_per_1k_requests_usd": "goodput_rps", "cost_per_1m_output_tokens_usd": "output_tokens_per_s"}


@dataclass(frozen=True, eq=False)
class ReportData:
    """Data of a report; plain values only.

    Attributes:
        summary: Tidy table of the run, with the columns model, engine, level, variant, load, class, repetition, metric,
            statistic, value, low, high, bound, n, n_eff, unit, source, window.
        validity: Per trial {cell, trial, verdict, load_failed, reasons: [{code, level, sentence, advice, metrics,
            effects}], notes}.
        facts: Per trial {cell, trial, window, requests, statuses, errors, missing, ...}.
        verdicts: Per limit {limit, metric, model, ..., load, outcome, value, low, high, n, sentence,
            certainty, bound}.
        definitions: Per metric {name, unit, definition, direction, show}.
        decisions: Per model {model, reference, speed, loads, rows, recommendation, quality, notes}. A row has engine,
            level, variant, label, loaded_level, device, status, reason, repetitions, values, loads, validity, memory,
            front, beaten_by, limits, chosen. A value is {value, low, high, bound, n, unit, source, reason, invalid}.
        series: Per (cell, trial) the frames distribution, classes, latency, latency_bins, lengths, length_bins, rates,
            slices, gauges, prefill, and phases, bursts.
        pooled: Per keys of the summary the frames distribution and histogram of all repetitions.
        fits: Per curve through a sweep {keys, kind, fit, points, refused}, or instead of `refused` {numbers: [{name,
            value, low, high, unit}], hold_out, least, largest}, and of a throughput {metric, law, is_near, curve}.
        users: Per sweep by users with an SLO {keys, kind, share, meets, misses, unsure, value, largest}.
        gpus: Number of GPUs of the machine under test; 0 unknown or none.
        run: Name or folder of the stored run, as a command takes it; "" if it is not stored.
    """

    title: str
    manifest: Manifest
    summary: pd.DataFrame
    validity: Sequence[dict[str, Any]] = ()
    facts: Sequence[dict[str, Any]] = ()
    verdicts: Sequence[dict[str, Any]] = ()
    definitions: Sequence[dict[str, str]] = ()
    decisions: Sequence[dict[str, Any]] = ()
    series: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    pooled: dict[tuple[str, ...], dict[str, pd.DataFrame]] = field(default_factory=dict)
    fits: Sequence[dict[str, Any]] = ()
    users: Sequence[dict[str, Any]] = ()
    gpus: int = 0
    exit_code: int | None = None
    calibration: str = ""
    late_readings_above: float = 1.0
    run: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "decisions", [worded(table) for table in self.decisions])

    def trials(self) -> Iterator[tuple[CellEntry, TrialEntry]]:
        return self.manifest.trials()

    def validity_of(self, cell: str, trial: str) -> dict[str, Any] | None:
        return self._validity.get((cell, trial))

    def facts_of(self, cell: str, trial: str) -> dict[str, Any]:
        """Return the facts about a trial, empty if it left none."""
        return self._facts.get((cell, trial), {})

    def verdict(self) -> str:
        """Return the worst validity of the run: "valid", "warn", "invalid", or "" if nothing was judged."""
        return _worst(self.validity)

    def verdict_of(self, keys: Sequence[str], repetition: str = POOLED) -> str:
        """Return the validity of a row of the results: of one repetition, or the worst of all."""
        judged = self._judged.get(tuple(keys), ())
        return _worst([found for own, found in judged if repetition in (POOLED, own)])

    def poor_because(self, keys: Sequence[str], metric: str) -> str:
        """Return why a metric's data is poor in any repetition, "" if it is not."""
        level, why = self.doubt_of(keys, metric)
        return why if level == "invalid" else ""

    def level_of(self, keys: Sequence[str], metric: str, repetition: str = POOLED) -> str:
        """Return the worst level of the caveats about a metric of a row: "valid", "warn" or "invalid"."""
        return self.doubt_of(keys, metric, repetition)[0]

    def doubt_of(self, keys: Sequence[str], metric: str, repetition: str = POOLED) -> tuple[str, str]:
        """Return the level of the worst caveat about a metric of a row, and its finding.

        One that names no metric is about the load: if it is invalid, no number describes the planned load.
        """
        metric = _RATE_OF_COST.get(metric, metric)
        judged = (found for own, found in self._judged.get(tuple(keys), ()) if repetition in (POOLED, own))
        reasons = [reason for found in judged for reason in found["reasons"]]
        load = {"invalid": [metric], "warn": []}
        for level, about in load.items():
            for one in reasons:
                if one["level"] == level and metric in (one.get("metrics") or about):
                    return level, str(one["sentence"])
        return "valid", ""

    @cached_property
    def _validity(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(one["cell"], one["trial"]): one for one in self.validity}

    @cached_property
    def _facts(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(one["cell"], one["trial"]): one for one in self.facts}

    @cached_property
    def _judged(self) -> dict[tuple[str, ...], list[tuple[str, dict[str, Any]]]]:
        """Return (repetition, judgement) by the keys of the summary; every row of it looks them up.

        One without facts left no numbers: it says nothing about those of other repetitions.
        """
        found: dict[tuple[str, ...], list[tuple[str, dict[str, Any]]]] = {}
        empty: dict[tuple[str, ...], list[tuple[str, dict[str, Any]]]] = {}
        for cell, trial in self.trials():
            if judged := self.validity_of(cell.id, trial.id):
                place = found if self.facts_of(cell.id, trial.id) else empty
                place.setdefault(keys_of(cell, trial.load), []).append((str(cell.repetition), judged))
        return empty | found


def _worst(judged: Sequence[dict[str, Any]]) -> str:
    found = {one["verdict"] for one in judged}
    return next((level for level in ("invalid", "warn", "valid") if level in found), "")


def keys_of(cell: CellEntry, load: str = "") -> tuple[str, ...]:
    """Return the keys of the summary for a load on a cell."""
    return (*cell.keys, load)


def keys_of_verdict(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a verdict's trial."""
    return tuple(str(verdict[key] or "") for key in KEYS)


def place(keys: Sequence[str]) -> str:
    """Return model, engine, level and variant in words."""
    return dotted(keys[:-1]) or UNKNOWN
