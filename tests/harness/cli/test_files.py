"""Files that commands write beside a run: replaced as a whole, and never through a link."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.capacity.plain import as_data
from harness.capacity.ranking import rank
from harness.cli.commands import compare, plan
from tests.planned import candidate, terms


def _plan(folder: Path) -> None:
    plan.store(_data(), ["json"], folder)


def _manifest(folder: Path) -> None:
    plan._export(_data(), [folder / "hpa.yaml"])


def _comparison(folder: Path) -> None:
    compare.store(compare.Told({"a": 1}, ()), ["json"], folder)


def _data() -> dict[str, Any]:
    return as_data(rank([candidate()], terms())) | {"checks": [], "planner_errors": []}


@pytest.mark.parametrize(
    ("name", "write"), [("plan.json", _plan), ("hpa.yaml", _manifest), ("comparison.json", _comparison)]
)
def test_a_file_takes_the_place_of_a_link(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    """What the link leads to stays; nothing else is left in the folder."""
    other, folder = tmp_path / "other", tmp_path / "folder"
    folder.mkdir()
    other.write_text("kept")
    (folder / name).symlink_to(other)
    write(folder)
    assert other.read_text() == "kept"
    assert not (folder / name).is_symlink()
    assert [one.name for one in folder.iterdir()] == [name]
