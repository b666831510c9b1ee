"""A failure inside a reply that began well is a failure, in every dress, with the server's words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engines.base import Chunk, ChunkKind
from engines.dialects.failures import ending, failure_in, text_chunk, unknown_text
from harness.drivers.outcome import Cut
from harness.drivers.stub import event
from harness.records import Status
from tests.replied import DONE, FINISH, ROLE, TOKENS, USAGE, delta, record_of

BOOM = "engine core died"
OBJECTS: dict[str, Any] = {
    "error text": {"error": BOOM},
    "error object": {"error": {"message": BOOM, "type": "server_error", "code": 500}},
    "error true": {"error": True, "message": BOOM},
    "error of a proxy": {"error": {"message": {"error": {"message": BOOM}}, "code": None}},
    "error with a code only": {"error": {"code": 500}, "message": BOOM},
    "error code": {"error_code": 336000, "error_msg": BOOM},
    "errcode": {"errcode": 40001, "errmsg": BOOM},
    "camel": {"errorMessage": BOOM, "errorType": "Runtime.ExitError"},
    "errors": {"errors": [{"message": BOOM}]},
    "errors as texts": {"errors": [BOOM]},
    "object": {"object": "error", "message": BOOM, "type": "InternalServerError", "param": None, "code": 500},
    "type": {"type": "error", "error": {"type": "overloaded_error", "message": BOOM}},
    "type without error": {"type": "error", "message": BOOM},
    "response failed": {"type": "response.failed", "response": {"status": "failed", "error": {"message": BOOM}}},
    "event": {"event": "error", "status": 400, "code": "invalid_param", "message": BOOM},
    "envelope": {"code": 1302, "msg": BOOM, "success": False},
    "envelope without data": {"code": 500, "msg": BOOM, "data": None},
    "envelope of texts": {"code": "Throttling.RateQuota", "message": BOOM, "request_id": "7"},
    "base_resp": {"choices": None, "base_resp": {"status_code": 1008, "status_msg": BOOM}},
    "header": {"header": {"code": 10013, "message": BOOM, "sid": "7"}, "payload": {}},
    "status": {"status": "error", "message": BOOM},
    "problem": {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": BOOM},
    "status code": {"statusCode": 503, "message": BOOM},
    "detail": {"detail": BOOM},
    "details": {"detail": [{"loc": ["body"], "msg": BOOM, "type": "value_error"}]},
    "message": {"message": BOOM},
    "exception": {"modelStreamErrorException": {"message": BOOM, "originalStatusCode": 424}},
    "fault": {"fault": {"faultstring": BOOM, "detail": {"errorcode": "x"}}},
    "ok": {"ok": False, "reason": BOOM},
    "list": [{"error": {"code": 503, "message": BOOM, "status": "UNAVAILABLE"}}],
    "error with choices": {
        "error": {"code": 502, "message": BOOM},
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    },
    "error of a choice": {"choices": [{"index": 0, "delta": {"content": ""}, "error": {"code": 502, "message": BOOM}}]},
    "with a role": {"choices": [{"delta": {"role": "assistant"}}], "base_resp": {"status_code": 1, "status_msg": BOOM}},
    "nested": {"data": {"error": {"message": BOOM}}},
}


def dressed(body: Any) -> dict[str, bytes]:
    """The ways in which something gets into a stream of events."""
    text = orjson.dumps(body)
    return {
        "data": b"data: " + text + b"\n\n",
        "no space": b"data:" + text + b"\r\n\r\n",
        "named event": b"event: error\ndata: " + text + b"\n\n",
        "field": b"error: " + text + b"\n\n",
        "unframed": text + b"\n\n",
        "unframed, one line end": text + b"\n",
        "unframed, many lines": orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n\n",
        "twice data": b"data: data: " + text + b"\n\n",
        "text in JSON": b"data: " + orjson.dumps(text.decode()) + b"\n\n",
    }


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("end", [[DONE], [], [FINISH, USAGE, DONE]], ids=["done", "nothing", "finish"])
def test_an_object_that_reports_a_failure(name: str, end: list[bytes]) -> None:
    """A failure object counts in every place of the stream, before and after tokens."""
    for way, said in dressed(OBJECTS[name]).items():
        if end[:1] == [FINISH] and name in ("detail", "details", "message") and way not in ("named event", "field"):
            continue  # mere words are passed over where the reply comes to a good end
        for before in ([], [ROLE, *TOKENS[:4]]):
            record = record_of([*before, said, *end])
            assert (record.status, record.error) == (Status.STREAM_ERROR, BOOM) or BOOM in (record.error or ""), way
            assert record.status == Status.STREAM_ERROR
            assert len(record.chunk_ns or ()) == (4 if before else 0)


@pytest.mark.parametrize("dialect", ["openai-completions", "generate-stats", "generate-backend", "ollama-chat"])
@pytest.mark.parametrize("name", OBJECTS)
def test_every_dialect_knows_them(dialect: str, name: str) -> None:
    """Failures count in JSON lines, in events, and in a document in place of a stream."""
    if dialect != "openai-completions" and name in ("error of a choice", "with a role"):
        return
    text = orjson.dumps(OBJECTS[name])
    for kind, body in (
        ("application/x-ndjson", text + b"\n"),
        ("text/event-stream", event(text)),
        ("application/json", text),
        ("text/event-stream", text),
        ("text/plain", text),
    ):
        record = record_of([body], dialect, kind)
        assert record.status == Status.STREAM_ERROR
        assert BOOM in (record.error or "")


@pytest.mark.parametrize(
    "text",
    [
        b"Internal Server Error",
        b"upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        b"Traceback (most recent call last):",
        b"CUDA out of memory",
        b"{'error': 'engine died'}",
        b'{"error": {"message": "engi',
        b"<html><head><title>502 Bad Gateway</title></head></html>",
        b"[ERROR] the engine died",
        b"Too Many Requests",
    ],
)
def test_a_text_that_reports_a_failure(text: bytes) -> None:
    """A failure text counts as data, unframed in mid-stream and as the whole body, even before a finish."""
    for reads in ([*TOKENS[:3], event(text), FINISH, DONE], [*TOKENS[:3], text + b"\n\n", DONE], [event(text), DONE]):
        record = record_of(reads)
        assert record.status == Status.STREAM_ERROR
        assert record.error is not None
        assert text.decode()[:20] in record.error
    assert record_of([text]).status in (Status.STREAM_ERROR, Status.HTTP_ERROR)


@pytest.mark.parametrize(
    "reason",
    ["error", "abort", "aborted", "ERROR", "failed", "cancelled", "insufficient_system_resource", "network_error",
     "server_error", "timeout", {"type": "abort", "message": BOOM, "status_code": 503}, "engine_overloaded"],
)  # fmt: skip
def test_finish_reasons_that_mean_failure(reason: Any) -> None:
    """A bad finish reason fails the reply after any tokens, with the server's message if there is one."""
    name = reason["type"] if isinstance(reason, dict) else reason
    for reads in ([*TOKENS, delta(reason), DONE], [*TOKENS, delta(reason, content=" x"), USAGE, DONE]):
        record = record_of(reads)
        assert record.status == Status.STREAM_ERROR
        assert name in (record.error or "")
        assert isinstance(reason, str) or BOOM in (record.error or "")
    lines = [b'{"response":" a","done":false}\n', orjson.dumps({"done": True, "done_reason": reason}) + b"\n"]
    assert record_of(lines, "ollama-generate", "application/x-ndjson").status == Status.STREAM_ERROR


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("abort", "'abort'"),
        ({"type": "abort"}, "'abort'"),
        ({"type": "abort", "message": "abort"}, "'abort'"),
        ({"reason": "abort", "message": BOOM}, f"'abort': {BOOM}"),
    ],
)
def test_a_bad_end_has_a_message_if_there_is_one(reason: Any, words: str) -> None:
    """The name alone is no message."""
    expected = f"the server ended its reply with the finish reason {words}"
    assert ending(reason) == [Chunk(ChunkKind.ERROR, expected)]


