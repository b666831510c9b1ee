"""Tolerance and columns: what a scenario may write, and what is stored of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import ScenarioError
from harness.scenario.columns import GROUPS, parse_column
from harness.scenario.model import Scenario
from harness.scenario.reader import load, restore
from harness.store.manifest import Manifest

LEAST: dict[str, Any] = {"engines": [{"engine": "simulated"}], "load": [{"kind": "single_user", "requests": 1}]}


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        *((name, name) for name in GROUPS),
        ("TTFT", "ttft"),
        ("ttft p99", "ttft_ms p99"),
        ("ttft_ms  p99", "ttft_ms p99"),
        ("e2e_ms", "e2e_ms"),
        ("goodput_rps", "goodput_rps"),
        ("norm_latency_ms mean", "norm_latency_ms mean"),
    ],
)
def test_a_column_is_a_group_or_a_metric_with_a_statistic(text: str, stored: str) -> None:
    """One spelling is stored."""
    assert parse_column(text) == parse_column(stored) == stored


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ("[ttf]", "columns.0: there is no column `ttf`; did you mean `ttft`?"),
        ("[slo, good put]", "columns.1: there is no column `good`; did you mean `goodput`?"),
        (
            "[xyz]",
            "energy, cost, startup, or a metric of docs/metrics.md",
        ),
        ("[goodput_rps p95]", "columns.0: `goodput_rps` has a single value; write `goodput_rps`"),
        (
            "ttft_ms p96",
            "columns: the table has no statistic `p96`; write one of p50, p90, p95, p99, max, mean, min",
        ),
        ("[]", "columns: must not be empty"),
    ],
)
def test_a_wrong_column_leads_to_the_right_one(tmp_path: Path, columns: str, sentence: str) -> None:
    """With its place in the list."""
    path = tmp_path / "s.yaml"
    path.write_text(
        f"engines: [{{engine: simulated}}]\nload: [{{kind: single_user, requests: 1}}]\ncolumns: {columns}\n"
    )
    with pytest.raises(ScenarioError) as refusal:
        load(path)
    assert str(refusal.value).endswith(sentence)


@pytest.mark.parametrize(
    ("tolerance", "sentence"),
    [
        ("0.1%", "must be from 0.5% to 50%, found 0.1%"),
        ("60%", "must be from 0.5% to 50%, found 60%"),
        (0.05, "0.05 has no unit; write `5%` or `0.05%`"),
        (5, "5 has no unit; write `5%`"),
    ],
)
def test_a_tolerance_is_a_percentage_between_a_half_and_fifty(tolerance: object, sentence: str) -> None:
    """The sentence says what to write."""
    with pytest.raises(ValueError, match="tolerance") as refusal:
        Scenario.model_validate(LEAST | {"tolerance": tolerance})
    assert sentence in str(refusal.value)


def test_both_are_stored_and_read_again() -> None:
    """Readers of a manifest get a share and a list, or None."""
    scenario = Scenario.model_validate(LEAST | {"tolerance": "2.5%", "columns": "ttft"})
    resolved = scenario.resolved()
    assert (resolved["tolerance"], resolved["columns"]) == ("2.5%", ["ttft"])
    assert restore(resolved, scenario.source) == scenario
    keys = Manifest(scenario=resolved).scenario_keys
    assert (keys.tolerance, keys.columns) == (0.025, ["ttft"])
    without = Manifest(scenario=Scenario.model_validate(LEAST).resolved()).scenario_keys
    assert (without.tolerance, without.columns) == (None, None)
