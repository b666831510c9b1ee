"""Two runs to report: one with everything in it, and one that is hostile to whoever shows its texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cli.report import report_data
from harness.records import Sample
from harness.results import derive
from harness.store.manifest import METHOD, CellEntry, Manifest
from reports.data import ReportData
from tests.fabricated import FabricatedTrial, S, again, cell_entry, failed, noisy, trial_entry

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
    """Two levels that ran, one of which lost its server, one that failed to start, and one that was skipped."""
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
    return report_data(derive(manifest(cells), [good, alone, bad]))


@pytest.fixture(scope="session")
def hostile() -> ReportData:
    """Names and errors that would run, break tables or end documents."""
    records = noisy(4, 100)
    records[50:] = [
        failed(i, i * 100.0, "http_error", 2, error=f"{HOSTILE} | `x` \x1b[31m \x00 ]]> $x^") for i in range(50, 100)
    ]
    cell = cell_entry(model=HOSTILE, variant="a|b$c_")
    trial = FabricatedTrial(cell, trial_entry(load=f"{HOSTILE}|x"), records)
    other = FabricatedTrial(cell, trial_entry(id="001", load="$\\frac"), noisy(5, 100))
    run = manifest([again(cell, trials=[trial.trial, other.trial])], name=HOSTILE, command=HOSTILE, description=HOSTILE)
    return report_data(derive(run, [trial, other]))


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
