"""A few replies are counted once more by their text, when the load is over."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from engines.base import Chunk, ChunkKind
from engines.dialects.base import ReadChunk
from harness.drivers.timeline import Outcome
from harness.drivers.vitals import Recount
from harness.drivers.workers.group import merged
from harness.records import Phase, Record, Status, TokenSource
from harness.store.manifest import CellEntry, Manifest, TrialEntry
from harness.store.run import Run, RunWriter, record_writer

CELL = CellEntry(id="000-a", trials=[TrialEntry(id="000-b", path="cells/000-a/000-b")])


def ended(request: int, **changes: str) -> Record:
    """A measured reply whose tokens the server counted."""
    keys = {"phase": Phase.MEASURE, "status": Status.OK, "token_source": TokenSource.USAGE} | changes
    return Record(request, **keys)  # type: ignore[arg-type]


def saying(text: str) -> Outcome:
    """A reply in two chunks."""
    half = len(text) // 2
    chunks = [ReadChunk(i, Chunk(ChunkKind.CONTENT, part)) for i, part in enumerate((text[:half], text[half:]))]
    return Outcome(Status.OK, chunks=chunks)


def test_the_whole_text_is_counted() -> None:
    """All chunks together are one text, counted by the tokenizer that was given."""
    recount = Recount(lambda text: len(text.split()))
    recount.see(ended(7), saying("one two three"))
    assert recount.counted() == [(7, 3)]


@pytest.mark.parametrize("n", [1, 10, 11, 1000])
def test_a_bounded_number_is_spread_evenly(n: int) -> None:
    """However many replies there are, at most ten are kept, from the first to the last tenth."""
    recount = Recount(len, replies=10)
    for request in range(n):
        recount.see(ended(request), saying("some text"))
    requests = [request for request, _ in recount.counted()]
    assert min(n, 5) <= len(requests) <= 10
    assert len({b - a for a, b in pairwise(requests)}) <= 1
    assert requests[0] == 0
    assert requests[-1] >= 0.8 * (n - 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"phase": Phase.WARMUP},
        {"status": Status.CANCELLED},
        {"token_source": TokenSource.TOKENIZER},
        {"token_source": TokenSource.CHUNKS},
    ],
)
def test_only_whole_measured_replies_that_others_counted(changes: dict[str, str]) -> None:
    """Replies counted by text, and incomplete replies, are left out."""
    recount = Recount(len)
    recount.see(ended(1, **changes), saying("some text"))
    assert recount.counted() == []


def test_texts_that_hide_their_tokens_are_left_out() -> None:
    """A replacement character stands for bytes that are lost; such replies use up no more than their places."""
    recount = Recount(len, replies=10)
    for request in range(100):
        recount.see(ended(request), saying("a broken \N{REPLACEMENT CHARACTER} text"))
    assert recount.counted() == []


def test_long_texts_are_counted_as_far_as_the_bound_goes() -> None:
    """The time that counting takes is bounded by characters."""
    recount = Recount(len, characters=25)
    for request in range(5):
        recount.see(ended(request), saying("ten chars!"))
    assert len(recount.counted()) == 2


def test_without_a_tokenizer_nothing_is_kept() -> None:
    """No recount, no number."""
    recount = Recount(None)
    recount.see(ended(1), saying("some text"))
    assert recount.counted() == []


def test_counts_reach_the_records(tmp_path: Path) -> None:
    """Counts are stored with their requests, from any process; other requests have none."""
    report = merged([{"recorded": 1, "recounted": [(7, 3)]}, {"recorded": 1, "recounted": [(9, 4)]}], 0, 3)
    assert all("recounted" not in worker for worker in report.workers)
    writer = RunWriter(tmp_path / "run", Manifest(cells=[CELL]))
    with record_writer(writer.folder("cells/000-a/000-b")) as stream:
        for request in (9, 8, 7):
            stream.add(Record(request))
    assert writer.finish_records(tmp_path / "run/cells/000-a/000-b", dict(report.recounted)) == 3
    (trial,) = Run.open(tmp_path / "run").trials()
    assert trial.records()["retokenized_tokens"].tolist()[::2] == [4, 3]
    assert trial.records()["retokenized_tokens"].isna().tolist() == [False, True, False]
