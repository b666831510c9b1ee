"""What a stored run lacks, told from its manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli.progress import SilentWatcher
from harness.errors import TrialFailed, UsageError
from harness.run.entries import first_manifest
from harness.run.resume import what_is_left
from harness.run.run import go_on
from harness.run.unrecorded import Incomplete, written
from harness.scenario.model import Scenario
from harness.scenario.reader import restore
from harness.schedule.cells import Cell
from harness.schedule.matrix import expand
from harness.store.run import RunWriter

TREE: dict[str, Any] = {
    "engines": [{"engine": "simulated", "quantization": ["q8_0", "q4_0"]}],
    "load": [{"kind": "single_user", "requests": 1}],
    "quality": {},
}


@pytest.mark.parametrize("with_loads", [True, False])
def test_cells_that_were_skipped_get_the_loads_they_were_to_have(tmp_path: Path, with_loads: bool) -> None:
    """Also where every cell was skipped; and none, if the run was begun for its quality alone."""
    scenario = restore(TREE, Path("x.yaml"))
    cells = [one for one in expand(scenario) if isinstance(one, Cell)]
    planned = cells if with_loads else [replace(one, trials=()) for one in cells]
    writer = RunWriter(tmp_path / "run", first_manifest(scenario, planned, "harness"))
    for entry in writer.manifest.cells:
        entry.status, entry.reason, entry.trials = "skipped", "too little memory", []
    writer.save()
    assert [len(cell.trials) for cell in what_is_left(tmp_path / "run").cells] == [int(with_loads)] * 2


def test_a_run_stopped_after_its_last_cell_is_complete(tmp_path: Path) -> None:
    """There is nothing left to be interrupted."""
    scenario = restore(TREE | {"quality": None}, Path("x.yaml"))
    writer = RunWriter(tmp_path / "run", first_manifest(scenario, [], "harness"))
    writer.manifest.status = "interrupted"
    writer.save()
    assert go_on(tmp_path / "run", SilentWatcher(), command="harness").manifest.status == "complete"


def test_another_text_is_not_scored_in_the_same_run(tmp_path: Path) -> None:
    """Figures on two texts would stand in one table."""
    text = tmp_path / "text.txt"
    text.write_text("It is a truth universally acknowledged")
    scenario = restore(TREE | {"quality": {"text": str(text)}}, Path("x.yaml"))
    RunWriter(tmp_path / "run", first_manifest(scenario, expand(scenario), "harness"))
    assert what_is_left(tmp_path / "run").cells
    text.write_text("Call me Ishmael")
    with pytest.raises(UsageError, match=r"text\.txt changed since this run was begun"):
        what_is_left(tmp_path / "run")


def test_a_search_that_was_killed_says_that_its_plan_is_not_known(tmp_path: Path) -> None:
    """Its rows were made while it ran: those in flight are named as missing, and not taken for none."""
    load = [{"kind": "saturate", "within": "3m"}]
    scenario = {"engines": [{"engine": "simulated"}], "load": load, "slo": {"ttft": "1s"}}
    resolved = Scenario.model_validate(scenario).resolved()
    with pytest.raises(TrialFailed, match="the plan of a search is made while it runs"):
        written(Incomplete(resolved, 0, 0, 0, str(tmp_path), -1, "killed"))
