"""Reading what servers state: token counts, contents of unexpected types, running counts, and split characters."""

from __future__ import annotations

from typing import Any

import pytest

from engines.base import Chunk, ChunkKind, Usage
from engines.dialects.answers import amount_at, count_chunks, count_of, mend, pieces_of, tool_text, usage_of
from engines.dialects.base import Pieces

CONTENT, REASONING, EMPTY, FINISH = ChunkKind.CONTENT, ChunkKind.REASONING, ChunkKind.EMPTY, ChunkKind.FINISH


@pytest.mark.parametrize(
    ("stated", "count"),
    [(0, 0), (7, 7), (2.0, 2), (2**31 - 1, 2**31 - 1)]
    + [(wrong, None) for wrong in (2.5, -1, 2**31, True, False, "7", None, [], float("nan"), float("inf"))],
)
def test_a_token_count_is_a_whole_number(stated: object, count: int | None) -> None:
    """A server may write 2 as 2.0; texts, fractions, truth values and impossible numbers are no counts."""
    found = count_of(stated)
    assert found == count
    assert type(found) is type(count)


@pytest.mark.parametrize(
    ("stated", "usage", "note"),
    [
        ((3, 5, 2, 1), Usage(3, 5, 2, 1), ""),
        ((3, None, None, None), Usage(3), ""),
        ((3.0, 5), Usage(3, 5), ""),
        ((3, "many"), Usage(3), "invalid token count: many"),
        ((-1, "", 2.5, None), Usage(), "invalid token count: -1, an empty text, 2.5"),
        ((1, [9] * 30), Usage(1), f"invalid token count: [{'9,' * 19}9"),
    ],
)
def test_invalid_counts_are_unknown_and_noted(stated: tuple[Any, ...], usage: Usage, note: str) -> None:
    """The valid counts stay; the note quotes the first 40 characters of each invalid one."""
    assert usage_of(*stated) == (usage, note)


@pytest.mark.parametrize(
    ("stated", "amount"),
    [(0, 0.0), (2.5, 5.0)] + [(wrong, None) for wrong in (-1, float("nan"), float("inf"), True, "3", None, 10**40)],
)
def test_an_amount_is_a_number_from_zero_up(stated: object, amount: float | None) -> None:
    """In its own unit, times the factor to ours."""
    assert amount_at({"mb": stated}, "mb", 2.0) == amount


@pytest.mark.parametrize("nothing", ["", None, False, [], {}])
def test_contents_that_hold_nothing(nothing: object) -> None:
    """Servers write an absent content in several ways, none of which is an error."""
    assert pieces_of(nothing) == []


@pytest.mark.parametrize("strange", [True, 0, 7, {"unknown": 1}, [3]])
def test_contents_without_a_known_meaning(strange: object) -> None:
    """They are unreadable, not absent."""
    (found,) = pieces_of(strange)
    assert found.kind is ChunkKind.UNREADABLE


def test_parts_of_one_kind_are_one_chunk() -> None:
    """Texts of a list that follow each other are joined; an own kind begins another chunk."""
    parts = ["a", {"type": "text", "text": "b"}, {"type": "thinking", "thinking": "hm"}, "c"]
    assert pieces_of(parts) == [Chunk(CONTENT, "ab"), Chunk(REASONING, "hm"), Chunk(CONTENT, "c")]


def counted(*events: list[Chunk]) -> list[int | None] | None:
    """The token count of each chunk that may bear some, once running counts were read; None if they were not."""
    chunks = [chunk for event in events for chunk in event]
    starts = {sum(map(len, events[:number])) for number in range(len(events))}
    joined = [at for at in range(len(chunks)) if at not in starts]
    pieces = Pieces([0] * len(chunks), chunks, joined=joined)
    found = count_chunks(pieces)
    if found is pieces:
        return None
    assert [one.text for one in found.chunks] == [one.text for one in chunks]
    return [one.tokens for one in found.chunks if one.kind in (CONTENT, REASONING, EMPTY)]


def event(count: int | None, *chunks: Chunk) -> list[Chunk]:
    """One event: its chunks, then the running count of output tokens, if it states one."""
    return [*chunks, *([] if count is None else [Chunk(ChunkKind.USAGE, usage=Usage(3, count))])]


A, B, THOUGHT, SILENT = Chunk(CONTENT, "a"), Chunk(CONTENT, "b"), Chunk(REASONING, "hm"), Chunk(EMPTY)
END = Chunk(FINISH, finish_reason="stop")


