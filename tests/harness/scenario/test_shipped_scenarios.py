"""The scenario files that come with the harness."""

from __future__ import annotations

from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

from harness.errors import UsageError
from harness.scenario.engine_problems import level_problems
from harness.scenario.reader import load
from harness.scenario.reference import json_schema
from harness.scenario.templates import EDITOR_LINE, init_template, list_scenarios, shipped_path
from harness.schedule.cells import Cell, Skip
from harness.schedule.estimate import estimate, over_budget
from harness.schedule.matrix import expand
from harness.verdict.forecast import foretold_of

NAMES = sorted(list_scenarios())


def test_the_shipped_scenarios_are_these() -> None:
    """Each with a description for `harness list`."""
    assert NAMES == [
        "batching_and_cache", "burst", "capacity", "cold_start", "conversations", "deployment_settings",
        "engines", "hardware_comparison", "load_test", "memory_levels", "mixed", "nightly",
        "phases", "production_workload", "quantization_sweep", "quickstart", "saturation", "serving_dimensions",
        "single_user", "sustained", "targets",
    ]  # fmt: skip
    assert all(list_scenarios().values())


@pytest.mark.parametrize("name", NAMES)
def test_each_loads_expands_and_ends_within_minutes(name: str) -> None:
    """Something is always run, whatever is installed, and open loads are sized for a small machine."""
    planned = expand(load(shipped_path(name), env={}))
    cells = [cell for cell in planned if isinstance(cell, Cell)]
    assert cells
    assert {cell.engine for cell in cells} >= {"simulated" if name == "saturation" else "llama-server"}
    assert all("is not installed" in cell.reason for cell in planned if isinstance(cell, Skip))
    models = len({cell.model for cell in cells})
    assert estimate(planned).time_s.low <= 180 * (1 if models == 1 else 6)
    assert estimate(planned).requests.low <= 1_400 * (1 if models == 1 else 2)


@pytest.mark.parametrize("name", NAMES)
def test_each_validates_without_a_word(name: str) -> None:
    """No quantile of a limit needs more requests than its loads send, no level is missing, no budget too small."""
    scenario = load(shipped_path(name), env={})
    assert [*foretold_of(scenario), *level_problems(scenario)] == []
    assert over_budget(scenario, estimate(expand(scenario))) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_fits_the_schema_and_names_it_for_editors(name: str) -> None:
    """An editor that knows the schema shows no complaints."""
    text = shipped_path(name).read_text(encoding="utf-8")
    assert text.startswith(EDITOR_LINE)
    jsonschema.Draft202012Validator(json_schema()).validate(YAML(typ="safe").load(text))


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_template_that_stands_alone(name: str, tmp_path: Path) -> None:
    """A copy works in any folder."""
    copy = tmp_path / "mine.yaml"
    copy.write_text(init_template(name), encoding="utf-8")
    assert "schema.json" not in copy.read_text(encoding="utf-8")
    assert load(copy, env={}).load == load(shipped_path(name), env={}).load


@pytest.mark.parametrize("name", NAMES)
def test_each_can_measure_another_server_by_its_engine_block_alone(name: str, tmp_path: Path) -> None:
    """As their comments promise."""
    copy = tmp_path / "mine.yaml"
    copy.write_text(init_template(name), encoding="utf-8")
    scenario = load(copy, sets=["engines=[{engine: http, url: http://127.0.0.1:8000}]"], env={})
    assert {type(cell) for cell in expand(scenario)} == {Cell}


def test_quickstart_takes_about_two_minutes() -> None:
    """Two cells whose open load takes 43 seconds each, and some short requests."""
    found = estimate(expand(load(shipped_path("quickstart"), env={})))
    assert (found.cells, found.trials, found.time_s.low) == (2, 4, 86)
    assert found.likely_requests == pytest.approx(2 * (400 + 6 * 43), rel=0.05)


def test_an_unknown_template_names_the_nearest() -> None:
    """A typing error leads to the nearest name."""
    with pytest.raises(UsageError, match=r"unknown shipped scenario 'quikstart'; did you mean `quickstart`\?"):
        init_template("quikstart")
