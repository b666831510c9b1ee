"""Which starts of a pair a gate measures, and together with which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.comparison.gate import Arm, Gate, Look, Place, conduct, measure_pair, run_folder
from harness.comparison.rounds import BASE, HEAD, rounds
from harness.errors import TrialFailed
from harness.scenario.compare import Pairs
from harness.store.run import MANIFEST
from tests.fabricated import S

PAIR = next(rounds(4, seed=1))


def gate(*, alternate: bool) -> Gate:
    """A gate of four pairs."""
    return Gate(Arm("old", {}), Arm("new", {}), 1, Pairs(4, 4), alternate=alternate)


def store(place: Path, seconds: int = 0) -> None:
    """A complete run of a cell that took so long; without cells for no time."""
    trial = {"path": "cells/000/000", "ended_ns": seconds * S}
    cells = [{"id": "000", "start": {"began_ns": 0}, "trials": [trial]}] if seconds else []
    place.mkdir(parents=True)
    (place / MANIFEST).write_text(json.dumps({"format": 1, "status": "complete", "name": "t", "cells": cells}))


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


@pytest.mark.parametrize(
    ("budget_s", "alternate", "pairs"), [(500.0, False, 4), (1000.0, False, 8), (300.0, True, 4), (400.0, True, 8)]
)
def test_the_time_of_stored_pairs_counts_to_the_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget_s: float, alternate: bool, pairs: int
) -> None:
    """Four pairs of 60 s a start are there: a gate that goes on has what is left, not all of its budget again."""
    nothing: Any = None

    def look(gate: Gate, read: Any, pairs: int, *, spent: bool, **_: Any) -> Look:
        return Look(nothing, pairs, "the budget is spent" if spent else "")

    def measure(places: Sequence[Place]) -> None:
        for place in places:
            store(place.folder)

    monkeypatch.setattr("harness.comparison.gate._look", look)
    monkeypatch.setattr("harness.comparison.gate._check_first", lambda *_: None)
    for pair in range(1, 5):
        for side in (BASE, HEAD):
            store(run_folder(tmp_path, pair, side), 60)
    plan = replace(gate(alternate=alternate), pairs=Pairs(4, 8), budget_s=budget_s)
    assert conduct(plan, tmp_path, measure, lambda _: None).pairs == pairs
