"""One test per exit code, against real processes. 5 (regressed) stands in test_compare.py."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from command import VIRTUAL_TIME, manifest, records, rows_on_disk, scenario, told, wait_until

from tests.forked import harness, running

QUICK = ("--format", "md,junit")
pytestmark = pytest.mark.slow


def simulated(**options: Any) -> list[dict[str, Any]]:
    """An engine block."""
    return [{"engine": "simulated", "options": {"ttft_ms": 60, "tpot_ms": 1, **options}}]


def test_0_everything_ran_and_holds(tmp_path: Path) -> None:
    """A run whose limits hold ends with 0 and leaves every file of a run."""
    path = scenario(tmp_path, limits=["ttft_ms p50 <= 500", "error_rate <= 0.01"])
    ended = harness("run", str(path), "--out", "run", cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    run = tmp_path / "run"
    names = {found.name for found in run.iterdir()}
    assert names >= {"manifest.json", "summary.csv", "summary.json", "report.html", "report.md", "junit.xml", "cells"}
    (cell,) = manifest(run)["cells"]
    (trial,) = cell["trials"]
    assert (manifest(run)["status"], cell["status"], trial["status"]) == ("complete", "complete", "complete")
    assert [row["request"] for row in records(run, trial)] == list(range(20))
    assert {row["status"] for row in records(run, trial)} == {"ok"}
    assert not list(run.rglob("*.arrows")), "streams become Parquet"


def test_1_a_limit_is_broken(tmp_path: Path) -> None:
    """A limit that the measured value breaks ends the run with 1, and the report names it."""
    path = scenario(tmp_path, limits=["ttft_ms p50 <= 1"])
    ended = harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 1, ended.err
    assert "TTFT p50 <= 1 ms" in (tmp_path / "run" / "report.md").read_text().replace("\\", "")
    assert "ttft_ms p50 <= 1" in (tmp_path / "run" / "junit.xml").read_text().replace("&lt;", "<")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"lood": []}, "lood"),
        ({"engines": [{"engine": "vlm"}]}, "unknown engine `vlm`"),
        ({"load": [{"kind": "single_user", "requests": 3, "timeout": 5}]}, "5s"),
    ],
)
def test_2_a_scenario_is_wrong(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    """A wrong scenario ends with 2 and a sentence that names the file and what to write, and nothing is stored."""
    path = scenario(tmp_path, **keys)
    ended = harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path)
    assert ended.code == 2
    assert words in ended.err
    assert f"{path}:1:" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_2_a_missing_file_and_a_run_that_exists(tmp_path: Path) -> None:
    """A file that is not there, and a folder that is, are usage errors."""
    missing = harness("run", "nothing.yaml", cwd=tmp_path)
    assert (missing.code, "nothing.yaml" in missing.err) == (2, True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    there = harness("run", str(scenario(tmp_path)), "--out", "run", *QUICK, cwd=tmp_path)
    assert there.code == 2
    assert "never overwritten" in there.err
    assert "bound" not in there.err, "refused before anything else is said"


def test_3_a_crash_costs_its_trial_only(tmp_path: Path) -> None:
    """An engine that aborts the process in mid-trial: 3, the moment and the signal are named, what was measured is
    kept, and the other trials and cells are measured.
    """
    path = scenario(
        tmp_path,
        engines=[*simulated(crash_after_requests=15), *simulated()],
        load=[{"kind": "single_user", "requests": 5}, {"kind": "single_user", "requests": 40, "name": "long"}],
    )
    ended = harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 3, ended.err
    broken, sound = manifest(tmp_path / "run")["cells"]
    first, second = broken["trials"]
    assert (first["status"], second["status"]) == ("complete", "failed")
    assert "SIGABRT" in second["reason"]
    assert "s after the trial began" in second["reason"]
    assert sound["status"] == "complete"
    assert "SIGABRT" in (tmp_path / "run" / "report.md").read_text()


def test_3_an_engine_that_does_not_start(tmp_path: Path) -> None:
    """A failed start is the cell's reason, in the engine's own sentence, and the other cells go on."""
    path = scenario(tmp_path, engines=[*simulated(fail_start="the card is gone"), *simulated()])
    ended = harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 3
    failed, sound = manifest(tmp_path / "run")["cells"]
    assert failed["reason"] == "the card is gone"
    assert sound["status"] == "complete"
    assert "the card is gone" in (tmp_path / "run" / "report.md").read_text()


def test_4_a_measurement_is_invalid(tmp_path: Path) -> None:
    """When every reply is an error, nothing was measured: 4."""
    path = scenario(tmp_path, engines=simulated(error_every=1))
    ended = harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 4, ended.err
    assert "data: poor" in (tmp_path / "run" / "report.md").read_text()


def test_a_limit_on_errors_judges_them_instead(tmp_path: Path) -> None:
    """Half of the replies are errors, and the scenario says how many it accepts: 1, or 0."""
    for share, code in (("10%", 1), ("60%", 0)):
        path = scenario(tmp_path, engines=simulated(error_every=2), limits=[f"error_rate <= {share}"])
        ended = harness("run", str(path), "--out", share, *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
        assert ended.code == code, ended.err


def test_1_nothing_succeeded_and_a_limit_judges_that(tmp_path: Path) -> None:
    """A limit on errors judges a trial without a single reply; its data is poor all the same."""
    path = scenario(tmp_path, engines=simulated(error_every=1), limits=["error_rate <= 0.5"])
    ended = harness("run", str(path), "--out", "run", "--format", "md,csv", cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 1, ended.err
    report = (tmp_path / "run" / "report.md").read_text()
    assert "measured requests failed: nothing was measured" in report
    rows = csv.DictReader((tmp_path / "run" / "summary.csv").read_text().splitlines())
    validity = {row["metric"]: row["validity"] for row in rows}
    assert (validity["completed_rps"], validity["error_rate"]) == ("invalid", "valid")


def test_6_nobody_can_tell(tmp_path: Path) -> None:
    """A limit on a gauge that this machine lacks was not checked: 6, never a pass."""
    path = scenario(tmp_path, limits=["gpu_memory_peak_share <= 0.8"])
    ended = harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 6, ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_130_interrupted_once_finishes_what_is_in_flight(tmp_path: Path, number: int) -> None:
    """One signal: no new requests, those in flight end, every row of the plan is accounted for, the report says so."""
    path = scenario(
        tmp_path,
        engines=simulated(tpot_ms=50),
        load=[{"kind": "sustained", "rate": 20, "arrivals": "constant", "duration": "60s", "timeout": "60s"}],
    )
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_until(lambda: rows_on_disk(tmp_path / "run") >= 5, process)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    run = tmp_path / "run"
    (cell,) = manifest(run)["cells"]
    (trial,) = cell["trials"]
    rows = [row for row in records(run, trial) if row["phase"] == "measure"]
    assert len(rows) == 1200
    assert {row["status"] for row in rows} == {"ok", "not_sent"}
    assert trial["status"] == "interrupted"
    report = (run / "report.md").read_text()
    assert "The trial was interrupted: it was stopped before its end." in report
    assert "built-in, one process" in report


def test_130_interrupted_twice_stops_now_and_saves(tmp_path: Path) -> None:
    """Two signals: what is in flight becomes `unfinished`, and everything is still stored."""
    path = scenario(
        tmp_path,
        engines=simulated(hang_after_requests=20),
        # Half are given up, so that rows keep coming when nothing is answered any more.
        workload={"prompt_tokens": 8, "output_tokens": 4, "cancel": {"share": 0.5, "after": "500ms"}},
        load=[{"kind": "sustained", "rate": 50, "arrivals": "constant", "duration": "100s", "timeout": "500s"}],
    )
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_until(lambda: rows_on_disk(tmp_path / "run") >= 30, process)  # more than are answered
        os.kill(process.pid, signal.SIGINT)
        told(process, "stopping")
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    (cell,) = manifest(tmp_path / "run")["cells"]
    rows = records(tmp_path / "run", cell["trials"][0])
    assert {row["status"] for row in rows} == {"ok", "cancelled", "unfinished", "not_sent"}
