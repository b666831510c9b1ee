"""The export in llm-d's form: one report for each load, with what the form requires and nothing unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import reports
from harness.comparison.foreign.reading import read_foreign
from reports.data import ReportData
from reports.writers import benchmark_report
from tests.fabricated import again

UNITS = {
    "time_to_first_token": "ms",
    "request_latency": "ms",
    "time_per_output_token": "ms/token",
    "inter_token_latency": "ms/token",
    "normalized_time_per_output_token": "ms/token",
    "input_token_rate": "tokens/s",
    "output_token_rate": "tokens/s",
    "request_rate": "queries/s",
}
"""Names of the form with the units that it allows, of version 0.2.1."""


def value_of(data: ReportData, load: str, metric: str, statistic: str) -> float:
    """A number of the summary."""
    rows = data.summary
    own = (rows["load"] == load) & (rows["class"] == "all") & (rows["repetition"] == "pooled")
    found = rows[own & (rows["metric"] == metric) & (rows["statistic"] == statistic)]["value"]
    return float(found.iloc[0])


def aggregate(report: dict[str, Any]) -> Any:
    """The numbers of a report."""
    return report["results"]["request_performance"]["aggregate"]


def test_each_load_is_a_report_with_the_numbers_of_the_summary(sweep: ReportData) -> None:
    """Four rates: TTFT and E2E as ours, TPOT as TPOT."""
    found = benchmark_report.reports(sweep)
    assert len(found) == 4
    assert len({one["run"]["uid"] for one in found}) == 4
    assert len({one["run"]["eid"] for one in found}) == 1
    for rate, report in zip((1, 2, 4, 8), found, strict=True):
        load, numbers = f"sustained-rate-{rate}", aggregate(report)
        for name, metric in (
            ("time_to_first_token", "ttft_ms"),
            ("request_latency", "e2e_ms"),
            ("time_per_output_token", "tpot_ms"),
        ):
            for statistic in ("mean", "p50", "p95"):
                assert numbers["latency"][name][statistic] == value_of(sweep, load, metric, statistic)
        rate_done = numbers["throughput"]["request_rate"]["mean"]
        assert rate_done == value_of(sweep, load, "completed_rps", "value")
        assert numbers["requests"]["total"] == 60 * rate


def test_failures_are_counted_and_poor_data_is_said(full: ReportData) -> None:
    """One of both levels lost its server: a fifth of its requests failed."""
    found = benchmark_report.reports(full)
    failures = [aggregate(one)["requests"]["failures"] for one in found]
    assert sorted(failures)[-2:] == [0, 120]
    bad = found[failures.index(120)]
    assert "validity: " in bad["run"]["description"]


@pytest.mark.parametrize("fixture", ["full", "sweep", "hostile"])
def test_every_report_has_what_the_form_requires(fixture: str, request: pytest.FixtureRequest) -> None:
    """Checked by hand against the schema of 0.2.1: keys, units, a mean everywhere, no unknown number."""
    for one in benchmark_report.reports(request.getfixturevalue(fixture)):
        assert set(one) == {"version", "run", "scenario", "results"}
        assert set(one["run"]) <= {"uid", "eid", "description", "keywords", "time"}
        assert set(one["scenario"]) <= {"stack", "load"}
        for component in one["scenario"]["stack"]:
            assert set(component) == {"metadata", "standardized", "native"}
            assert {"schema_version", "label", "cfg_id"} == set(component["metadata"])
            assert component["standardized"]["kind"] == "generic"
            assert isinstance(component["standardized"]["tool_version"], str)
        numbers = aggregate(one)
        assert set(numbers) <= {"requests", "latency", "throughput"}
        for name, statistics in {**numbers.get("latency", {}), **numbers.get("throughput", {})}.items():
            assert statistics["units"] == UNITS[name]
            assert isinstance(statistics["mean"], float)
        json.dumps(one, allow_nan=False)


@pytest.mark.parametrize("fixture", ["full", "sweep", "hostile"])
def test_the_package_of_the_form_accepts_every_report(fixture: str, request: pytest.FixtureRequest) -> None:
    """By its own model, where it is installed."""
    core = pytest.importorskip("llmd_benchmark_report.core", reason="needs llmd-benchmark-report 0.2.1")
    for one in benchmark_report.reports(request.getfixturevalue(fixture)):
        assert core.load_benchmark_report(one).version == "0.2.1"


def test_several_reports_are_files_with_a_number(sweep: ReportData, tmp_path: Path) -> None:
    """And each can be read again as a result."""
    reports.export(sweep, "benchmark-report", tmp_path / "br.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"br_{number}.json" for number in range(4)]
    found = read_foreign(tmp_path / "br_2.json")
    assert found.tool == "llm-d benchmark_report of harness"
    value = found.loads[0].values["ttft_ms", "p50"]
    assert value == value_of(sweep, "sustained-rate-4", "ttft_ms", "p50")


@pytest.mark.parametrize(("own", "config"), [(None, {"kind": "sustained", "rate": 4}), ([{"kind": "single_user"}], {})])
def test_a_load_of_an_engine_is_not_told_as_another(
    single: ReportData, own: list[dict[str, Any]] | None, config: dict[str, Any]
) -> None:
    """Engines may have loads of their own, whose numbers begin at 0 again."""
    scenario = {
        "workload": {"prompt_tokens": {"dist": "fixed", "value": 128}},
        "load": [{"kind": "sustained", "rate": 4}],
        "engines": [{"engine": "simulated", "load": own}],
    }
    (found,) = benchmark_report.reports(replace(single, manifest=again(single.manifest, scenario=scenario)))
    assert found["scenario"]["load"]["native"]["config"] == config
