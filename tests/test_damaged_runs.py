"""A stored run that is damaged, foreign or from the future: one sentence with the file, and the rest is reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import VIRTUAL_TIME, scenario

from harness.api import load
from harness.cli.commands.report import Report, write
from harness.errors import ExitCode, FileUnreadable, RunUnreadable
from tests.forked import harness

RECORDS = "cells/000-simulated/000-first/records.parquet"
SAMPLES = "cells/000-simulated/samples.parquet"
Change = Callable[[bytes], bytes]
Rewrite = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two loads, of which nothing is damaged."""
    folder = tmp_path_factory.mktemp("whole")
    loads = [{"kind": "single_user", "name": name, "requests": 8, "timeout": "5s"} for name in ("first", "second")]
    scenario(folder, load=loads)
    ended = harness("run", "scenario.yaml", "--out", "run", "--format", "json", cwd=folder, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    return folder / "run"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def reported(run: Path) -> tuple[Report, str]:
    """The report, and the page that people read."""
    made = write(run, ("md",))
    return made, (run / "report.md").read_text().replace("\\", "")


def loads_with_numbers(made: Report) -> set[str]:
    """The loads of which some latency is known."""
    summary = made.data.summary
    return set(summary[(summary["metric"] == "ttft_ms") & summary["value"].notna()]["load"])


def flipped(content: bytes) -> bytes:
    """Some bytes in the middle of the values are others."""
    middle = len(content) // 4
    return content[:middle] + bytes(255 - byte for byte in content[middle : middle + 16]) + content[middle + 16 :]


def replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """A table with another column."""
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: b"", "records.parquet cannot be read: Parquet file size is 0 bytes"),
        (lambda content: content[: len(content) // 2], "records.parquet cannot be read: Parquet magic bytes not found"),
        (lambda _: b"something else", "records.parquet cannot be read"),
        (flipped, "records.parquet cannot be read"),
    ],
)
def test_records_of_which_bytes_are_lost(run: Path, change: Change, words: str) -> None:
    """The trial failed, its file and why are named, the other load has its numbers: 3."""
    file = run / RECORDS
    file.write_bytes(change(file.read_bytes()))
    made, page = reported(run)
    assert made.exit_code is ExitCode.TRIAL_FAILED
    assert loads_with_numbers(made) == {"second"}
    assert words in page


@pytest.mark.parametrize(
    ("rewrite", "words"),
    [
        (lambda _: pa.table({"a": [1, 2]}), "it has no column request"),
        (lambda table: table.drop_columns(["sent_ns"]), "it has no column sent_ns"),
        (lambda table: replaced(table, "sent_ns", pa.array(["x"] * 8)), "sent_ns has the type string and not int64"),
        (lambda table: replaced(table, "status", pa.array([1] * 8)), "status has the type int64 and not string"),
        (lambda table: replaced(table, "status", pa.array(["fine"] * 8)), "requests with the status 'fine'"),
        (lambda table: replaced(table, "phase", pa.nulls(8, pa.string())), "requests without a phase"),
        (lambda table: replaced(table, "done_ns", pa.array([-5] * 8, pa.int64())), "end before they were sent"),
        (lambda table: pa.concat_tables([table, table]), "8 of 16 rows repeat another request's number"),
        (lambda table: table.slice(0, 5), "5 of 8 recorded requests are left"),
        (lambda table: table.slice(0, 0), "0 of 8 recorded requests are left"),
    ],
)
def test_records_that_contradict_themselves(run: Path, rewrite: Rewrite, words: str) -> None:
    """A number that damage made wrong is never shown."""
    pq.write_table(rewrite(pq.read_table(run / RECORDS)), run / RECORDS)
    made, page = reported(run)
    assert made.exit_code is ExitCode.TRIAL_FAILED
    assert loads_with_numbers(made) == {"second"}
    assert words in page


