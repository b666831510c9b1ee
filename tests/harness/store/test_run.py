"""Runs are found, never overwritten, and readable while they go on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.drivers.locust.records import packed, unpacked
from harness.errors import RunDirectoryExists, RunUnreadable, UsageError
from harness.records import FORMAT_VERSION, Record, Status, record_schema, to_columns
from harness.store.manifest import METHOD, CellEntry, Manifest, TrialEntry
from harness.store.run import Run, RunWriter, find_run, new_run_path, record_writer

CELL = CellEntry(id="000-a", trials=[TrialEntry(id="000-b", path="cells/000-a/000-b")])


def test_a_folder_with_something_in_it_is_never_written_to(tmp_path: Path) -> None:
    """An existing run stays as it is; an empty folder, as a temporary one is made, may be used."""
    (tmp_path / "run").mkdir()
    RunWriter(tmp_path / "run", Manifest(cells=[]))
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    with pytest.raises(RunDirectoryExists, match="--out"):
        RunWriter(tmp_path / "run", Manifest(cells=[]))
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before


def test_a_file_in_the_way_is_not_a_run_folder(tmp_path: Path) -> None:
    """A file where the folder should be is refused in the same words."""
    (tmp_path / "run").write_text("precious")
    with pytest.raises(RunDirectoryExists):
        RunWriter(tmp_path / "run", Manifest(cells=[]))


def test_a_run_that_is_gone_on_with_has_the_format_of_who_goes_on(tmp_path: Path) -> None:
    """What is added has the newer columns: a program that knows only the older ones is told. So it is with the method:
    the summary is made anew of all trials.
    """
    RunWriter(tmp_path / "run", Manifest(cells=[]))
    file = tmp_path / "run" / "manifest.json"
    file.write_text(json.dumps({"format": 0, "cells": []}))
    assert Run.open(tmp_path / "run").manifest.needs_deriving
    RunWriter.reopen(tmp_path / "run").save()
    stored = Run.open(tmp_path / "run").manifest
    assert (stored.format, stored.method, stored.needs_deriving) == (FORMAT_VERSION, METHOD, False)


def test_a_run_can_be_read_while_it_goes_on(tmp_path: Path) -> None:
    """Records still in the stream are seen by a reader."""
    writer = RunWriter(tmp_path / "run", Manifest(cells=[CELL]))
    stream = record_writer(writer.folder("cells/000-a/000-b"))
    stream.add(Record(7))
    stream.flush()
    (trial,) = Run.open(tmp_path / "run").trials()
    assert trial.records()["request"].tolist() == [7]
    stream.close()
    assert writer.finish_records(tmp_path / "run/cells/000-a/000-b") == 1
    assert trial.records(["request", "status"])["status"].tolist() == ["not_sent"]


def test_a_trial_that_never_began_has_no_records(tmp_path: Path) -> None:
    """Trials without anything stored are left out of a run's trials."""
    RunWriter(tmp_path / "run", Manifest(cells=[CELL]))
    assert Run.open(tmp_path / "run").trials() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not a run"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        (json.dumps({"format": FORMAT_VERSION + 1}), "use a newer version"),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path: Path, content: str | None, words: str) -> None:
    """A folder without a manifest, a damaged one, and one from the future each say what they are."""
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunUnreadable, match=words):
        Run.open(tmp_path)


def test_runs_are_found_by_path_by_name_and_as_latest(tmp_path: Path) -> None:
    """A path, a full name, the last part of a name and "latest" all lead to a run."""
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    first = new_run_path("chat", runs=tmp_path, now=now)
    RunWriter(first, Manifest(cells=[]))
    second = new_run_path("chat", runs=tmp_path, now=now)
    assert second.name == "20260102T030405Z-chat-2"
    RunWriter(second, Manifest(cells=[]))
    assert find_run(str(first)) == first
    assert find_run(first.name, runs=tmp_path) == first
    assert find_run("chat-2", runs=tmp_path) == second
    assert find_run("latest", runs=tmp_path) == second


def test_latest_is_the_newest_run_and_not_the_last_name(tmp_path: Path) -> None:
    """A folder named with --out sorts anywhere; a damaged manifest counts as the oldest."""
    for name, hour in (("zebra", 1), ("baseline", 3), ("20260101T020000Z-chat", 2)):
        RunWriter(tmp_path / name, Manifest(cells=[], created_utc=f"2026-01-01T0{hour}:00:00+00:00"))
    (tmp_path / "zz").mkdir()
    (tmp_path / "zz" / "manifest.json").write_text("{")
    assert find_run("latest", runs=tmp_path).name == "baseline"


def test_a_name_that_fits_none_or_several_is_refused(tmp_path: Path) -> None:
    """The sentence lists what fits."""
    for hour in (1, 2):
        RunWriter(new_run_path("chat", runs=tmp_path, now=datetime(2026, 1, 1, hour, tzinfo=UTC)), Manifest(cells=[]))
    with pytest.raises(UsageError, match="fits 2 runs"):
        find_run("chat", runs=tmp_path)
    with pytest.raises(UsageError, match="there is no run 'x'"):
        find_run("x", runs=tmp_path)
    with pytest.raises(UsageError, match="no run in"):
        find_run("latest", runs=tmp_path / "none")


def test_a_column_that_an_older_version_did_not_store_is_unknown(tmp_path: Path) -> None:
    """Runs stay readable when records gain a column."""
    folder = RunWriter(tmp_path / "run", Manifest(cells=[CELL])).folder("cells/000-a/000-b")
    stored = pa.table({name: column for name, column in to_columns([Record(7)]).items() if name != "backend"})
    pq.write_table(
        stored.cast(pa.schema([record_schema().field(name) for name in stored.column_names])),
        folder / "records.parquet",
    )
    (trial,) = Run.open(tmp_path / "run").trials()
    assert trial.records(["request", "backend"]).isna().to_numpy().tolist() == [[False, True]]


@pytest.mark.parametrize(
    "odd",
    [{"output_tokens": 2**70}, {"finish_reason": "\ud83d"}, {"prompt_tokens": "9"}, {"chunk_tokens": [2**40]}],
)
def test_a_row_that_cannot_be_stored_costs_that_row(tmp_path: Path, odd: dict[str, object]) -> None:
    """Its request failed, when it was asked is kept, and the others are as they were."""
    planned = [Record(i, due_ns=i, sent_ns=i + 1, status=Status.OK, output_tokens=3) for i in range(5)]
    for name, value in odd.items():
        setattr(planned[2], name, value)
    with record_writer(tmp_path) as writer:
        for record in planned:
            writer.add(record)
    assert RunWriter(tmp_path / "run", Manifest(cells=[])).finish_records(tmp_path) == 5
    rows = pq.read_table(tmp_path / "records.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "stream_error", "ok", "ok"]
    assert [(row["request"], row["due_ns"], row["sent_ns"]) for row in rows] == [(i, i, i + 1) for i in range(5)]
    assert rows[2]["error"].startswith("the reply cannot be stored: ")
    assert [row["output_tokens"] for row in rows] == [3, 3, None, 3, 3]
    (sent,) = unpacked(packed(planned))  # as Locust's workers send it
    assert sent.column("status").to_pylist() == ["ok", "ok", "stream_error", "ok", "ok"]
