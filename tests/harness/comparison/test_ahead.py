"""Runs derived in several processes before a comparison: kept as if each had been read alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.comparison import ahead, kept
from harness.comparison.ahead import LEAST_EACH, derive_ahead, lacking, processes_for
from harness.comparison.kept import FILE
from harness.comparison.sides import read_side
from tests.fabricated import noisy
from tests.stored import results_of

RUNS = 4


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Runs of which nothing is kept, nor remembered by this process; each has records of its own."""
    monkeypatch.setattr(kept, "_known", {})
    found = [tmp_path / f"run-{number}" for number in range(RUNS)]
    for number, path in enumerate(found):
        results_of(path, noisy(number, 60))
        (path / FILE).unlink(missing_ok=True)
    return found


def names(paths: list[Path]) -> list[str]:
    """As a user gives them."""
    return [str(path) for path in paths]


def test_each_run_is_kept_as_if_it_had_been_read_alone(runs: list[Path], tmp_path: Path) -> None:
    """Byte by byte; one that cannot be read stops no other, and keeps nothing."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    derive_ahead([broken, *runs], 2)
    assert not (broken / FILE).exists()
    for path in runs:
        shutil.copytree(path, alone := tmp_path / "alone" / path.name)
        (alone / FILE).unlink()
        kept._known.clear()
        read_side("alone", alone, pictures=False)
        assert (alone / FILE).read_bytes() == (path / FILE).read_bytes()


def test_pictures_change_no_number(runs: list[Path]) -> None:
    """Plot data and the choice between configurations are left out where nobody looks at them."""
    with_pictures = read_side("a", runs[0])
    assert with_pictures.times
    first = (runs[0] / FILE).read_bytes()
    (runs[0] / FILE).unlink()
    kept._known.clear()
    assert not read_side("a", runs[0], pictures=False).times
    assert (runs[0] / FILE).read_bytes() == first


def test_only_runs_of_which_nothing_serves_are_derived(runs: list[Path]) -> None:
    """What other code kept serves for none; what is no run is left to the reader."""
    assert lacking([*names(runs), "no-such-run"]) == runs
    read_side("a", runs[1], pictures=False)
    assert lacking(names(runs)) == [runs[0], *runs[2:]]
    (runs[1] / FILE).write_bytes(b"{}\n")
    kept._known.clear()
    assert lacking(names(runs)) == runs


def test_few_runs_are_not_worth_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one core; many cores are not all taken."""
    monkeypatch.setattr(ahead, "usable_cores", lambda: 64)
    assert [processes_for(n) for n in (2, 2 * LEAST_EACH - 1, 2 * LEAST_EACH, 10_000)] == [0, 0, 2, 16]
    monkeypatch.setattr(ahead, "usable_cores", lambda: 1)
    assert processes_for(10_000) == 0
