"""Derive the results of a stored run that reports show, from its records."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import metrics
from harness.analysis.damage import check_rows, lose_missing
from harness.analysis.facts import facts_of
from harness.analysis.reading import Reading, StoredTrial, read
from harness.analysis.repetitions import spreads
from harness.analysis.samples.gauges import CellSamples
from harness.analysis.series.pooled import pooled
from harness.analysis.series.trial import series_of
from harness.analysis.summary import KEYS, Measures, levels_for, measure, tidy
from harness.errors import ExitCode, FileUnreadable
from harness.quality.summary import is_about_quality, quality_keys, quality_limits, quality_rows, why_missing
from harness.saturation.result import as_fact, saturation_of
from harness.store.manifest import Manifest
from harness.verdict.decision.table import decide
from harness.verdict.limits import gate
from harness.verdict.limits.gate import Group, Verdict
from harness.verdict.load import what_became
from harness.verdict.reason import Validity
from harness.verdict.starts import differing, spread_fact
from harness.verdict.steady import steady_facts
from harness.verdict.validity import judge, unmeasured

if TYPE_CHECKING:
    import pandas as pd

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Results:
    """Results of a run; facts, validity and series are keyed by (cell id, trial id)."""

    manifest: Manifest
    summary: pd.DataFrame  # `analysis.summary.COLUMNS`
    validity: dict[Key, Validity]
    facts: dict[Key, dict[str, Any]]  # see `facts.facts_of`
    verdicts: list[Verdict]  # of the limits
    series: dict[Key, dict[str, Any]]  # plot data, see `series.series_of`
    exit_code: ExitCode  # as if the run ended now
    definitions: list[dict[str, str]] = field(default_factory=metrics.definitions)
    decisions: list[dict[str, Any]] = field(default_factory=list)  # see `decision.decide`
    pooled: dict[tuple[str, ...], dict[str, pd.DataFrame]] = field(default_factory=dict)  # see `pooled.pooled`
    measures: Sequence[Measures] = ()  # before any statistic, for comparisons request by request
    damaged: bool = False  # some readings are lost


def derive(
    manifest: Manifest,
    trials: Sequence[StoredTrial],
    folder: Path | None = None,
    statistics: Collection[tuple[str, str]] = (),
    *,
    pictures: bool = True,
) -> Results:
    """Return the results of a run. Trials without records are judged by the manifest.

    Args:
        trials: Trials with records.
        folder: Folder of the run, for figures of quality.
        statistics: Further (metric, statistic) pairs, such as ("ttft_ms", "p99.9").
        pictures: Whether the data of plots and the choice between configurations are needed.
    """
    validity = _unmeasured(manifest, trials)
    calibration = manifest.provenance.calibration
    facts, series = {}, {}
    measures: list[Measures] = []
    extra = {*gate.extra_statistics([text for _, trial in manifest.trials() for text in trial.limits]), *statistics}
    levels, cells = levels_for(extra), CellSamples()
    for one in trials:
        key = (one.cell.id, one.trial.id)
        try:
            reading = read(one, levels)
            check_rows(reading)
        except FileUnreadable as error:
            one.trial.status, one.trial.reason = "failed", str(error)
            validity[key] = unmeasured(one.trial)
            continue
        samples = cells.around(one, reading)
        facts[key] = facts_of(one.cell, reading, samples) | steady_and_saturated(reading)
        validity[key] = judge(one.trial, reading, facts[key], calibration, manifest.scenario_keys.tolerance)
        measured = measure(one, reading, samples, facts[key])
        if pictures:
            series[key] = series_of(reading, samples, facts[key], {of.class_name: of.distributions for of in measured})
        measures.extend(measured)
    lost = [f"{sentence}; memory, load and counters of its configuration are missing" for sentence in cells.damage]
    manifest.notes = [*manifest.notes, *lost]
    summary = tidy(measures, extra, [] if folder is None else quality_rows(manifest, folder), manifest.price)
    _compare_starts(manifest, summary, validity, facts)
    verdicts, code = _judge_limits(manifest, summary, measures, validity, facts)
    told = [verdict for verdict in verdicts if not verdict.of_base]
    found = Results(manifest, summary, validity, facts, told, series, code, measures=measures, damaged=bool(lost))
    if not pictures:
        return found
    decisions = decide(manifest, summary, validity, verdicts, facts, measures)
    return replace(found, decisions=decisions, pooled=pooled(measures))


def _unmeasured(manifest: Manifest, trials: Sequence[StoredTrial]) -> dict[Key, Validity]:
    """Return what the manifest says of each trial that was tried; those without records are told as lost."""
    tried = [((cell.id, trial.id), trial) for cell, trial in manifest.trials() if cell.status != "skipped"]
    lose_missing(trial for key, trial in tried if key not in {(one.cell.id, one.trial.id) for one in trials})
    return {key: unmeasured(trial) for key, trial in tried if trial.status not in ("pending", "skipped")}


def steady_and_saturated(reading: Reading) -> dict[str, Any]:
    """Return how steady a trial was and, of a search for the largest rate, its result."""
    saturation = saturation_of(reading)
    found = {} if saturation is None else {"saturation": as_fact(saturation)}
    return {"steady": steady_facts(reading), **found}


def _compare_starts(
    manifest: Manifest, summary: pd.DataFrame, validity: dict[Key, Validity], facts: dict[Key, dict[str, Any]]
) -> None:
    """Add to each repetition the facts and reasons that follow from all of them."""
    found = spreads(summary, KEYS)
    for cell, trial in manifest.trials():
        key, own = (cell.id, trial.id), found.get((*cell.keys, trial.load), {})
        if key in facts and own:
            facts[key]["repetitions"] = {statistic: spread_fact(spread) for statistic, spread in own.items()}
            validity[key] = validity[key].with_more(differing(own))


def _judge_limits(
    manifest: Manifest,
    summary: pd.DataFrame,
    measures: Sequence[Measures],
    validity: dict[Key, Validity],
    facts: Mapping[Key, dict[str, Any]],
) -> tuple[list[Verdict], ExitCode]:
    """Return the verdicts of the limits and the exit code. Trials get a note of those that stay open."""
    groups = [*_groups(manifest, validity, facts), *_quality_groups(manifest)]
    strict = manifest.scenario_keys.limits_confidence is not None
    verdicts = gate.judge_all(groups, summary, measures, strict=strict)
    _note_open_limits(manifest, verdicts, validity)
    return verdicts, _exit_code(manifest, verdicts, groups)


def _note_open_limits(manifest: Manifest, verdicts: Sequence[Verdict], validity: dict[Key, Validity]) -> None:
    """Add to each trial the limits that its interval leaves open."""
    notes = gate.open_limits(verdicts)
    for cell, trial in manifest.trials():
        key = (cell.id, trial.id)
        if key in validity and (own := notes.get((*cell.keys, trial.load))):
            validity[key] = validity[key].with_more(own)


def _groups(manifest: Manifest, validity: Mapping[Key, Validity], facts: Mapping[Key, dict[str, Any]]) -> list[Group]:
    """Group the repetitions of each trial; a group has the doubts of all. Skipped cells have no group."""
    found: dict[tuple[str, ...], Group] = {}
    for cell, trial in manifest.trials():
        key, keys = (cell.id, trial.id), (*cell.keys, trial.load)
        if cell.status == "skipped" or key not in validity:
            continue
        gone = dict.fromkeys(metrics.METRICS, f"the trial {what_became(trial.status)}")
        missing = facts[key]["missing"] if key in facts else gone
        before = found.get(keys)
        doubts = [*(before.validity.reasons if before else ()), *validity[key].reasons]
        limits = tuple(limit for limit in trial.limits if not is_about_quality(limit))
        found[keys] = Group(keys, limits, Validity.of(doubts), before.missing if before else missing)
    return list(found.values())


def _quality_groups(manifest: Manifest) -> list[Group]:
    """Group each cell's limits on quality, which are judged once for all its loads."""
    found: dict[tuple[str, ...], Group] = {}
    for cell in manifest.cells:
        limits, keys = quality_limits(manifest, cell), quality_keys(cell)
        if not limits or cell.status in ("skipped", "pending") or (keys in found and cell.quality is None):
            continue
        found[keys] = Group(keys, limits, Validity.of([]), why_missing(cell))
    return list(found.values())


def _exit_code(manifest: Manifest, verdicts: Sequence[Verdict], groups: Sequence[Group]) -> ExitCode:
    if manifest.status == "interrupted":
        return ExitCode.INTERRUPTED
    if all(cell.status == "skipped" for cell in manifest.cells):
        return ExitCode.TRIAL_FAILED  # nothing was measured
    failed = sum(cell.status == "failed" for cell in manifest.cells)
    failed += sum(trial.status == "failed" for _, trial in manifest.trials())
    failed_loads = {group.keys for group in groups if group.load_failed is not None}
    decide = manifest.scenario_keys.decide or "all"
    return gate.exit_code(verdicts, failed_loads, decide=decide, failed_cells=failed)
