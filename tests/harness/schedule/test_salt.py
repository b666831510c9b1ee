"""Prompts of servers that stay up: each attempt at a cell of a run has others, so that no cache knows them."""

from __future__ import annotations

from pathlib import Path

from harness.run.run import salt_of
from harness.scenario.reader import load
from harness.schedule.cells import Cell
from harness.schedule.matrix import expand
from harness.store.manifest import CellEntry, Manifest
from harness.store.run import RunWriter

ENGINES = "engines: [{engine: http, url: 'http://127.0.0.1:1'}, {engine: simulated}]\n"


def cells(folder: Path) -> list[Cell]:
    """Return a cell of a running server and a cell of a started engine."""
    file = folder / "s.yaml"
    file.write_text(ENGINES + "load: [{kind: single_user, requests: 3}]\n", encoding="utf-8")
    found = [cell for cell in expand(load(file, env={})) if isinstance(cell, Cell)]
    assert len(found) == 2
    return found


def writer(folder: Path, name: str, created: str = "2026-01-02T03:04:05Z") -> RunWriter:
    """Return the writer of a run."""
    return RunWriter(folder / name, Manifest(name="s", created_utc=created, cells=[]))


def test_only_servers_that_stay_up_know_other_runs(tmp_path: Path) -> None:
    """An engine that is started for a cell has an empty cache."""
    assert [cell.stays_up for cell in cells(tmp_path)] == [True, False]


def test_every_attempt_at_every_cell_of_every_run_has_its_own_salt(tmp_path: Path) -> None:
    """And the same again in whichever process asks; a run that another of the same name replaced is another."""
    one, other = cells(tmp_path)
    first, second = writer(tmp_path, "1"), writer(tmp_path, "2")
    later = writer(tmp_path / "there", "1", "2026-01-02T03:04:06Z")
    salts = [
        salt_of(first, one, CellEntry()),
        salt_of(first, one, CellEntry(attempt=2)),
        salt_of(first, other, CellEntry()),
        salt_of(second, one, CellEntry()),
        salt_of(later, one, CellEntry()),
    ]
    assert len(set(salts)) == len(salts)
    assert salt_of(first, one, CellEntry()) == salt_of(first, one, CellEntry(attempt=1)) == salts[0]
    assert all(0 < salt < 2**56 for salt in salts)