@pytest.mark.parametrize("lost", [RECORDS, str(Path(RECORDS).parent)])
def test_records_that_are_gone(run: Path, lost: str) -> None:
    """A complete trial had some: 3, and the file."""
    shutil.rmtree(run / lost) if (run / lost).is_dir() else (run / lost).unlink()
    made, page = reported(run)
    assert made.exit_code is ExitCode.TRIAL_FAILED
    assert loads_with_numbers(made) == {"second"}
    assert f"{RECORDS} is missing" in page


@pytest.mark.parametrize("size", [0.0, 0.5, 0.9])
def test_a_stream_that_was_cut_off_gives_the_rows_that_are_whole(run: Path, size: float) -> None:
    """Of a complete trial they are too few."""
    table = pq.read_table(run / RECORDS)
    (run / RECORDS).unlink()
    stream = (run / RECORDS).with_name("records.arrows")
    with pa.OSFile(str(stream), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(batch)
    stream.write_bytes(stream.read_bytes()[: int(stream.stat().st_size * size)])
    made, page = reported(run)
    assert made.exit_code is ExitCode.TRIAL_FAILED
    assert "of 8 recorded requests are left" in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: b"", "samples.parquet cannot be read"),
        (lambda content: content[: len(content) // 2], "samples.parquet cannot be read"),
        (None, "samples.parquet is missing"),
    ],
)
def test_readings_that_are_lost_leave_the_latencies(run: Path, change: Change | None, words: str) -> None:
    """The report has a note, every latency, and no memory."""
    file = run / SAMPLES
    file.unlink() if change is None else file.write_bytes(change(file.read_bytes()))
    made, page = reported(run)
    assert made.exit_code is ExitCode.HOLDS
    assert loads_with_numbers(made) == {"first", "second"}
    assert words in page


def change_manifest(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Store a manifest of which something was changed."""
    stored = json.loads((run / "manifest.json").read_text())
    change(stored)
    (run / "manifest.json").write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format=99), "use a newer version of harness"),
        (lambda m: m.update(format="x"), "which is no version of a run"),
        (lambda m: m.update(format=float("inf")), "which is no version of a run"),
        (lambda m: m.update(format=True), "which is no version of a run"),
        (lambda m: m.pop("format"), "it is no manifest of harness"),
        (lambda m: m.update(cells=[{"a": 1}]), "cells.0.id is missing"),
        (lambda m: m["cells"].append(m["cells"][0]), "cells.1.id is 000-simulated, as of another entry"),
        (lambda m: m["cells"][0]["trials"][0].update(path="../../x"), "which is no place in a run"),
        (lambda m: m["cells"][0].update(quality={"path": "../../x"}), "quality.path is '../../x', which is no place"),
        (lambda m: m["cells"][0]["trials"][0].update(path="n" * 300), "which is no place in a run"),
        (lambda m: m["cells"][0]["trials"][0].update(t0_ns=10**30), "t0_ns is no time"),
        (lambda m: m["cells"][0]["trials"][0].update(limits=["fast"]), "'fast' is not a limit"),
        (lambda m: m["scenario"].update(tolerance="much"), "tolerance"),
    ],
)
def test_a_manifest_that_cannot_be_one(run: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    """2, the file, and the entry."""
    change_manifest(run, change)
    with pytest.raises(RunUnreadable) as caught:
        write(run, ("md",))
    assert words in str(caught.value)
    assert "run" in str(caught.value)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"format": ' + b"9" * 5000]
)
def test_a_manifest_that_is_no_json(run: Path, content: bytes) -> None:
    """The command says so in one line: 2."""
    (run / "manifest.json").write_bytes(content)
    ended = harness("report", str(run), cwd=run.parent)
    assert ended.code == 2
    assert ended.err.startswith(f"harness: {run}/manifest.json cannot be read: ")
    assert ended.err.count("\n") == 1


def test_the_python_api_raises_for_requests_that_cannot_be_read(run: Path) -> None:
    """A frame that silently lacks a trial would be another number."""
    (run / RECORDS).write_bytes(b"")
    with pytest.raises(FileUnreadable, match=r"records\.parquet cannot be read"):
        _ = load(run).requests
