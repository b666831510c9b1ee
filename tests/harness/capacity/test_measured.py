"""Candidates of stored runs: which rates hold by what was stored, and what does not count as a requirement."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from harness.capacity.measured import Candidate, check_alike, read_candidates
from harness.capacity.missing import finer
from harness.capacity.rate import Holds
from harness.errors import UsageError
from harness.scenario.reader import load
from tests.planned import stored_run

RATES = {2.0: 200.0, 4.0: 300.0, 8.0: 900.0}
NO_SLO = dict.fromkeys(("ttft_ms", "tpot_ms", "e2e_ms", "stall_ms"))


def candidate(
    folder: Path, rates: dict[float, float] | None = None, attainment: float = 0.95, **keys: Any
) -> Candidate:
    """The only candidate of a stored run."""
    stored_run(folder / "run", {"f16": rates or RATES}, **keys)
    (found,) = read_candidates(str(folder / "run"), attainment, "g5.xlarge")
    return found


def test_an_slo_and_its_share(tmp_path: Path) -> None:
    """96 % of the requests are within 500 ms at 4 requests/s, none at 8."""
    found = candidate(tmp_path)
    assert found.capacity is not None
    assert (found.capacity.lower_rps, found.capacity.upper_rps, found.capacity.load) == (4.0, 8.0, "rate-4")
    assert found.capacity.binding == "attainment >= 95%"
    assert [one.text for one in found.points[0].requirements] == ["attainment >= 95%"]
    assert found.points[1].tokens.output == pytest.approx(64, rel=0.02)
    assert found.start_s == 60.0


def test_a_higher_share_is_harder_to_keep(tmp_path: Path) -> None:
    """At 2 requests/s all are within 350 ms; at 4, 4 % take 450 ms, so that 99 % is not kept."""
    slo = {**NO_SLO, "ttft_ms": 400.0}
    found = candidate(tmp_path, attainment=0.98, slo=slo)
    assert found.capacity is not None
    assert (found.capacity.lower_rps, found.capacity.upper_rps) == (2.0, 4.0)


def test_limits_count_and_those_on_the_rate_itself_do_not(tmp_path: Path) -> None:
    """Tokens per second grow with the rate: no rate fails them for being low."""
    found = candidate(tmp_path, slo=NO_SLO, limits=["ttft_ms p50 <= 500", "output_tokens_per_s >= 100000"])
    assert [one.text for one in found.points[0].requirements] == ["ttft_ms p50 <= 500"]
    assert found.capacity is not None
    assert (found.capacity.lower_rps, found.capacity.binding) == (4.0, "ttft_ms p50 <= 500")


def test_a_limit_on_attainment_replaces_the_assumed_share(tmp_path: Path) -> None:
    """It is stated once."""
    found = candidate(tmp_path, limits=["attainment >= 90%"])
    assert [one.text for one in found.points[0].requirements] == ["attainment >= 90%"]


def test_a_rate_that_was_not_run_to_its_end_says_nothing(tmp_path: Path) -> None:
    """Its reason stands in the place of a number."""
    found = candidate(tmp_path, status="failed", reason="the server ended")
    assert found.capacity is None
    assert {one.tested().holds for one in found.points} == {Holds.UNKNOWN}
    assert found.points[0].tested().binding == "the server ended"


def test_a_load_generator_that_was_late_says_nothing(tmp_path: Path) -> None:
    """Neither that a rate holds nor that it fails."""
    found = candidate(tmp_path, {4.0: 300.0}, lag_ms=150.0)
    assert "late" in found.points[0].why_unknown
    assert (found.points[0].tested().holds, found.capacity) == (Holds.UNKNOWN, None)


def test_evenly_spaced_arrivals_are_a_caveat(tmp_path: Path) -> None:
    """Real ones come in bursts."""
    loads = [{"kind": "sustained", "arrivals": "constant"} for _ in RATES]
    found = candidate(tmp_path, scenario={"load": loads})
    assert any("evenly spaced" in one for one in found.points[0].caveats)
    stored_run(tmp_path / "other", {"f16": RATES}, scenario={"load": [{"kind": "sustained"}]})
    (other,) = read_candidates(str(tmp_path / "other"), 0.95, "g5.xlarge")
    assert not any("evenly spaced" in one for one in other.points[0].caveats)


def test_each_configuration_is_a_candidate(tmp_path: Path) -> None:
    """With its own rates."""
    stored_run(tmp_path / "run", {"f16": RATES, "q4_k_m": {4.0: 200.0}})
    found = read_candidates(str(tmp_path / "run"), 0.95, "g5.xlarge")
    assert [(one.keys[2], len(one.points)) for one in found] == [("f16", 3), ("q4_k_m", 1)]


def test_the_command_that_measures_more_is_one(tmp_path: Path) -> None:
    """The scenario with its changes can be read."""
    scenario = tmp_path / "chat.yaml"
    scenario.write_text(
        "{engines: [{engine: simulated}], load: [{kind: single_user, requests: 1}], slo: {ttft: 500ms}}"
    )
    found = candidate(tmp_path)
    assert found.capacity is not None
    ((_, command),) = finer(found, found.capacity)
    words = shlex.split(command)
    assert words[:3] == ["harness", "run", "chat.yaml"]
    changed = load(scenario, sets=[words[4]])
    assert [one.rate for one in changed.load] == [5.33, 6.67]  # type: ignore[union-attr]


def test_a_run_without_its_machine_is_refused(tmp_path: Path) -> None:
    """Its price would be anybody's."""
    stored_run(tmp_path / "run", {"f16": RATES})
    with pytest.raises(UsageError, match="does not say which machine it ran on; add `--instance NAME`"):
        read_candidates(str(tmp_path / "run"), 0.95, None)


def test_a_run_without_results_says_why(tmp_path: Path) -> None:
    """Its records are gone: it has an SLO, and nothing that it could be held against."""
    stored_run(tmp_path / "run", {"f16": RATES})
    for file in (tmp_path / "run").rglob("records.parquet"):
        file.unlink()
    with pytest.raises(UsageError, match=r"has no results at a rate: .*; measure again"):
        read_candidates(str(tmp_path / "run"), 0.95, "g5.xlarge")


def test_rates_of_several_lengths_are_no_capacity(tmp_path: Path) -> None:
    """Which requests the plan would be for, nobody says."""
    folder = tmp_path / "run"
    stored_run(folder, {"f16": RATES})
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    for trial, tokens in zip(manifest["cells"][0]["trials"], (128, 128, 512), strict=True):
        trial |= {"prompt_tokens": tokens, "workload": {"prompt_tokens": {"dist": "fixed", "value": tokens}}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(UsageError, match="several lengths of requests: prompt 128 and prompt 512; a plan needs one"):
        read_candidates(str(folder), 0.95, "g5.xlarge")


def test_it_is_the_same_whether_the_load_or_the_workload_has_the_lengths(tmp_path: Path) -> None:
    """Plans of both can be ranked beside each other."""
    own = {"prompt_tokens": {"dist": "fixed", "value": 512}}
    found = [
        candidate(tmp_path / "load", prompt_tokens=512, workload=own),
        candidate(tmp_path / "workload", scenario={"workload": own | {"output_tokens": 64}}),
    ]
    check_alike(found)
