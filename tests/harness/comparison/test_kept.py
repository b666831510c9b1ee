"""What is kept of a run for comparisons: the same numbers as from its records, and never those of other records."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.comparison import kept
from harness.comparison.kept import FILE, _write, identity
from harness.comparison.sides import Side, read_side
from harness.store.run import Run
from tests.fabricated import noisy
from tests.stored import results_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored run of 100 requests."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    results_of(folder, noisy(1, 100))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, of which this process remembers nothing."""
    monkeypatch.setattr(kept, "_known", {})
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def numbers(side: Side) -> str:
    """All that a comparison takes of a side."""
    found = []
    for one in side.measurements:
        starts = [
            (
                start.cell.id,
                start.trial.plan_hash,
                start.values,
                [(name, of.requests.tolist(), of.values.tolist()) for name, of in start.requests.items()],
            )
            for start in one.starts
        ]
        found.append((one.keys, one.pooled, one.n, one.poor, starts))
    return repr(found)


def test_what_is_kept_is_what_the_records_say(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number by number, and request by request; the second reading derives nothing."""
    derived = read_side("a", run, pictures=False)
    assert (run / FILE).exists()
    monkeypatch.setattr(kept, "_known", {})
    monkeypatch.setattr("harness.comparison.sides.derive", None)  # it would fail
    assert numbers(read_side("a", run, pictures=False)) == numbers(derived)
    assert "ttft_ms" in numbers(derived)


def relabel(run: Path) -> None:
    """Another name, time and label."""
    stored = json.loads((run / "manifest.json").read_text())
    changed = {"name": "other", "created_utc": "2030-01-01T00:00:00+00:00", "labels": {"branch": "x"}}
    (run / "manifest.json").write_text(json.dumps(stored | changed))


def other_window(run: Path) -> None:
    """Another measurement window."""
    text = (run / "manifest.json").read_text()
    assert "60000000000" in text
    (run / "manifest.json").write_text(text.replace("60000000000", "50000000000"))


def other_records(run: Path) -> None:
    """Records of another run in the place of its own."""
    results_of(run.parent / "other", noisy(2, 100))
    (file,) = run.rglob("records.parquet")
    (other,) = (run.parent / "other").rglob("records.parquet")
    shutil.copy(other, file)


def no_records(run: Path) -> None:
    """Records that are gone."""
    next(run.rglob("records.parquet")).unlink()


@pytest.mark.parametrize(
    ("change", "same"), [(relabel, True), (other_window, False), (other_records, False), (no_records, False)]
)
def test_the_numbers_follow_from_records_and_plan_and_not_from_names(
    run: Path, change: Callable[[Path], None], same: bool
) -> None:
    """What another manifest or other records would say differently is not taken from what is kept."""
    before = identity(Run.open(run))
    change(run)
    assert (identity(Run.open(run)) == before) is same


def test_other_code_derives_anew(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A summary of an older definition is never taken for one of this."""
    before = identity(Run.open(run))
    monkeypatch.setattr(kept, "code", lambda: "another")
    assert identity(Run.open(run)) != before


def test_all_code_that_derives_is_in_the_hash() -> None:
    """Each package that the derivation imports: a change of its code is not passed over."""
    room = Path(kept.__file__).parents[1]
    files = [room / "results.py", *(file for name in ("analysis", "verdict") for file in (room / name).rglob("*.py"))]
    named = {name for file in files for name in re.findall(r"from harness\.(\w+)", file.read_text())}
    assert {name for name in named if (room / name).is_dir()} <= {*kept._CODE}


@pytest.mark.parametrize("content", [b"", b"{", b'{"key": 1}\n', b"[]\n", b"\xff\n\x00"])
def test_a_damaged_file_is_no_file(run: Path, content: bytes) -> None:
    """The numbers are derived, and kept again."""
    derived = numbers(read_side("a", run, pictures=False))
    whole = (run / FILE).read_bytes()
    for damaged in (content, whole[: len(whole) // 2], whole[:-8], whole.replace(b'"figures"', b'"figurez"')):
        kept._known.clear()
        (run / FILE).write_bytes(damaged)
        assert numbers(read_side("a", run, pictures=False)) == derived
        assert (run / FILE).read_bytes() == whole


def test_a_statistic_that_is_not_kept_is_derived(run: Path) -> None:
    """p99.9 is asked for by a margin only; so are the single observations of a metric that is rarely compared."""
    read_side("a", run, pictures=False)
    asked = read_side("a", run, [("ttft_ms", "p99.9")], pictures=False)
    assert ("all", "ttft_ms", "p99.9") in asked.measurements[0].pooled
    gaps = read_side("a", run, [("icl_ms", "p50")], pictures=False)
    assert ("all", "icl_ms") in gaps.measurements[0].starts[0].requests


def test_where_nothing_can_be_written_nothing_is_lost(run: Path) -> None:
    """A folder in the file's place."""
    (run / FILE).mkdir()
    assert read_side("a", run, pictures=False).measurements
    assert (run / FILE).is_dir()


def test_pictures_need_the_records(run: Path) -> None:
    """Distributions and times are not kept."""
    read_side("a", run, pictures=False)
    assert read_side("a", run).distributions
    assert not read_side("a", run, pictures=False).distributions


def test_a_writer_that_was_killed_blocks_no_later_one(tmp_path: Path) -> None:
    """Its file is replaced, also if the process has its number."""
    for left in (".derived.cache.tmp", f".derived.cache.{os.getpid()}.tmp"):
        (tmp_path / left).write_bytes(b"half")
    assert _write(tmp_path / "derived.cache", b"whole")
    assert (tmp_path / "derived.cache").read_bytes() == b"whole"