@pytest.mark.parametrize(
    ("events", "tokens"),
    [
        ([event(1, A), event(3, B), event(4, A)], [1, 2, 1]),
        ([event(2, THOUGHT, A), event(3, B)], [0, 2, 1]),  # one event: its last chunk gets all of them
        ([event(1, A), event(2, SILENT), event(3, B)], [1, 1, 1]),  # a token without text
        ([event(1, A), event(1, SILENT), event(2, B)], [1, None, 1]),  # no token
        ([event(1, A), event(2, B), event(3, SILENT, END)], [1, 1, None]),  # the end of the reply is no token of text
        ([event(1, A), event(1, B), event(2, A)], [1, 0, 1]),  # one of three chunks without a token may be
        ([event(None, A), event(2, B), event(3, A)], [None, None, 1]),  # whose the first two are is unknown
        ([event(1, A), event(None, B), event(4, A), event(5, B)], [1, None, None, 1]),
        ([event(1, A), event(None, SILENT), event(2, B)], [1, None, 1]),  # nothing waited for a count
    ],
)
def test_running_counts_give_each_chunk_its_tokens(events: list[list[Chunk]], tokens: list[int | None]) -> None:
    """Each event's chunks bear the rise of the count since the event before."""
    assert counted(*events) == tokens


@pytest.mark.parametrize(
    "events",
    [
        [event(None, A), event(None, B), event(2)],  # one count, at the end
        [event(2, A), event(1, B)],  # falls
        [event(1, A), event(1, B), event(1, A)],  # leaves most chunks without a token
        [event(0, A), event(0, B), event(9)],  # the sum comes last
    ],
)
def test_other_counts_are_not_running(events: list[list[Chunk]]) -> None:
    """The chunks stay as they came."""
    assert counted(*events) is None


def test_halves_of_a_character_are_joined_within_their_kind() -> None:
    """Thoughts and answers come in turns; a half that stays alone becomes U+FFFD, and kinds and counts stay."""
    smile = "\N{GRINNING FACE}".encode("utf-16-be", "surrogatepass")
    first, second = (smile[at : at + 2].decode("utf-16-be", "surrogatepass") for at in (0, 2))
    chunks = [
        Chunk(CONTENT, f"a{first}", 1),
        Chunk(REASONING, f"hm{first}", 2),
        Chunk(CONTENT, f"{second}b", 3),
        Chunk(FINISH, finish_reason=f"st{first}op"),
    ]
    mend(chunks)
    assert chunks == [
        Chunk(CONTENT, "a", 1),
        Chunk(REASONING, "hm\N{REPLACEMENT CHARACTER}", 2),
        Chunk(CONTENT, "\N{GRINNING FACE}b", 3),
        Chunk(FINISH, finish_reason="st\N{REPLACEMENT CHARACTER}op"),
    ]


def test_bytes_of_a_character_are_joined() -> None:
    """Bytes that are not UTF-8 alone come as lone surrogates (see `tolerant`)."""
    chunks = [Chunk(CONTENT, "caf\udcc3", 1), Chunk(CONTENT, "\udca9!", 1)]
    mend(chunks)
    assert chunks == [Chunk(CONTENT, "caf", 1), Chunk(CONTENT, "\N{LATIN SMALL LETTER E WITH ACUTE}!", 1)]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ({"function": {"name": "f", "arguments": '{"a":1}'}}, 'f{"a":1}'),
        ({"custom": {"name": "f", "input": "words"}}, "fwords"),
        ({"name": "f", "parameters": {"a": 1}}, 'f{"a":1}'),
        ({"type": "input_json_delta", "partial_json": '{"a'}, '{"a'),
        ({"name": "f"}, "f"),
        ({}, ""),
        ("f", ""),
    ],
)
def test_generated_text_of_a_tool_call(call: object, text: str) -> None:
    """The name and what it is called with, in the places where servers put them."""
    assert tool_text(call) == text


def test_a_broken_name_of_a_backend_is_mended_too() -> None:
    """Its reply keeps all else."""
    chunks = [Chunk(FINISH, "x\ud83d", finish_reason="stop", backend="one\ud83d", cached=True)]
    mend(chunks)
    replaced = "\N{REPLACEMENT CHARACTER}"
    assert chunks == [Chunk(FINISH, f"x{replaced}", finish_reason="stop", backend=f"one{replaced}", cached=True)]
