"""Which starts of a pair a gate measures, and together with which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.comparison.gate import Arm, Gate, Place, measure_pair, run_folder
from harness.comparison.rounds import BASE, HEAD, rounds
from harness.errors import TrialFailed
from harness.scenario.compare import Pairs
from harness.store.manifest import Manifest
from harness.store.run import MANIFEST

PAIR = next(rounds(4, seed=1))


def gate(*, alternate: bool) -> Gate:
    """A gate of four pairs."""
    return Gate(Arm("old", {}), Arm("new", {}), 1, Pairs(4, 4), alternate=alternate)


def store(place: Path, status: str = "complete") -> None:
    """A run without cells."""
    place.mkdir(parents=True)
    (place / MANIFEST).write_text(Manifest(format=1, status=status, name="t", cells=[]).model_dump_json())


def measured(folder: Path, *, alternate: bool) -> list[list[str]]:
    """The names of the arms that were measured, those at the same time together."""
    made: list[list[str]] = []

    def measure(places: Sequence[Place]) -> None:
        made.append([place.arm.name for place in places])
        for place in places:
            if not place.folder.exists():
                store(place.folder)

    count = measure_pair(gate(alternate=alternate), folder, PAIR, measure)
    assert count == sum(map(len, made))
    return made


def test_starts_are_measured_one_by_one_or_both_at_once(tmp_path: Path) -> None:
    """In the order of the pair."""
    names = [{BASE: "old", HEAD: "new"}[start.side] for start in PAIR]
    assert measured(tmp_path / "a", alternate=False) == [[name] for name in names]
    assert measured(tmp_path / "b", alternate=True) == [names]


def test_a_pair_that_lacks_a_side_is_made_again_as_a_whole(tmp_path: Path) -> None:
    """A side that was measured alone took no turns; without turns it is kept."""
    for name, alternate, lacking in (("a", False, [["new"]]), ("b", True, [[one.side for one in PAIR]])):
        store(run_folder(tmp_path / name, 1, BASE))
        made = measured(tmp_path / name, alternate=alternate)
        assert [len(one) for one in made] == [len(one) for one in lacking]
    assert measured(tmp_path / "b", alternate=True) == []


def test_a_start_that_measured_nothing_is_named(tmp_path: Path) -> None:
    """With the folder of its run."""
    with pytest.raises(TrialFailed, match=r"pair 1, .*: nothing was measured; see "):
        measure_pair(gate(alternate=True), tmp_path, PAIR, lambda places: None)


def test_a_stored_gate_knows_whether_it_alternates(tmp_path: Path) -> None:
    """One of an older version does not."""
    gate(alternate=True).save(tmp_path)
    assert Gate.read(tmp_path) == gate(alternate=True)
    text = (tmp_path / "gate.json").read_text()
    (tmp_path / "gate.json").write_text(text.replace('"alternate": true', '"older": true').replace(": 2,", ": 1,", 1))
    assert not Gate.read(tmp_path).alternate