@pytest.mark.parametrize(("levels", "found"), [(0, BOOM), (3, BOOM), (4, BOOM), (5, "")])
def test_a_message_is_looked_for_within(levels: int, found: str) -> None:
    """Below keys of any name, five levels down; from there on the whole object stands for it."""
    inner: dict[str, Any] = {"message": BOOM}
    for _ in range(levels):
        inner = {"zone": inner}
    event = {"error": {"code": 500}, "zone": inner}
    expected = found or orjson.dumps(event).decode()
    assert failure_in(event, alone=True) == expected


@pytest.mark.parametrize(
    "reason",
    ["stop", "length", "tool_calls", "content_filter", "eos_token", "model_length", "function_call", "end_turn"],
)
def test_finish_reasons_that_are_good(reason: str) -> None:
    """Good finish reasons are recorded unchanged."""
    record = record_of([*TOKENS, delta(reason), USAGE, DONE])
    assert (record.status, record.finish_reason) == (Status.OK, reason)


@pytest.mark.parametrize("reason", [None, "", "null", "None", {}, []])
def test_finish_reasons_that_are_none(reason: Any) -> None:
    """A reply that only says so has not finished."""
    assert ending(reason) == []
    assert record_of([*TOKENS, delta(reason)]).status == Status.TRUNCATED


