"""Baselines on disk: several writers at once, clocks that are behind, copies that fail."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.comparison.baseline import keep
from harness.errors import RunUnreadable, StorageFailed, UsageError
from harness.store import baselines
from harness.store.run import MANIFEST, Run, find_run

OLD = Path(__file__).parents[2] / "data" / "runs" / "v1" / "quick"
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def marked(text: str) -> object:
    """A copy of a run that has one file with this text."""

    def fill(folder: Path) -> None:
        (folder / MANIFEST).write_text(text)

    return fill


def add(folder: Path, text: str, at: datetime = NOON, name: str = "main") -> baselines.Kept:
    """A baseline that consists of a text."""
    return baselines.add(name, "run", folder, marked(text), now=at)  # type: ignore[arg-type]


def test_no_writer_loses_a_baseline(tmp_path: Path) -> None:
    """Thirty-two at the same instant, while older ones are removed: each is there, whole."""
    other = [add(tmp_path, "other", name="main") for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(add, tmp_path, str(number)) for number in range(32)]
        removed = [pool.submit(baselines.remove, [one]) for one in other]
    for one in removed:
        one.result()
    kept = baselines.history("main", tmp_path)
    assert {one.path for one in kept} == {one.result().path for one in made}
    assert sorted(int((one.path / MANIFEST).read_text()) for one in kept) == list(range(32))
    assert not [path for path in (tmp_path / "main").iterdir() if path.name[0] == "."]


def test_the_last_one_set_is_the_baseline_by_any_clock(tmp_path: Path) -> None:
    """A machine whose clock is an hour behind sets it after another; the one before is there as NAME~1."""
    first, second = add(tmp_path, "first"), add(tmp_path, "second", NOON - timedelta(hours=1))
    assert baselines.find("main", tmp_path) == second
    assert baselines.find("main~1", tmp_path).path == first.path
    assert baselines.find(first.reference, tmp_path).path == first.path


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The baseline is the one before."""

    def fails(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("no space")

    before = add(tmp_path, "whole")
    with pytest.raises(OSError, match="no space"):
        baselines.add("main", "run", tmp_path, fails)
    assert [*(tmp_path / "main").iterdir()] == [before.path]


@pytest.mark.parametrize(
    ("mark", "why"),
    [("{", "cannot be read"), ('{"format": 99}', "newer version of harness"), ('{"format": 1}', "cannot be read")],
)
def test_a_damaged_baseline_is_a_sentence_and_not_an_older_one(tmp_path: Path, mark: str, why: str) -> None:
    """Nobody is compared with a run that they did not mean. It can be set again, or removed by its name."""
    old, newest = add(tmp_path, "old"), add(tmp_path, "new", NOON + timedelta(days=1))
    (newest.path / baselines.MARK).write_text(mark)
    with pytest.raises(RunUnreadable, match=f"{why}.*harness baseline rm {newest.reference}"):
        baselines.find("main", tmp_path)
    assert baselines.find("main~1", tmp_path).path == old.path
    again = add(tmp_path, "again", NOON + timedelta(days=2))
    assert baselines.find("main", tmp_path).path == again.path
    baselines.remove([baselines.named(newest.reference, tmp_path), again])
    assert baselines.find("main", tmp_path).path == old.path


def test_a_folder_of_others_is_no_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs may be called `baselines` too: names of runs are found as without it."""
    monkeypatch.chdir(tmp_path)
    Path("baselines/base/theirs").mkdir(parents=True)
    run = Path("runs/20261130T120000Z-base")
    run.mkdir(parents=True)
    (run / MANIFEST).write_text("{}")
    assert find_run("base") == run
    assert baselines.names(Path("baselines")) == []
    with pytest.raises(UsageError, match="there is no run 'baselines/base'"):
        find_run("baselines/base")


@pytest.mark.parametrize("name", ["", ".", "..", "latest", "feature/x", "a b", "-x", "x" * 65, "a=b", "main~1", "../x"])
def test_names_that_would_be_something_else_are_refused(name: str) -> None:
    """With one to write instead."""
    with pytest.raises(UsageError, match="such as"):
        baselines.check_name(name)


@given(st.text(max_size=80))
def test_a_name_that_is_accepted_stays_in_the_folder(name: str) -> None:
    """And is no other reference to a run."""
    try:
        baselines.check_name(name)
    except UsageError:
        return
    assert Path("b", name).parts == ("b", name)
    assert not {*name} & {*"/\\=~: "}
    assert name[0] not in ".-"


def test_a_run_of_the_oldest_format_is_kept_byte_for_byte(tmp_path: Path) -> None:
    """Format 1, with what a comparison reads and without reports, and the run does not change."""
    before = {path: path.read_bytes() for path in OLD.rglob("*") if path.is_file()}
    kept = keep("old", OLD, tmp_path)
    copied = {path.relative_to(kept.path): path.read_bytes() for path in kept.path.rglob("*") if path.is_file()}
    mark = json.loads(copied.pop(Path(baselines.MARK)))
    assert mark["run"] == "quick"
    assert all(before[OLD / path] == content for path, content in copied.items())
    assert {path.name for path in copied} == {MANIFEST, "records.parquet", "samples.parquet"}
    run, copy = Run.open(OLD), Run.open(kept.path)
    for one, other in zip(run.trials(), copy.trials(), strict=True):
        assert one.records().equals(other.records())
        assert one.samples().equals(other.samples())
    assert {path: path.read_bytes() for path in OLD.rglob("*") if path.is_file()} == before


def test_a_run_that_is_not_over_or_measured_nothing_is_no_baseline(tmp_path: Path) -> None:
    """A sentence with the command that goes on; a manifest that leads out of its folder is damaged."""
    stored = json.loads((OLD / MANIFEST).read_text())
    run = tmp_path / "run"
    run.mkdir()
    for change, error, sentence in (
        ({"status": "running"}, UsageError, "harness run --resume"),
        ({"status": "complete"}, UsageError, "measured nothing"),
        ({"cells": [{"id": "c", "trials": [{"id": "t", "path": "../../x"}]}]}, RunUnreadable, "cannot be read"),
    ):
        (run / MANIFEST).write_text(json.dumps(stored | change))
        with pytest.raises(error, match=sentence):
            keep("main", run, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    """Here a file stands in its place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="choose another folder of baselines with --dir"):
        keep("main", OLD, tmp_path / "file")


def test_runs_and_baselines_are_found_by_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain name is a baseline if no run has it; both is a question; the folder of a name is its newest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(baselines.ENVIRONMENT, raising=False)
    first, second = (add(Path("baselines"), "{}", NOON + timedelta(hours=hours)) for hours in (0, 1))
    assert find_run("baseline:main") == find_run("main") == find_run("baselines/main") == second.path
    assert find_run("baseline:main~1") == find_run(f"baseline:{first.reference}") == first.path
    run = Path("runs/20261130T120000Z-main")
    run.mkdir(parents=True)
    (run / MANIFEST).write_text("{}")
    with pytest.raises(UsageError, match="is a run and a baseline: write runs/20261130T120000Z-main or baseline:main"):
        find_run("main")
    with pytest.raises(UsageError, match="there is no baseline 'mian'; baselines/ has main"):
        find_run("baseline:mian")
    with pytest.raises(UsageError, match="main~2: main has 2 runs"):
        find_run("baseline:main~2")
    monkeypatch.setenv(baselines.ENVIRONMENT, str(tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match="none yet; make one with `harness baseline set NAME latest`"):
        find_run("baseline:main")
