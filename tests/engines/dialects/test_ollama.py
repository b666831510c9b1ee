"""Ollama's API: requests as they are written down, replies line by line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import dialects
from engines.base import Chunk, ChunkKind, Request, Turn, Usage
from engines.dialects.base import WireResponse

LINES = {"content-type": "application/x-ndjson"}
DONE = {"done": True, "done_reason": "length", "total_duration": 2_500_000, "prompt_eval_count": 4, "eval_count": 2}
ENDING = [
    Chunk(ChunkKind.USAGE, usage=Usage(4, 2), reported={"total_ms": 2.5}),
    Chunk(ChunkKind.FINISH, finish_reason="length"),
]


def line(**content: object) -> bytes:
    """Return a line as sent."""
    return json.dumps({"model": "m", "created_at": "2026-01-01T00:00:00.1Z", **content}).encode() + b"\n"


def decoded(name: str, *reads: bytes, headers: dict[str, str] = LINES) -> list[tuple[int, Chunk]]:
    """The chunks of a response, with their reads."""
    return [(read, chunk) for read, chunk in dialects.get(name).decode(WireResponse(200, headers, reads))]


def test_a_prompt_as_it_is() -> None:
    """The prompt is raw, so that no template changes its length; all settings are under `options`."""
    dialect = dialects.get("ollama-generate", {"keep_alive": "10m", "options": {"num_ctx": 4096}})
    wire = dialect.encode(Request("hi", 7, exact=True, sampling={"temperature": 0.0, "stop": ["x"]}), "m")
    assert wire.path == "/api/generate"
    assert json.loads(wire.body) == {
        "model": "m",
        "prompt": "hi",
        "raw": True,
        "stream": True,
        "keep_alive": "10m",
        "options": {"num_predict": 7, "temperature": 0.0, "stop": ["x"], "num_ctx": 4096},
    }


def test_a_chat() -> None:
    """Earlier turns come first; token ids cannot be sent."""
    wire = dialects.get("ollama-chat").encode(Request("b", 7, stream=False, history=(Turn("a", "r"),)), "m")
    assert wire.path == "/api/chat"
    assert json.loads(wire.body) == {
        "model": "m",
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "r"},
            {"role": "user", "content": "b"},
        ],
        "stream": False,
        "options": {"num_predict": 7},
    }
    with pytest.raises(ValueError, match="ollama-chat cannot carry token ids"):
        dialects.get("ollama-chat").encode(Request((1,), 7), "m")


def test_each_line_belongs_to_the_read_that_ends_it() -> None:
    """Any division gives the same result. An incomplete last line is no error; a complete one counts."""
    first, second, last = line(response=" a", done=False), line(response=" b", done=False), line(response="", **DONE)
    body = [first + second[:9], second[9:], last]
    found = decoded("ollama-generate", *body)
    assert found[:2] == [(0, Chunk(ChunkKind.CONTENT, " a")), (1, Chunk(ChunkKind.CONTENT, " b"))]
    assert found[2:] == [(2, chunk) for chunk in ENDING]
    assert [chunk.text for _, chunk in decoded("ollama-generate", first, second[:20])] == [" a"]
    assert [chunk for _, chunk in decoded("ollama-generate", last[:-1])] == ENDING


def test_thoughts_answers_and_tools() -> None:
    """Reasoning, content and tool calls have their own kinds."""
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    found = decoded(
        "ollama-chat",
        line(message={"role": "assistant", "content": "", "thinking": "hm"}, done=False),
        line(message={"role": "assistant", "content": "yes"}, done=False),
        line(message={"role": "assistant", "content": "", "tool_calls": [call]}, done=False),
        line(message={"role": "assistant", "content": ""}, **DONE),
    )
    assert [chunk for _, chunk in found] == [
        Chunk(ChunkKind.REASONING, "hm"),
        Chunk(ChunkKind.CONTENT, "yes"),
        Chunk(ChunkKind.TOOL, 'f{"x":1}'),
        *ENDING,
    ]
    (thought, _, _) = decoded("ollama-generate", line(response="", thinking="hm", **DONE))
    assert thought[1] == Chunk(ChunkKind.REASONING, "hm")


def test_chunks_of_one_line_came_together() -> None:
    """All but the first of a line are joined to the chunk before."""
    lines = line(message={"content": "a"}) + line(message={"thinking": "hm", "content": "b"}) + line(**DONE)
    found = dialects.get("ollama-chat").decode(WireResponse(200, LINES, [lines]))
    assert (len(found), found.joined) == (5, [2, 4])


def test_a_whole_reply() -> None:
    """A single document holds text, counts and finish."""
    found = decoded(
        "ollama-chat", line(message={"content": "yes"}, **DONE), headers={"content-type": "application/json"}
    )
    assert [chunk for _, chunk in found] == [Chunk(ChunkKind.CONTENT, "yes"), *ENDING]


def test_errors() -> None:
    """Errors in mid-stream and unreadable lines are found."""
    found = decoded("ollama-generate", line(response=" a", done=False), b'{"error": "out of memory"}\n')
    assert found[-1] == (1, Chunk(ChunkKind.ERROR, "out of memory"))
    for strange in (b"nonsense\n", b'{"response": 3}\n', b'["x"]\n'):
        assert decoded("ollama-generate", strange)[0][1].kind is ChunkKind.UNREADABLE
    assert decoded("ollama-generate", b"[]\n")[0][1].kind is ChunkKind.COMMENT


@given(
    st.lists(st.text(min_size=1), max_size=20),
    st.lists(st.integers(0, 3000), max_size=20),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_any_texts_in_any_reads(texts: list[str], places: list[int], line_end: bytes) -> None:
    """Every text comes out, in the read that brought the end of its line."""
    lines = [json.dumps({"response": text, "done": False}).encode() + line_end for text in texts]
    body = b"".join(lines)
    at = sorted(min(place, len(body)) for place in places)
    reads = [body[a:b] for a, b in zip([0, *at], [*at, len(body)], strict=True)]
    found = decoded("ollama-generate", *reads)
    assert [chunk.text for _, chunk in found] == texts
    ends = [sum(map(len, lines[: n + 1])) for n in range(len(lines))]
    read_ends = [sum(map(len, reads[: n + 1])) for n in range(len(reads))]
    assert [read for read, _ in found] == [next(i for i, e in enumerate(read_ends) if e >= end) for end in ends]
