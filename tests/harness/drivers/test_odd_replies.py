"""Odd values in replies: what cannot be is unknown, what bears tokens is counted, and nothing raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines.base import Usage
from engines.dialects.answers import usage_of
from harness.drivers.conversations import Conversations
from harness.drivers.stub import event
from harness.records import Record, Status
from tests.replied import (
    DONE,
    FINISH,
    GOOD,
    ROLE,
    TOKENS,
    USAGE,
    WORDS,
    delta,
    outcome_of,
    record_of,
    stored,
    usage,
)

IMPOSSIBLE = ["10", "", "ten", 10.25, -1, -0.5, 2**31, 2**53, 2**63, 2**64, 10**30, 1e308, True, False, [10], {"n": 10}]


def thinking(word: str) -> bytes:
    """A part of a list that is thought, not said."""
    return delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": word}]}])


def counts(record: Record) -> tuple[int | None, int | None, str | None]:
    """Return the token fields of a record."""
    return record.prompt_tokens, record.output_tokens, record.token_source


@pytest.mark.parametrize("count", IMPOSSIBLE)
def test_a_count_that_cannot_be_is_unknown_and_noted(count: Any) -> None:
    """In any place; the chunks are counted instead."""
    outcome, _ = outcome_of([ROLE, *TOKENS, FINISH, usage(prompt_tokens=9, completion_tokens=count), DONE])
    assert (outcome.status, outcome.impossible) == (Status.OK, 1)
    record = record_of([ROLE, *TOKENS, FINISH, usage(prompt_tokens=9, completion_tokens=count), DONE])
    assert counts(record) == (9, 10, "chunks")
    other = record_of([*TOKENS, FINISH, usage(prompt_tokens=count, completion_tokens=10, reasoning_tokens=count), DONE])
    assert (counts(other), other.reasoning_tokens) == ((None, 10, "usage"), None)
    details = usage(prompt_tokens=9, completion_tokens=10, prompt_tokens_details={"cached_tokens": count})
    assert record_of([*TOKENS, FINISH, details, DONE]).cached_tokens is None
    lines = [b'{"response":" a","done":false}\n', json.dumps({"done": True, "eval_count": count}).encode() + b"\n"]
    assert record_of(lines, "ollama-generate", "application/x-ndjson").token_source == "chunks"
    stats = json.dumps({"text": " a", "generation_stats": {"generated_tokens": count}}).encode()
    assert record_of([stats], "generate-stats", "application/json").output_tokens is None


def test_counts_that_can_be() -> None:
    """A missing count is unknown and no fault; a whole number may be written as a fraction."""
    assert usage_of(9, 10.0, None, 0) == (Usage(9, 10, None, 0), "")
    assert usage_of(None, None) == (Usage(), "")
    assert usage_of(float("nan"), float("inf"))[0] == Usage()


@pytest.mark.parametrize("odd", [5, "x", [1], True, 2.5])
def test_counts_that_are_no_object(odd: Any) -> None:
    """Such a count is unknown."""
    outcome, _ = outcome_of([*TOKENS, FINISH, event({"choices": [], "usage": odd}), DONE])
    assert (outcome.status, outcome.impossible) == (Status.OK, 1)
    nested = usage(prompt_tokens=9, completion_tokens=10, completion_tokens_details=odd, prompt_tokens_details=odd)
    assert counts(record_of([*TOKENS, FINISH, nested, DONE])) == (9, 10, "usage")


def test_reasoning_that_is_counted_beside_the_output_is_added() -> None:
    """The total decides; without it the output includes them."""
    counts_of = {"prompt_tokens": 9, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 7}}
    for total, output in ((26, 17), (19, 10), (None, 10), ("26", 10)):
        record = record_of([*TOKENS, FINISH, usage(**counts_of, total_tokens=total), DONE])
        assert (record.output_tokens, record.reasoning_tokens) == (output, 7)


def test_a_server_that_counts_nothing() -> None:
    """Zeros are no counts if there is a prompt and there are tokens."""
    zeros = usage(prompt_tokens=0, completion_tokens=0, total_tokens=0, prompt_tokens_details={"cached_tokens": 0})
    record = record_of([ROLE, *TOKENS, FINISH, zeros, DONE])
    assert (counts(record), record.cached_tokens) == ((None, 10, "chunks"), None)
    nothing = record_of([ROLE, FINISH, usage(prompt_tokens=9, completion_tokens=0), DONE])
    assert (nothing.status, counts(nothing)) == (Status.EMPTY, (9, 0, "usage"))


@pytest.mark.parametrize(
    "later",
    [{"total_tokens": 21}, {}, {"prompt_tokens": None}, {"prompt_tokens": 0, "completion_tokens": 0}, {"x": 1},
     {"completion_tokens": "12"}],
)  # fmt: skip
def test_a_later_usage_with_fewer_fields_keeps_the_earlier_values(later: dict[str, Any]) -> None:
    """The earlier values stay."""
    whole = {"prompt_tokens": 9, "completion_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 3}}
    record = record_of([*TOKENS, delta("stop", usage=whole), usage(**later), DONE])
    assert (counts(record), record.reasoning_tokens) == ((9, 12, "usage"), 3)


def test_counts_in_every_event_are_those_of_the_chunks() -> None:
    """Two tokens in each of ten chunks; nothing is merged, for one packet brought one event."""
    stated = [delta(content=word, usage={"completion_tokens": 2 * (i + 1)}) for i, word in enumerate(WORDS)]
    first = delta(role="assistant", content="", usage={"completion_tokens": 0})
    end = delta("stop", usage={"completion_tokens": 21})
    record = record_of([first, *stated, end, usage(prompt_tokens=9, completion_tokens=21), DONE])
    assert (record.chunk_tokens, record.chunk_merged) == ([2] * 10, [False] * 10)
    assert counts(record) == (9, 21, "usage")


def test_an_event_without_text_that_raises_the_count_is_a_token() -> None:
    """Half a character has no text yet; it has come, as the server counts it."""
    events = [
        delta(content="", usage={"completion_tokens": 1}),
        delta(content="é", usage={"completion_tokens": 2}),
        delta(content=" b", usage={"completion_tokens": 3}),
        delta("stop", content="", usage={"completion_tokens": 4}),
    ]
    record = record_of([*events, DONE])
    assert (record.chunk_tokens, record.first_token_ns, record.output_tokens) == ([1, 1, 1], 1000, 4)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([0, 0, 0, 4], [None] * 4),  # nothing until the end
        ([4, 4, 4, 4], [None] * 4),  # the end's from the beginning
        ([3, 2, 1, 4], [None] * 4),  # no sums
        ([1, None, None, 4], [1, None, None, None]),  # nobody knows which bore how many
        ([1, 2, None, 4], [1, 1, None, None]),
        ([2, 2, 5, 6], [2, 0, 3, 1]),
    ],
)
def test_counts_that_are_no_counts_so_far_are_not_used(stated: list[int | None], expected: list[int | None]) -> None:
    """Without counts per chunk, chunks have none."""
    events = [delta(content=" a", usage=None if count is None else {"completion_tokens": count}) for count in stated]
    record = record_of([*events, FINISH, usage(prompt_tokens=9, completion_tokens=6), DONE])
    assert record.chunk_tokens == expected


def test_tokens_without_text_are_tokens() -> None:
    """Token ids or probabilities count them: at the start, in between and at the end."""
    texts = [("", [1]), (" a", [2]), ("", [3, 4]), (" b", [5]), ("", [])]
    ids = [event({"choices": [{"text": text, "token_ids": found}]}) for text, found in texts]
    end = event({"choices": [{"text": "", "token_ids": [6], "finish_reason": "stop"}]})
    record = record_of([*ids, end, DONE], "openai-completions")
    assert (record.chunk_tokens, record.first_token_ns) == ([1, 1, 2, 1, 1], 1000)
    assert counts(record) == (None, 6, "engine")
    said = [{"token": "x", "logprob": -0.5}] * 2
    chat = event({"choices": [{"delta": {"content": ""}, "logprobs": {"content": said}}]})
    assert record_of([chat, FINISH, DONE]).chunk_tokens == [2]


@pytest.mark.parametrize(
    "said",
    [
        [{"refusal": word} for word in WORDS],
        [{"function_call": {"name": "look"}}, *({"function_call": {"arguments": word}} for word in WORDS[1:])],
        [{"tool_calls": [{"index": 0, "function": {"arguments": word}}]} for word in WORDS],
        [{"tool_calls": [{"custom": {"name": "f", "input": word}}]} for word in WORDS],
        [{"content": [{"type": "text", "text": word}]} for word in WORDS],
        [{"content": [word]} for word in WORDS],
        [{"content": {"type": "text", "text": word}} for word in WORDS],
        [{"content": [{"type": "refusal", "refusal": word}]} for word in WORDS],
        [{"reasoning_details": [{"type": "reasoning.text", "text": word}]} for word in WORDS],
    ],
    ids=["refusal", "function_call", "tool_calls", "custom", "parts", "texts", "part", "refusal part", "details"],
)  # fmt: skip
def test_whatever_is_generated_is_a_token(said: list[dict[str, Any]]) -> None:
    """Ten pieces, ten times."""
    record = record_of([ROLE, *(delta(**fields) for fields in said), FINISH, USAGE, DONE])
    assert (record.status, len(record.chunk_ns or ()), record.first_token_ns) == (Status.OK, 10, 2000)


@pytest.mark.parametrize(
    "thought",
    [
        thinking,
        lambda word: delta(reasoning_content=word),
        lambda word: delta(reasoning=word),
        lambda word: delta(thinking=word),
        lambda word: delta(content=[{"type": "reasoning", "summary": [{"type": "summary_text", "text": word}]}]),
        lambda word: delta(content=[{"text": word, "thought": True}]),
        lambda word: delta(reasoning=[{"type": "text", "text": word}]),
        lambda word: delta(content=[{"thinking": word}]),
    ],
)
def test_thinking_is_not_the_answer(thought: Any) -> None:
    """The first token is a thought, the first answer comes five reads later, and only the answer is said again."""
    reads = [ROLE, *map(thought, WORDS[:5]), *TOKENS[5:], FINISH, USAGE, DONE]
    record = record_of(reads)
    assert (record.status, record.first_token_ns, record.first_answer_ns) == (Status.OK, 2000, 7000)
    both = record_of(
        [delta(content=[{"type": "thinking", "thinking": " a"}, {"type": "text", "text": " b"}]), FINISH, DONE]
    )
    assert (both.chunk_kind, both.chunk_merged) == (["reasoning", "content"], [False, False])


def test_only_the_answer_goes_into_the_conversation() -> None:
    """Texts of parts, without the thoughts."""

    class Two:
        """A conversation of two turns."""

        def follower(self, i: int) -> int | None:
            """The second follows the first."""
            return 1 if i == 0 else None

        def is_later_turn(self, i: int) -> bool:
            """Only the second."""
            return i == 1

        def row(self, i: int) -> Any:
            """Both are of conversation 0."""
            from dataclasses import replace

            from tests.replied import ROW

            return replace(ROW, request=i, session=0, turn=i)

        def request(self, i: int, history: Any = ()) -> Any:
            """Return the prompt."""
            from engines.base import Request

            return Request("hi", 4, history=history)

    plan = Two()
    talk = Conversations(plan)  # type: ignore[arg-type]
    outcome, _ = outcome_of(
        [*map(thinking, WORDS[:5]), delta(content=[{"type": "text", "text": " yes"}]), FINISH, DONE]
    )
    assert talk.add_reply(plan.row(0), outcome) == 1
    assert talk.request(1).history[0].reply == " yes"


@pytest.mark.parametrize("odd", [5, 2.5, True, [5], [None], {"type": "image"}, [{"type": "image_url", "url": "x"}]])
def test_contents_that_are_no_text(odd: Any) -> None:
    """Such events are skipped and counted; a reply of nothing else contains no token."""
    outcome, _ = outcome_of([*TOKENS[:5], delta(content=odd), *TOKENS[5:], FINISH, USAGE, DONE])
    assert (outcome.status, outcome.unreadable) == (Status.OK, 1)
    assert outcome_of([delta(content=odd), FINISH, DONE])[0].status == Status.EMPTY
    text = event({"choices": [{"text": odd}]})
    assert outcome_of([text, event({"choices": [{"text": " a"}]}), DONE], "openai-completions")[0].unreadable == 1


@pytest.mark.parametrize(
    ("halves", "text"),
    [
        ((b"\\ud83d", b"\\ude00"), "\U0001f600"),
        ((b"\xf0\x9f", b"\x98\x80"), "\U0001f600"),
        ((b"\xc3", b"\xa9"), "\u00e9"),
        ((b" a\\ud83d", b"\\ude00b"), " a\U0001f600b"),
        ((b"\\ud83d", b" x"), "\ufffd x"),
        ((b"\\ude00", b"\\ud83d"), "\ufffd\ufffd"),
        ((b"\xff", b"x"), "\ufffdx"),
        ((b"\\ud83d\\ud83d", b"\\ude00"), "\ufffd\U0001f600"),
    ],
)
def test_halves_of_characters_are_put_together(halves: tuple[bytes, bytes], text: str) -> None:
    """Each is a chunk with its time; the character stands where it was complete."""
    events = [b'data: {"choices":[{"index":0,"delta":{"content":"' + half + b'"}}]}\n\n' for half in halves]
    record = record_of([*TOKENS[:2], *events, *TOKENS[2:], FINISH, USAGE, DONE])
    assert (record.status, len(record.chunk_ns or ())) == (Status.OK, 12)
    assert text in (record.text or "")
    said = b'data: {"error":{"message":"bad ' + halves[0] + b'"}}\n\n'
    assert (record_of([said]).error or "").startswith("bad")


def test_numbers_that_json_does_not_have() -> None:
    """Infinities among probabilities and NaN among figures cost nothing."""
    odd = b'data: {"choices":[{"index":0,"delta":{"content":" x"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}\n\n'
    record = record_of([*[odd] * 10, FINISH, b'data: {"choices":[],"usage":{"completion_tokens":NaN}}\n\n', DONE])
    assert (record.status, record.output_tokens, record.token_source) == (Status.OK, 10, "engine")
    raw = b'data: {"choices":[{"index":0,"delta":{"content":" a\tb"}}]}\n\n'
    assert record_of([raw, FINISH, DONE]).text == " a\tb"


def test_a_last_event_with_its_text_its_end_and_its_counts_is_one_event() -> None:
    """A chunk in a packet of its own is not merged; two events in one read may be two packets."""
    last = delta("stop", content=WORDS[-1], usage={"prompt_tokens": 9, "completion_tokens": 10})
    assert not any(record_of([*TOKENS[:-1], last, DONE]).chunk_merged or ())
    assert record_of([*TOKENS[:-1], TOKENS[-1] + FINISH, DONE]).chunk_merged == [False] * 9 + [True]
    line = b'{"message":{"content":" a"},"done":true,"done_reason":"stop","eval_count":1}\n'
    assert record_of([line], "ollama-chat", "application/x-ndjson").chunk_merged == [False]


WEIRD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
    | st.sampled_from(["error", "abort", "stop", "null", "text", "thinking", "\ud83d", "\u0000", "[DONE]", "{}", "10"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "text", "thinking", "message", "error", "code", "content", "function", "arguments", "name",
             "completion_tokens", "prompt_tokens", "reasoning_tokens", "cached_tokens", "choices", "usage", "data"]
        ), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
CHOICE = ["delta", "message", "text", "finish_reason", "token_ids", "logprobs", "index"]
TOP = ["choices", "usage", "error", "message", "response", "done", "done_reason", "eval_count", "prompt_eval_count",
       "total_duration", "token", "generated_text", "generation_stats", "cached", "backend_used", "generation_time",
       "finish_reason", "object", "code", "status", "success", "detail"]  # fmt: skip
DELTA = ["role", "content", "reasoning_content", "refusal", "tool_calls", "function_call", "thinking"]
EVENTS = st.one_of(
    WEIRD,
    st.dictionaries(st.sampled_from(TOP), WEIRD, max_size=4),
    st.dictionaries(st.sampled_from(CHOICE), WEIRD, max_size=4).map(lambda choice: {"choices": [choice]}),
    st.dictionaries(st.sampled_from(DELTA), WEIRD, max_size=3).map(lambda said: {"choices": [{"delta": said}]}),
    st.dictionaries(st.sampled_from(DELTA), WEIRD, max_size=3).map(lambda said: {"message": said, "done": False}),
)
DIALECTS = ["openai-chat", "openai-completions", "ollama-chat", "ollama-generate", "generate-stats", "generate-backend"]


def framed(events: list[Any], way: str) -> list[bytes]:
    """The events as a server might write them, halves of characters and endless numbers included."""
    texts = [json.dumps(one).encode() for one in events]
    if way == "lines":
        return [text + b"\n" for text in texts]
    return [b"data: " + text + b"\n\n" for text in texts] + [DONE] if way == "events" else [b"".join(texts)]


@given(
    st.lists(EVENTS, max_size=5),
    st.sampled_from(DIALECTS),
    st.sampled_from(["events", "lines", "document"]),
    st.sampled_from(["text/event-stream", "application/json", "application/x-ndjson", "text/html"]),
    st.booleans(),
)
@example(
    [{"choices": [{"delta": {"content": "\ud83d"}, "finish_reason": "\ud83d"}]}], "openai-chat", "events", "", True
)
@example([{"error": {"message": 2**70}}], "openai-chat", "events", "", True)
@example([{"choices": [{"token_ids": [1] * 5, "text": None}]}] * 2, "openai-completions", "lines", "", False)
def test_nothing_that_a_server_sends_raises(
    events: list[Any], dialect: str, way: str, kind: str, between: bool
) -> None:
    """Any values at any place, in any dialect and framing: a record that can be stored, whose counts can be true."""
    reads = [*TOKENS[:2], *framed(events, way)] if between else framed(events, way)
    row = stored(record_of(reads, dialect, kind))
    for name in ("prompt_tokens", "output_tokens", "reasoning_tokens", "cached_tokens"):
        assert row[name] is None or 0 <= row[name] < 2**31
    assert (row["status"] == Status.OK) == (row["error"] is None)
    assert all(tokens is None or tokens >= 0 for tokens in row["chunk_tokens"] or ())


@given(st.lists(st.binary(max_size=40) | st.sampled_from(GOOD), max_size=8), st.sampled_from(DIALECTS))
def test_no_bytes_raise(reads: list[bytes], dialect: str) -> None:
    """Whatever the bytes are, between good events too."""
    if any(reads):
        record_of(reads, dialect)
