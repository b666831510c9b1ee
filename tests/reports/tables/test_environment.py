"""What must be known to repeat a run: nothing of it lost, nothing of it told twice."""

from __future__ import annotations

from typing import Any

from harness.store.manifest import METHOD, Manifest
from reports.data import ReportData
from reports.tables import environment
from tests.fabricated import cell_entry
from tests.reports.conftest import manifest


def run_of(*infos: dict[str, Any]) -> ReportData:
    """A run whose cells have engines that say this of themselves."""
    cells = [cell_entry(id=f"00{number}", engine_info=info, trials=[]) for number, info in enumerate(infos)]
    return ReportData("run", manifest(cells), summary=None)  # type: ignore[arg-type]


def groups(data: ReportData) -> dict[str, dict[str, str]]:
    """By title; those of the run itself together."""
    found: dict[str, dict[str, str]] = {}
    for group in environment.groups(data):
        found.setdefault(group.title, {}).update(group.lines)
    return found


def test_numbers_of_another_method_are_said_to_be_derived_again() -> None:
    """Runs before the key have the first method; of a run of this one there is nothing to say."""
    old = Manifest.model_validate(manifest([]).stored() | {"method": 1})
    words = f"numbers derived again from the records by method {METHOD}; the run was made with method 1"
    assert groups(ReportData("run", old, summary=None))[""]["method"] == words  # type: ignore[arg-type]
    assert "method" not in groups(run_of())[""]


def test_what_engines_share_is_told_once() -> None:
    """And of each what is its own; process ids mean nothing later."""
    shared = {"version": "1.2", "options": {"n_ctx": 1024, "mmap": True}}
    found = groups(run_of(shared | {"level": "f16", "pids": [1]}, shared | {"level": "q4", "pids": [2]}))
    shared_lines = found["engine of every configuration"]
    assert shared_lines == {"version": "1.2", "options, n_ctx": "1024", "options, mmap": "True"}
    assert found["engine of 000"] == {"level": "f16"}
    assert found["engine of 001"] == {"level": "q4"}


def test_one_engine_is_named() -> None:
    """There is nothing to share; cells that never started say nothing."""
    found = groups(run_of({"version": "1.2"}, {}))
    assert found["engine of 000"] == {"version": "1.2"}
    assert "engine of every configuration" not in found


def test_bytes_can_be_read_and_compared() -> None:
    """With a unit, and exact."""
    told = {"weight_bytes": 3_428_608, "kv_bytes": 12, "kv_bytes_per_token": 2048.0, "memory": {"runtime": 8_409_580}}
    assert groups(run_of(told))["engine of 000"] == {
        "weight_bytes": "3.27\u202fMiB (3428608 bytes)",
        "kv_bytes": "12 bytes",
        "kv_bytes_per_token": "2.00\u202fKiB (2048 bytes)",
        "memory, runtime": "8.02\u202fMiB (8409580 bytes)",
    }


def test_the_run_comes_first(full: ReportData) -> None:
    """The command that repeats it, its seed, then the machine, and each plan with its hash and who sent it."""
    lines = environment.of_run(full)
    assert lines[0] == ("command", "harness run choose.yaml")
    assert ("seed", "1") in lines
    assert ("machine (must match), cpu", "Example 9000") in lines
    plans = [value for name, value in lines if name.startswith("trials, 000") and name.endswith(" schedule")]
    assert plans
    assert all(value.endswith("(seed 7)") for value in plans)
    assert lines[-1] == ("note", "GPU not read: no driver")
