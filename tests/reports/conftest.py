"""Runs to report: one with everything in it, a sweep, a single load, and one with hostile texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli.commands.report import report_data
from harness.records import Sample
from harness.results import derive
from harness.store.manifest import METHOD, CellEntry, Manifest
from reports.data import ReportData
from tests.fabricated import MS, FabricatedTrial, S, again, cell_entry, failed, noisy, trial_entry

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
T0_NS = 1_000 * S
LIMITS = ["ttft_ms p95 <= 150", "error_rate <= 0.01", "kl_mean <= 0.01"]
HOSTILE = '<script>document.title="owned"</script>'


def memory(peak_bytes: float) -> list[Sample]:
    """Readings of the engine's memory, twice a second."""
    return [
        Sample(T0_NS + i * S // 2, "engine", "rss_bytes", peak_bytes * (0.8 + 0.2 * min(1.0, i / 40)))
        for i in range(-2, 130)
    ]


CALIBRATION = {
    "created_utc": "2026-01-01T00:00:00+00:00",
    "streams": 600,
    "events_per_s": 29_950.0,
    "requests_per_s": 2000.0,
    "ttft_error_p99_ms": 0.41,
    "itl_error_p99_ms": 0.1,
    "send_lag_p99_ms": 0.4,
    "notes": [],
    "quick": False,
    "shared": True,
}


def manifest(cells: Sequence[CellEntry], **changes: Any) -> Manifest:
    """A run's manifest."""
    stored = {
        "format": 0,
        "method": METHOD,
        "harness_version": "0.1.0",
        "name": "choose",
        "description": "Which level for this machine.",
        "created_utc": "2026-01-02T03:04:05Z",
        "status": "complete",
        "labels": {"commit": "abc123"},
        "scenario": {"seed": 1, "decide": "all"},
        "command": "harness run choose.yaml",
        "provenance": {
            "must_match": {"cpu": "Example 9000", "cores": 8},
            "under_test": {"model_hash": "e" * 12},
            "context": {"kernel": "6.1"},
            "calibration": CALIBRATION,
        },
        "notes": ["GPU not read: no driver"],
        "cells": list(cells),
    }
    return Manifest.model_validate(stored | changes)


@pytest.fixture(scope="session")
def full() -> ReportData:
    """Two levels that ran, one of which lost its server, one that failed to start, and one that was skipped.

    The load generator was late at the second, which moved its p95.
    """
    slo = {"ttft_ms": 150.0, "tpot_ms": 20.0, "e2e_ms": None, "stall_ms": None}
    good = FabricatedTrial(cell_entry(), trial_entry(limits=LIMITS, slo=slo), noisy(1), memory(2.1e9))
    records = noisy(2, slower=1.4)
    records[480:] = [
        failed(i, i * 100.0, "connection_error", 2, error=f"connection refused by 127.0.0.1:{9000 + i}")
        for i in range(480, 600)
    ]
    bad = FabricatedTrial(
        cell_entry(id="001-tiny-simulated-q4", level="q4"), trial_entry(limits=LIMITS, slo=slo), records
    )
    short = trial_entry(id="001-single", load="single", kind="single_user", loop="closed", end_s=None)
    short.t0_ns = T0_NS - 30 * S  # before the first reading
    alone = FabricatedTrial(good.cell, short, noisy(3, 30))
    broken = trial_entry(status="failed", reason="the engine exited with signal 9", limits=LIMITS)
    cells = [
        again(good.cell, trials=[good.trial, alone.trial], engine_info={"version": "1.2", "model_hash": "e" * 12}),
        again(bad.cell, trials=[bad.trial]),
        cell_entry(id="002", level="q8", status="failed", reason="the engine exited with signal 9", trials=[broken]),
        cell_entry(id="003", level="q2", status="skipped", reason="simulated has no level q2", trials=[]),
    ]
    data = report_data(derive(manifest(cells), [good, alone, bad]))
    doubted = judged(data, bad.cell.id, bad.trial.id, late(150, 168))
    return replace(data, validity=[doubted if one["cell"] == bad.cell.id else one for one in data.validity])


@pytest.fixture(scope="session")
def hostile() -> ReportData:
    """Names and errors that would run, break tables or end documents."""
    records = noisy(4, 100)
    records[40:] = [
        failed(i, i * 100.0, "http_error", 2, error=f"{HOSTILE} | `x` \x1b[31m \x00 ]]> $x^") for i in range(40, 100)
    ]
    cell = cell_entry(model=HOSTILE, variant="a|b$c_")
    trial = FabricatedTrial(cell, trial_entry(load=f"{HOSTILE}|x"), records)
    other = FabricatedTrial(cell, trial_entry(id="001", load="$\\frac"), noisy(5, 100))
    run = manifest([again(cell, trials=[trial.trial, other.trial])], name=HOSTILE, command=HOSTILE, description=HOSTILE)
    return report_data(derive(run, [trial, other]))


def judged(data: ReportData, cell: str, trial: str, *reasons: dict[str, Any]) -> dict[str, Any]:
    """The validity of a trial with these reasons."""
    levels = [reason["level"] for reason in reasons]
    worst = next((level for level in ("invalid", "warn") if level in levels), "valid")
    return {"cell": cell, "trial": trial, "verdict": worst, "reasons": list(reasons), "notes": []}


def late(low: float, value: float) -> dict[str, Any]:
    """The reason that requests of an open loop left late, which moved p95 by so much."""
    off = {"metric": "ttft_ms", "statistic": "p95", "value": value, "low": low, "high": value}
    finding = f"The load generator was up to {value - low:g} ms late (machine busy: load 12 on 2 cores)."
    reason = {"code": "client_late", "level": "warn", "sentence": finding, "advice": "Stop other processes."}
    return reason | {"metrics": ["ttft_ms", "e2e_ms"], "effects": [off]}


LIES = {
    "code": "token_counts",
    "level": "invalid",
    "sentence": "Token counts disagree: server 640, chunks 512.",
    "advice": "Count tokens by `tokenizer`.",
    "metrics": ["output_tokens_per_s", "tpot_ms"],
    "effects": [],
}


@pytest.fixture(scope="session")
def sweep() -> ReportData:
    """Four rates; at the highest requests queue, at one the token counts are wrong, at two the client was late."""
    slo = {"ttft_ms": 500.0, "tpot_ms": 50.0, "e2e_ms": None, "stall_ms": None}
    limits = ["ttft_ms p95 <= 500", "error_rate <= 1%"]
    trials = []
    for number, rate in enumerate((1, 2, 4, 8)):
        records = noisy(number, 60 * rate, every_ms=1000 / rate)
        for record in records[::5] if rate == 8 else ():
            for name in ("first_byte_ns", "first_token_ns", "first_answer_ns", "last_token_ns", "done_ns"):
                setattr(record, name, getattr(record, name) + 650 * MS)
            record.chunk_ns = [at + 650 * MS for at in record.chunk_ns]
        own = {"id": f"{number:03}-rate-{rate}", "index": number, "load": f"sustained-rate-{rate}", "rate": rate}
        times = {"begun_ns": (1_000 + 65 * number) * S, "ended_ns": (1_061 + 65 * number) * S, "session": 1}
        trials.append(FabricatedTrial(cell_entry(), trial_entry(slo=slo, limits=limits, **own, **times), records))
    cell = again(trials[0].cell, trials=[one.trial for one in trials], engine_info={"version": "1.2"})
    data = report_data(derive(manifest([cell], name="sweep_rate", notes=[]), trials))
    facts = [one | {"origin": "from due"} for one in data.facts]
    ids = [one.trial.id for one in trials]
    reasons = [(LIES,), (), (late(95, 100),), (late(690, 746),)]
    validity = [judged(data, cell.id, trial, *found) for trial, found in zip(ids, reasons, strict=True)]
    return replace(data, facts=facts, validity=validity, exit_code=1)


@pytest.fixture(scope="session")
def single() -> ReportData:
    """One user, thirty requests, nothing to object to."""
    trial = trial_entry(load="single_user", kind="single_user", loop="closed", end_s=None, users=1)
    alone = FabricatedTrial(cell_entry(), trial, noisy(3, 30), memory(2.1e9))
    cell = again(alone.cell, trials=[trial], engine_info={"version": "1.2"})
    data = report_data(derive(manifest([cell], name="single", notes=[]), [alone]))
    return replace(data, validity=[judged(data, cell.id, trial.id)], exit_code=0)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with a stored file; with --update-golden writes the file."""
    update = request.config.getoption("--update-golden")

    def check(name: str, text: str) -> None:
        file = GOLDEN / name
        if update:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"{name} is missing; write it with --update-golden"
        assert text == file.read_text(encoding="utf-8")

    return check
