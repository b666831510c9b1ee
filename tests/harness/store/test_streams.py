"""Rows survive kills, full disks are one sentence."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StorageFailed
from harness.records import Record, Status, record_schema, to_columns
from harness.store.run import flush_or_end, record_streams, record_writer, recorded_in
from harness.store.streams import StreamWriter, read_batches, to_parquet, write_atomically


def write_records(path: Path, count: int, rows_per_batch: int = 10) -> None:
    """A closed stream of `count` records."""
    with StreamWriter(path, record_schema(), to_columns, rows=rows_per_batch) as writer:
        for number in range(count):
            writer.add(Record(number, status=Status.OK, chunk_ns=[1, 2], chunk_tokens=[1, None], error="ü"))


def test_a_closed_stream_becomes_parquet_with_every_row(tmp_path: Path) -> None:
    """All rows come back in order, lists and nulls included, and the stream is gone."""
    write_records(tmp_path / "r.arrows", 25)
    assert to_parquet([tmp_path / "r.arrows"], tmp_path / "r.parquet", record_schema()) == 25
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.column("request").to_pylist() == list(range(25))
    assert table.column("chunk_tokens")[0].as_py() == [1, None]
    assert not (tmp_path / "r.arrows").exists()


@given(cut=st.integers(min_value=0, max_value=4000))
def test_a_stream_cut_anywhere_keeps_its_whole_batches(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Whatever the length of what reached the disk, reading gives a prefix of the rows and never an error."""
    folder = tmp_path_factory.mktemp("cut")
    write_records(folder / "r.arrows", 20, rows_per_batch=5)
    content = (folder / "r.arrows").read_bytes()
    (folder / "r.arrows").write_bytes(content[: min(cut, len(content))])
    rows = [row for batch in read_batches(folder / "r.arrows") for row in batch.column("request").to_pylist()]
    assert rows == list(range(len(rows)))
    assert len(rows) % 5 == 0


def test_rows_written_before_a_kill_are_there(tmp_path: Path) -> None:
    """A process killed with SIGKILL leaves every flushed batch."""
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from harness.records import Record, record_schema, to_columns
        from harness.store.streams import StreamWriter
        writer = StreamWriter(Path(sys.argv[1]), record_schema(), to_columns, rows=10)
        for number in range(35):
            writer.add(Record(number))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    path = tmp_path / "r.arrows"
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert to_parquet([path], tmp_path / "r.parquet", record_schema()) == 30


def test_a_file_that_may_not_grow_is_one_sentence(tmp_path: Path) -> None:
    """A write the system refuses is a StorageFailed that names the file, and the old content stays whole."""
    target = tmp_path / "manifest.json"
    write_atomically(target, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(StorageFailed, match=r"manifest\.json: cannot write: .+ulimit -f.+--out"):
            write_atomically(target, b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("size", "written"), [(0, 0), (2_500, 4), (9_999, 2), (10_000, 1), (30_000, 1)])
def test_what_is_written_at_once_is_bounded(tmp_path: Path, size: int, written: int) -> None:
    """Rows of long lists go to the disk before there are 512 of them, as soon as they have 10,000 elements."""
    with StreamWriter(tmp_path / "r.arrows", record_schema(), to_columns, flush_s=1e9, size=lambda _: size) as writer:
        for number in range(8):
            writer.add(Record(number))
        found = [len(batch) for batch in read_batches(tmp_path / "r.arrows") if len(batch)]
        assert found == ([written] * (8 // written) if written else [])
    assert sum(len(batch) for batch in read_batches(tmp_path / "r.arrows")) == 8


def test_a_disk_that_is_full_ends_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that wait are written when they are due, without another; where that fails, the load is ended at once."""
    ended: list[str] = []
    with record_writer(tmp_path) as writer:
        monkeypatch.setattr(writer, "_flush_s", 0.0)
        writer._pending.append(Record(request=3))
        flush_or_end(writer, lambda: ended.append("now"))
        assert list(recorded_in(record_streams(tmp_path))) == [3]
        assert ended == []

        def full() -> None:
            raise StorageFailed("no space left on the disk")

        monkeypatch.setattr(writer, "flush_if_due", full)
        with pytest.raises(StorageFailed):
            flush_or_end(writer, lambda: ended.append("now"))
    assert ended == ["now"]


def test_rows_are_on_the_disk_before_their_stream_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and its folder: a loss of power leaves the one or the other."""
    stream, done = tmp_path / "r.arrows", list[bool]()
    write_records(stream, 5)
    monkeypatch.setattr("harness.store.streams.os.fsync", lambda _: done.append(stream.exists()))
    to_parquet([stream], tmp_path / "r.parquet", record_schema())
    assert done == [True, True]
    assert not stream.exists()
