"""Fabricated runs in which there is something to choose: levels with chosen speeds, memory and quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from harness.analysis.columns import ALL
from harness.analysis.facts import facts_of
from harness.analysis.summary import COLUMNS, POOLED, tidy
from harness.records import Sample
from harness.results import Results, _exit_code, _groups, _quality_groups
from harness.store.manifest import CellEntry, EngineEntry, Manifest, StartEntry
from harness.verdict.decision.table import decide
from harness.verdict.limits.gate import judge_all
from harness.verdict.reason import Effect, Level, Reason, Validity
from tests.fabricated import FabricatedTrial, S, cell_entry, noisy, trial_entry

T0_NS = 1_000 * S
MIB = 2.0**20


@dataclass
class Choice:
    """A level: how much slower than 80 tokens/s and 80 ms, what it takes, how far it is from the reference.

    kl: mean, low, high; mean NaN: at least low.   reference: the level it is far from.   invalid: loads that were not
    the planned ones.   poor: metrics that are invalid under every load.   doubted: shares of TPOT p50 between which the
    true one lies.   status, reason: of its cells, where they were
    not run.   loading: what it takes while it starts.   prompts: what varies from
    request to request, equal where levels have it alike; None: each its own.   minutes: how long a trial took.
    """

    level: str
    slower: float = 1.0
    memory: float = 100 * MIB
    kl: tuple[float, float, float] | None = None
    top1: float = 0.99
    engine: str = "simulated"
    status: str = "complete"
    reason: str | None = None
    invalid: tuple[str, ...] = ()
    poor: tuple[str, ...] = ()
    doubted: tuple[float, float] | None = None
    minutes: float | None = None
    reference: str = "f32"
    info: dict[str, Any] = field(default_factory=dict)
    requests: int = 120
    loading: float | None = None
    prompts: int | None = None


def results_of(
    choices: Sequence[Choice],
    *,
    limits: Sequence[str] = (),
    loads: Sequence[str] = ("single_user", "sustained"),
    repetitions: int = 1,
    decides: str = "any",
    model: str = "tiny",
) -> Results:
    """What `derive` finds in a run with these cells, the judgement of the trials given."""
    cells: list[CellEntry] = []
    trials: list[FabricatedTrial] = []
    for repetition in range(1, repetitions + 1):
        for choice in choices:
            cell, own = _cell(choice, len(cells), repetition, loads, limits, model)
            cells.append(cell)
            trials += own
    manifest = Manifest(name="choose", status="complete", cells=cells, scenario={"decide": decides, "seed": 1})
    return _derived(manifest, trials, choices)


def _cell(
    choice: Choice, number: int, repetition: int, loads: Sequence[str], limits: Sequence[str], model: str
) -> tuple[CellEntry, list[FabricatedTrial]]:
    memory = {"weight_bytes": int(choice.memory / 2), "parameters": 10_000_000, "level": choice.level}
    cell = cell_entry(
        id=f"{number:03}-{choice.level}",
        model=model,
        engine=choice.engine,
        level=choice.level,
        repetition=repetition,
        status=choice.status,
        reason=choice.reason,
        engine_info=memory | choice.info,
        quality={"reference_level": choice.reference} if choice.kl else None,
    )
    if choice.status != "complete":
        cell.engine_info, cell.start = EngineEntry(), StartEntry()
    if choice.status == "skipped":
        return cell, []
    made = []
    for index, load in enumerate(loads):
        entry = trial_entry(
            id=f"{index:03}-{load}",
            load=load,
            kind="single_user" if load == "single_user" else "sustained",
            limits=list(limits),
            status=choice.status,
            reason=choice.reason,
        )
        if choice.minutes is not None:
            entry.begun_ns, entry.ended_ns = T0_NS, T0_NS + round(choice.minutes * 60 * S)
        made.append(entry)
    cell.trials = made
    if choice.status != "complete":
        return cell, []
    if choice.loading is not None:
        cell.start.began_ns, cell.start.ready_ns = T0_NS - 30 * S, T0_NS - 20 * S
    heavy = [] if choice.loading is None else [Sample(T0_NS - 25 * S, "engine", "rss_bytes", choice.loading)]
    held = heavy + [Sample(T0_NS + i * S // 2, "engine", "rss_bytes", choice.memory) for i in range(-2, 20)]
    seed = 100 * number + repetition if choice.prompts is None else choice.prompts
    records = [noisy(seed + index, choice.requests, slower=choice.slower) for index, _ in enumerate(loads)]
    return cell, [FabricatedTrial(cell, entry, records[index], held) for index, entry in enumerate(made)]


def _bundled(choice: Choice) -> list[Reason]:
    if choice.doubted is None:
        return []
    tpot_ms = 12.5 * choice.slower
    low, high = (share * tpot_ms for share in choice.doubted)
    effect = Effect("tpot_ms", "p50", tpot_ms, low, high)
    return [Reason("client_slow", Level.WARN, "Tokens were read in bundles.", "", ("tpot_ms",), (effect,))]


def _derived(manifest: Manifest, trials: Sequence[FabricatedTrial], choices: Sequence[Choice]) -> Results:
    from harness.analysis.reading import read
    from harness.analysis.summary import levels_for, measure
    from harness.verdict.limits.gate import extra_statistics

    made = {(one.engine, one.level): one for one in choices}
    extra = extra_statistics([text for one in trials for text in one.trial.limits])
    measures, facts = [], {}
    validity: dict[tuple[str, str], Validity] = {}
    for cell, trial in manifest.trials():
        if trial.status != "complete":
            validity[cell.id, trial.id] = Validity(Level.INVALID)
    for one in trials:
        reading = read(one, levels_for(extra))
        key = (one.cell.id, one.trial.id)
        choice = made[one.cell.engine, str(one.cell.level)]
        late = Reason("client_late", Level.INVALID, "Requests were sent late.", "Lower the rate.", ("ttft_ms",))
        poor = Reason("token_counts", Level.INVALID, "Token counts are impossible.", "", choice.poor)
        doubts = [late] * (one.trial.load in choice.invalid) + [poor] * bool(choice.poor) + _bundled(choice)
        validity[key] = Validity.of(doubts)
        facts[key] = facts_of(one.cell, reading, one.samples())
        measures += measure(one, reading, one.samples())
    frames = [frame for frame in (tidy(measures, extra), _quality(manifest, choices)) if len(frame)]
    summary = pd.concat(frames, ignore_index=True) if frames else tidy([], extra)
    groups = [*_groups(manifest, validity, facts), *_quality_groups(manifest)]
    verdicts = judge_all(groups, summary)
    code = _exit_code(manifest, verdicts, groups)
    decisions = decide(manifest, summary, validity, verdicts, facts, measures)
    return Results(manifest, summary, validity, facts, verdicts, {}, code, decisions=decisions)


def _quality(manifest: Manifest, choices: Sequence[Choice]) -> pd.DataFrame:
    """The rows of the summary that scoring against a reference leaves."""
    rows = []
    for one in choices:
        if one.kl is None or one.status != "complete":
            continue
        shared = {"model": manifest.cells[0].model, "engine": one.engine, "level": one.level, "variant": ""}
        shared |= {"load": "quality", "class": ALL, "repetition": POOLED, "statistic": "value", "bound": "point"}
        shared |= {"n": 16384, "n_eff": 64.0, "source": "scores", "window": "text"}
        value, low, high = one.kl
        bound = {"bound": "lower" if math.isnan(value) else "point"}
        rows.append(shared | bound | {"metric": "kl_mean", "value": value, "low": low, "high": high, "unit": "nats"})
        agreed = (one.top1, one.top1 - 0.002, min(1.0, one.top1 + 0.002))
        rows.append(
            shared
            | {"metric": "top1_agreement", "unit": "share"}
            | dict(zip(("value", "low", "high"), agreed, strict=True))
        )
        ratio = (1 + value, 1 + low, 1 + high)
        rows.append(
            shared | {"metric": "ppl_ratio", "unit": "ratio"} | dict(zip(("value", "low", "high"), ratio, strict=True))
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))
