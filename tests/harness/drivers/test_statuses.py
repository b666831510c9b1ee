"""Every way in which a request can end, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from engines.base import Endpoint
from harness.drivers.base import DriveSettings
from harness.drivers.drive import drive
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk, event
from harness.errors import TrialFailed
from harness.records import Record, Status
from tests.scripted_server import Call, ending, open_plan, piece, reply, run, serving
from tests.scripted_server import measure as measure_against

pytestmark = pytest.mark.slow

GOOD = STREAM_HEAD + chunk(piece(" a")) + chunk(piece(" b")) + chunk(ending()) + LAST_CHUNK


def only(script_bytes: bytes, *, close: bool = False, **rest: object) -> Record:
    """The record of one request which is answered with these bytes."""

    async def script(call: Call) -> None:
        await call.send(script_bytes)
        if close:
            call.writer.close()

    records, _, _ = run(script, open_plan([0]), **rest)  # type: ignore[arg-type]
    assert len(records) == 1
    return records[0]


ERROR_BODY = json.dumps({"error": {"message": "no such model"}}).encode()
CASES = {
    "good": (GOOD, False, Status.OK),
    "length": (reply("200 OK", piece(" a") + ending(), "content-type: text/event-stream"), False, Status.OK),
    "until close": (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + piece() + ending(),
        True,
        Status.OK,
    ),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, False, Status.OK),
    "trailer": (GOOD[:-2] + b"x-trailer: 1\r\n\r\n", False, Status.OK),
    "http error": (reply("500 Oops", ERROR_BODY), False, Status.HTTP_ERROR),
    "not found": (reply("404 Not Found", b"nothing here"), False, Status.HTTP_ERROR),
    "redirect": (reply("307 Elsewhere", b"", "location: http://other/"), False, Status.HTTP_ERROR),
    "web page": (reply("200 OK", b"<html>hi</html>", "content-type: text/html"), False, Status.HTTP_ERROR),
    "not http": (b"220 mail.example ESMTP ready\r\n\r\n", False, Status.HTTP_ERROR),
    "busy": (reply("429 Too Many", ERROR_BODY), False, Status.REJECTED),
    "overloaded": (reply("503 Busy", b""), False, Status.REJECTED),
    "error in stream": (
        STREAM_HEAD + chunk(piece()) + chunk(event({"error": {"message": "out of memory"}})) + LAST_CHUNK,
        False,
        Status.STREAM_ERROR,
    ),
    "garbage in stream": (STREAM_HEAD + chunk(b"data: {nonsense\n\n") + LAST_CHUNK, False, Status.STREAM_ERROR),
    "no finish": (STREAM_HEAD + chunk(piece()) + LAST_CHUNK, False, Status.TRUNCATED),
    "cut in the middle": (STREAM_HEAD + chunk(piece()), True, Status.TRUNCATED),
    "too short": (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + piece(), True, Status.TRUNCATED),
    "no token": (STREAM_HEAD + chunk(ending(0)) + LAST_CHUNK, False, Status.EMPTY),
    "no event": (STREAM_HEAD + LAST_CHUNK, False, Status.EMPTY),
    "closed without a byte": (b"", True, Status.CONNECTION_ERROR),
}


@pytest.mark.parametrize("name", CASES)
def test_status(name: str) -> None:
    """Each kind of answer gets its status, and a sentence unless it is good."""
    answer, close, expected = CASES[name]
    record = only(answer, close=close)
    assert record.status == expected
    assert (record.error is None) == (expected is Status.OK)
    assert record.done_ns is not None


def test_skipped_events_are_counted_and_noted() -> None:
    """Events that nobody can read and counts that cannot be: the reply is good, the client says how many there were."""
    odd = piece(" a") + event(b"hm") + event(b"{half") + piece(" b", "stop")
    odd += event({"choices": [], "usage": {"completion_tokens": "2"}}) + event(b"[DONE]")

    async def script(call: Call) -> None:
        await call.send(STREAM_HEAD + chunk(odd) + LAST_CHUNK)

    records, report, _ = run(script, open_plan([0, 5]))
    assert [(record.status, record.output_tokens, record.token_source) for record in records] == [
        (Status.OK, 2, "chunks")
    ] * 2
    assert (report.unreadable_events, report.impossible_counts) == (4, 2)
    assert "4 events of the server's replies could not be read and were skipped" in report.notes
    assert any("an impossible number of tokens (2 times)" in note for note in report.notes)


def test_a_dialect_that_fails_costs_its_requests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises: the request failed, not the trial."""

    def decode(self: object, response: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("engines.dialects.openai.OpenAICompletions.decode", decode)
    record = only(GOOD)
    assert (record.status, record.http_status) == (Status.STREAM_ERROR, 200)
    assert record.error == "the reply cannot be decoded: RecursionError: too deep"


def test_errors_contain_the_server_s_message() -> None:
    """The server's own words are in the error, at most 200 characters of them."""
    assert only(reply("500 Oops", ERROR_BODY)).error == "the server answered HTTP 500: no such model"
    long = only(reply("500 Oops", b"x" * 10_000)).error
    assert long is not None
    assert len(long) < 300
    redirected = only(reply("307 Elsewhere", b"", "location: http://other/")).error
    assert redirected is not None
    assert "http://other/" in redirected


def test_a_cut_reply_keeps_what_had_arrived() -> None:
    """Tokens that came before the cut are in the record."""
    record = only(STREAM_HEAD + chunk(piece(" a")) + chunk(piece(" b")), close=True)
    assert record.status == Status.TRUNCATED
    assert record.text == " a b"
    assert record.first_token_ns is not None


def test_timeout_counts_from_due_and_keeps_the_row() -> None:
    """A request that goes on for ever ends as `timeout`, the tokens that had come kept."""
    (record,), report, server = run(Call.talk, open_plan([0]), timeout_ms=150)
    assert record.status == Status.TIMEOUT
    assert record.done_ns is not None
    sent = server.calls[0].sent_by(report.t0_ns + record.done_ns)
    assert sent - 1 <= (record.output_tokens or 0) <= sent  # the last one may not have been read yet
    assert record.due_ns is not None
    assert record.done_ns - record.due_ns >= 150_000_000


def test_bytes_that_look_like_an_end_are_payload() -> None:
    """A read that ends like a last chunk, but inside the payload, does not end the reply."""

    async def script(call: Call) -> None:
        body = piece(" a") + b": x\r\n0\r\n\r\n" + piece(" b") + ending()
        head, tail = STREAM_HEAD + b"%x\r\n" % len(body), body
        at = tail.index(b"0\r\n\r\n") + 5
        await call.send(head + tail[:at])
        await call.send(tail[at:] + b"\r\n" + LAST_CHUNK, after_ms=20)

    records, _, _ = run(script, open_plan([0]))
    assert records[0].status == Status.OK
    assert records[0].text == " a b"


def test_compressed_answers_are_read() -> None:
    """A server that compresses although asked not to is understood; an unknown encoding is one sentence."""
    body = gzip.compress(piece(" a") + ending())
    good = only(reply("200 OK", body, "content-type: text/event-stream", "content-encoding: gzip"))
    assert (good.status, good.text) == (Status.OK, " a")
    strange = only(reply("200 OK", body, "content-type: text/event-stream", "content-encoding: br"))
    assert strange.status == Status.STREAM_ERROR


def test_an_answer_in_one_piece_has_no_token_times() -> None:
    """Without a stream there is no time to the first token; the tokens are counted all the same."""
    body = json.dumps(
        {"choices": [{"text": "ab", "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}
    ).encode()
    record = only(reply("200 OK", body, "content-type: application/json"))
    assert record.status == Status.OK
    assert record.first_token_ns is None
    assert record.chunk_ns is None
    assert (record.output_tokens, record.text) == (2, "ab")


def test_nothing_listens() -> None:
    """A refused connection is a row, for every request."""
    records, report = asyncio.run(
        measure_against(Endpoint("http://127.0.0.1:9", "openai-completions"), open_plan([0, 5]))
    )
    assert [record.status for record in records] == [Status.CONNECTION_ERROR] * 2
    assert all("refused" in (record.error or "") for record in records)
    assert report.connect_errors >= 2


def test_an_unknown_name_is_a_row() -> None:
    """A host that cannot be found fails each request with a sentence."""
    records, _ = asyncio.run(
        measure_against(Endpoint("http://no-such-host.invalid", "openai-completions"), open_plan([0]))
    )
    assert records[0].status == Status.CONNECTION_ERROR
    assert "no-such-host.invalid" in (records[0].error or "")


def test_keys_are_never_repeated() -> None:
    """A server that quotes the key it refuses does not get it into the record."""

    async def main() -> Record:
        async with serving(lambda call: call.send(reply("401 No", b"bad key sk-verysecret"))) as server:
            url = server.endpoint.url
            target = Endpoint(url, "openai-completions", headers={"Authorization": "Bearer sk-verysecret"})
            records, _ = await measure_against(target, open_plan([0]))
            assert b"authorization: Bearer sk-verysecret" in server.calls[0].head
            return records[0]

    error = asyncio.run(main()).error
    assert error is not None
    assert "verysecret" not in error


def test_what_a_dialect_cannot_carry_fails_the_trial() -> None:
    """Token ids over the chat format, and a URL that is none, are one sentence before anything is sent."""
    plan = open_plan([0], prompt=(1, 2, 3))
    settings = DriveSettings(1_000_000_000)
    with pytest.raises(TrialFailed, match="token ids"):
        asyncio.run(drive(plan, Endpoint("http://127.0.0.1:9", "openai-chat"), settings, lambda _: None))  # type: ignore[arg-type]
    with pytest.raises(TrialFailed, match="server's address"):
        asyncio.run(drive(plan, Endpoint("ftp://x", "openai-chat"), settings, lambda _: None))  # type: ignore[arg-type]
