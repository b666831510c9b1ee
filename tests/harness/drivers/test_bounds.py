"""Replies that do not end: how much of them is taken, and what is said of them."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from engines.dialects import get
from harness.drivers import served
from harness.drivers.base import Part
from harness.drivers.http import response
from harness.drivers.http.response import ResponseReader
from harness.drivers.outcome import judge
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk
from harness.records import Status
from tests.scripted_server import Call, Plan, ending, open_plan, piece, run

MOST = 100_000
KEPT = 20_000
LONG = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99999999999999\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
ENDLESS = {
    "events in chunks": (STREAM_HEAD, chunk(piece())),
    "one line in chunks": (STREAM_HEAD + chunk(piece()) + chunk(b"data: "), chunk(b"x" * 1000)),
    "one chunk": (STREAM_HEAD + chunk(piece()) + b"ffffffffff\r\n", b"x" * 1000),
    "an extension of a chunk": (STREAM_HEAD + chunk(piece()) + b"5;", b"x" * 1000),
    "an enormous length": (LONG + piece(), piece()),
    "until it is closed": (CLOSING + piece(), piece()),
    "after its end": (STREAM_HEAD + chunk(piece() + ending()), chunk(b": go on\n\n")),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "MOST_BYTES", MOST)
    monkeypatch.setattr(response, "KEPT_BYTES", KEPT)


def read(head: bytes, more: bytes) -> ResponseReader:
    """A reader that was given a reply until it had enough, which is soon."""
    reader = ResponseReader()
    reader.feed(head)
    for _ in range(2 * MOST // len(more)):
        if reader.feed(more):
            break
    reader.release()
    return reader


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_reply_is_cut_off(name: str) -> None:
    """The reply is truncated, reports its size, keeps its tokens, and its connection is not reused."""
    reader = read(*ENDLESS[name])
    outcome = judge(reader, get("openai-completions"), None, streams=True)
    assert outcome.status == Status.TRUNCATED
    assert outcome.error is not None
    assert outcome.error == (
        "the reply was cut off: it is longer than 64 MiB, which is the most; the first 4 MiB were kept"
    )
    assert sum(map(len, reader.bodies)) <= KEPT
    assert len(outcome.chunks) > 0
    assert not reader.reusable


@pytest.mark.parametrize("head", [b"X-A: b\r\n", b"x" * 1000, b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_an_endless_head_is_cut_off(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers without end, one endless header, interim responses without end."""
    monkeypatch.setattr(response, "MOST_OF_A_HEAD", 5_000)
    reader = ResponseReader()
    reader.feed(b"" if b"100" in head else b"HTTP/1.1 200 OK\r\n" + (b"X-Long: " if b"\n" not in head else b""))
    taken = 1 + next(number for number in range(10_000) if reader.feed(head))
    reader.release()
    outcome = judge(reader, get("openai-completions"), None, streams=True)
    assert taken * len(head) < 8_000
    assert outcome.status == Status.HTTP_ERROR
    assert outcome.error is not None
    assert "the head of the reply is longer than" in outcome.error


def test_a_compressed_reply_without_end() -> None:
    """The error in the first bytes is kept."""
    body = gzip.compress(piece() + bytes(10 * MOST))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    reader = ResponseReader()
    assert reader.feed(head % len(body) + body)
    reader.release()
    outcome = judge(reader, get("openai-completions"), None, streams=True)
    assert outcome.status == Status.TRUNCATED
    assert outcome.error is not None
    assert outcome.error.startswith("the reply was cut off: uncompressed it is longer than")
    assert len(outcome.chunks) == 1


async def firehose(call: Call) -> None:
    """Events without end for the first request, a good reply for the others."""
    if call.number:
        await call.good()
        return
    await call.send(STREAM_HEAD)
    while not call.writer.transport.is_closing():
        await call.send(chunk(piece()) * 20)
        await asyncio.sleep(0)


def test_users_go_on_after_an_endless_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the time-out it has its row; the next request goes over another connection and succeeds."""
    monkeypatch.setattr("harness.drivers.http.pool._REST_NS", 0)
    records, report, server = run(firehose, Plan(3, users=1))
    assert [record.status for record in records] == [Status.TRUNCATED, Status.OK, Status.OK]
    assert server.connections == 2
    assert not [note for note in report.notes if "closes connections after their replies" in note]


async def talk(call: Call) -> None:
    """A reply that goes on, much of it from the first request."""
    await call.send(STREAM_HEAD + chunk(piece()) * (500 if call.number == 0 else 1))
    await asyncio.sleep(0.5)
    await call.send(chunk(ending()) + LAST_CHUNK)


@pytest.mark.parametrize("processes", [1, 4])
def test_all_replies_together_are_bounded(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    """If all replies in flight exceed the limit, only the longest is cut off. Processes of a machine divide it."""
    monkeypatch.setattr(served, "free_memory_bytes", lambda: processes * 40_000)
    records, _, _ = run(talk, open_plan([0, 1, 2]), part=Part(processes=processes))
    assert [record.status for record in records] == [Status.TRUNCATED, Status.OK, Status.OK]
    assert records[0].error is not None
    assert "all in flight together held more than" in records[0].error
