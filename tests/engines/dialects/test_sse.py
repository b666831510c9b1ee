"""Server-sent events are cut out of a body whatever the line ends and the reads."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.dialects.sse import COMMENT, EventSplitter


def events_of(*reads: bytes) -> list[bytes]:
    """All events of a body."""
    splitter = EventSplitter()
    return [event for read in reads for event in splitter.feed(read)] + splitter.finish()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends(end: bytes) -> None:
    """LF, CRLF and CR end lines, however they are read; several data lines are one event; other fields and comments are
    no data.
    """
    body = b"\xef\xbb\xbf: hi\nevent: x\ndata: a\ndata:b\n\nid: 7\n\ndata: c\n\n".replace(b"\n", end)
    assert events_of(body) == [COMMENT, b"a\nb", b"c"]
    each = [bytes([byte]) for byte in body]
    assert events_of(*each) == [COMMENT, b"a\nb", b"c"]
    assert events_of(*[read for byte in each for read in (byte, b"")]) == [COMMENT, b"a\nb", b"c"]


def test_a_line_end_that_is_split_by_an_empty_read() -> None:
    """Between the CR and the LF of one line end may lie a read of nothing but the framing of chunks."""
    assert events_of(b"data: {\r", b"", b"\ndata: }\r\n\r\n") == [b"{\n}"]


def test_a_field_without_a_colon_has_an_empty_value() -> None:
    """`data` alone is an empty line of the event, as the standard says; another name alone is nothing."""
    assert events_of(b"data\ndata: a\ndata\nid\n\n") == [b"\na\n"]
    assert events_of(b"data\n\n") == [b""]


def seconds_to_split(pieces: int) -> float:
    """Processor time to read a line that comes in so many pieces and does not end; the least of three."""
    taken = []
    for _ in range(3):
        splitter = EventSplitter()
        began = time.process_time()
        for _ in range(pieces):
            splitter.feed(b"x" * 1024)
        assert len(splitter.finish()) == 0
        taken.append(time.process_time() - began)
    return min(taken)


def test_a_long_line_in_many_pieces_is_looked_at_once() -> None:
    """Eight times as many pieces take about eight times as long, not sixty-four times."""
    assert seconds_to_split(16_000) < 30 * seconds_to_split(2_000)


@given(
    st.lists(st.sampled_from([b"data: a", b"data:b", b": c", b"x", b"", b"\r", b"\n", b"\r\n"]), max_size=20), st.data()
)
def test_splits_change_nothing(parts: list[bytes], data: st.DataObject) -> None:
    """A body cut at any places gives the same events, also where a read brings none of its bytes."""
    body = b"\n".join(parts)
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=20)))
    reads = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    assert events_of(*reads) == events_of(body)
