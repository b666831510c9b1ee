"""Runs on a machine whose NVIDIA driver is the fake one: from the driver's counter to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import manifest, scenario, wait_until

from harness.analysis.samples.energy import COUNTER
from tests.fake_nvml import environment
from tests.forked import harness, running

WATTS = 300.0
STEADY = {"kind": "sustained", "rate": 20, "warmup": "200ms", "duration": "5s", "timeout": "5s"}


@pytest.mark.slow
def test_a_run_reports_the_energy_of_its_window(tmp_path: Path) -> None:
    """Within half a percent of what the fake used in the window; every report names the sensor."""
    path = scenario(tmp_path, load=[STEADY], slo={"ttft": "1s"})
    fake = environment(power_mw=round(WATTS * 1000), tick_ns=1_000_000, used=12 * 2**30)
    ended = harness("run", str(path), "--out", "run", "--format", "html,md,csv,json", cwd=tmp_path, env=fake)
    assert ended.code in (0, 4), ended.err  # a busy machine may make it invalid
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (trial,) = summary["trials"]
    facts = trial["facts"]
    seconds = facts["window"]["end_s"] - facts["window"]["start_s"]
    # A reading lies in the middle of the time that it took: 50 ms of it, on a busy machine, are half a percent of 5 s.
    assert facts["energy"]["j"] == pytest.approx(WATTS * seconds, rel=0.005)
    assert facts["energy"]["low"] < WATTS * seconds < facts["energy"]["high"]
    assert facts["energy"]["power_w"] == pytest.approx(WATTS)
    assert facts["throttling"]["gpu0"]["share"] == 0.0
    every = next(result for result in summary["results"] if result["repetition"] == "pooled")["classes"]["all"]
    found = {name: statistics["value"] for name, statistics in every.items() if "value" in statistics}
    assert found["gpu_memory_peak_bytes"]["value"] == pytest.approx(12 * 2**30)
    tokens = found["output_tokens_per_s"]["value"] * seconds
    assert found["energy_j_per_output_token"]["value"] == pytest.approx(WATTS * seconds / tokens, rel=0.01)
    assert found["energy_j_per_good_request"]["value"] > 0
    assert found["energy_j"]["source"] == COUNTER
    for page in ("summary.json", "summary.csv", "report.html"):
        assert COUNTER in (tmp_path / "run" / page).read_text(), page
    told = manifest(tmp_path / "run")["provenance"]["context"]
    assert told["gpus"]["driver"] == told["gpus_at_end"]["driver"] == "999.1"


def under_way(run: Path) -> bool:
    """Whether a trial of the run has begun."""
    if not (run / "manifest.json").exists():
        return False
    return any(trial["t0_ns"] is not None for cell in manifest(run)["cells"] for trial in cell["trials"])


@pytest.mark.slow
def test_a_gpu_that_is_lost_under_way_does_not_end_the_run(tmp_path: Path) -> None:
    """The trial is complete, what was lost is said once with the time, and there is no energy but a reason."""
    lost = tmp_path / "lost"
    # The last replies wait until the GPU is lost, and take a second from then on.
    options = {"ttft_ms": 1000, "tpot_ms": 1, "hold": {"after_requests": 5, "until": str(lost)}}
    engine = {"engine": "simulated", "options": options}
    path = scenario(tmp_path, engines=[engine], load=[STEADY | {"duration": "500ms", "timeout": "120s"}])
    fake = environment(lost_when=lost)
    with running("run", str(path), "--out", "run", "--format", "csv", cwd=tmp_path, env=fake) as process:
        wait_until(lambda: under_way(tmp_path / "run"), process)
        lost.touch()
        _, err = process.communicate(timeout=120)
    assert process.returncode in (0, 4), err
    (cell,) = manifest(tmp_path / "run")["cells"]
    assert cell["trials"][0]["status"] == "complete"
    assert len([said for said in cell["unread"] if said.startswith("gpu0 could not be read any more from ")]) == 1