@pytest.mark.parametrize("reason", [True, 5, 2.5, ["stop"], {"a": 1}])
def test_finish_reasons_that_cannot_be_read(reason: Any) -> None:
    """The reply has finished for an unknown reason."""
    assert ending(reason) == [Chunk(ChunkKind.FINISH)]
    assert record_of([*TOKENS, delta(reason)]).finish_reason is None


@pytest.mark.parametrize(
    "event",
    [
        {"error": None}, {"error": ""}, {"error": {}}, {"error": False}, {"error": []}, {"error": 0},
        {"error": {"code": 0, "message": ""}}, {"error": {"code": None, "message": None}}, {"errors": []},
        {"code": 0, "msg": "success"}, {"code": 200, "message": "OK"}, {"code": "0"}, {"success": True},
        {"status": "ok"}, {"status": "processing"}, {"status": 200},
        {"base_resp": {"status_code": 0, "status_msg": ""}},
        {"object": "chat.completion.chunk"}, {"type": "ping"}, {"id": "error-7"}, {"model": "fail"}, {},
    ],
)  # fmt: skip
def test_no_failure(event: dict[str, Any]) -> None:
    """Empty values and success are no failure."""
    assert failure_in(event, alone=True) is None
    assert unknown_text(event) is None
    record = record_of([*TOKENS[:5], b"data: " + orjson.dumps(event) + b"\n\n", *TOKENS[5:], FINISH, USAGE, DONE])
    assert (record.status, record.error, record.output_tokens) == (Status.OK, None, 10)


def test_a_failure_without_a_message() -> None:
    """An error without a message is still an error."""
    assert record_of([b"event: error\n\n", DONE]).error == "error"
    assert record_of([b"error:\n\n", DONE]).error == "the server sent an error without a message"
    assert record_of([event({"error": {"code": 7}}), DONE]).error == '{"error":{"code":7}}'


def test_a_complete_failure_is_the_reason_for_a_truncated_reply() -> None:
    """A failure that came whole is the reason why the reply was cut off."""
    cut = Cut(Status.CONNECTION_ERROR, "the server closed the connection")
    assert record_of([*TOKENS[:2], event({"error": BOOM})], cut=cut).error == BOOM
    assert record_of([*TOKENS[:2], event({"error": BOOM})[:-2]], cut=cut).error == BOOM
    half = record_of([*TOKENS[:2], TOKENS[2][:40]], cut=cut)
    assert (half.status, len(half.chunk_ns or ())) == (Status.TRUNCATED, 2)


def test_an_answer_that_speaks_of_errors_is_no_failure() -> None:
    """Only the server's text counts, not the model's, complete or truncated."""
    texts = [" the error", ' {"error": "x"}', " failed", " Internal Server Error"]
    good = record_of([*(delta(content=text) for text in texts), FINISH, DONE])
    assert (good.status, good.text) == (Status.OK, "".join(texts))
    half = delta(content=' an error: {"error": 1}')[:-9]
    assert text_chunk(half.removeprefix(b"data: ")).kind is ChunkKind.UNREADABLE
    assert record_of([*TOKENS, FINISH, half]).status == Status.OK


def test_a_sentence_is_one_line_of_bounded_length() -> None:
    """Any message becomes one line of limited length."""
    for said in ("x" * 10_000, "a\nb\tc " * 1000, {"deep": [{"deeper": ["y" * 999]}]}):
        error = record_of([event({"error": {"message": said}})]).error
        assert error is not None
        assert len(error) <= 200
        assert "\n" not in error
