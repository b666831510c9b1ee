"""Text out of tokens, piece by piece."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.base import Chunk, ChunkKind
from engines.text import TokenText


def _piece(text: str, tokens: int) -> Chunk:
    return Chunk(ChunkKind.CONTENT, text, tokens)


def _pieces(tokens: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[Chunk], TokenText]:
    text = TokenText(stop)
    found = []
    for token in tokens:
        if (piece := text.push(token)) is not None:
            found.append(piece)
        if text.stopped:
            break
    if (last := text.finish()) is not None:
        found.append(last)
    return found, text


def test_every_token_with_text_is_a_piece() -> None:
    """Tokens that are whole characters come one by one."""
    assert _pieces([b"a", b"bc"])[0] == [_piece("a", 1), _piece("bc", 1)]


def test_half_a_character_waits_for_the_other_half() -> None:
    """Incomplete bytes are held back and counted with the token that completes them."""
    assert _pieces([b"\xc3", b"\xa9", b"x"])[0] == [_piece("\u00e9", 2), _piece("x", 1)]


def test_bytes_that_never_become_a_character_are_shown_at_the_end() -> None:
    """Remaining bytes become U+FFFD, so that their tokens are counted."""
    assert _pieces([b"a", b"\xe2\x82"])[0] == [_piece("a", 1), _piece("\ufffd", 1)]


def test_a_token_without_text_is_counted_with_the_next() -> None:
    """A special token has no text of its own."""
    assert _pieces([b"", b"a"])[0] == [_piece("a", 2)]


def test_the_stop_string_is_not_shown() -> None:
    """A stop string may span tokens and resemble other text; all tokens are counted."""
    found, text = _pieces([b"ab", b"EN", b"x", b"EN", b"D more", b"never"], ("END",))
    assert "".join(piece.text for piece in found) == "abENx"
    assert sum(piece.tokens for piece in found) == 5
    assert text.stopped


def test_the_start_of_a_stop_string_is_shown_at_the_end() -> None:
    """The beginning of one that never comes is held back until the end only."""
    assert _pieces([b"a", b"EN"], ("END",))[0] == [_piece("a", 1), _piece("EN", 1)]


@given(st.lists(st.binary(max_size=4), max_size=20), st.lists(st.text("ab", min_size=1, max_size=3), max_size=2))
def test_nothing_is_lost_and_every_token_is_counted_once(tokens: list[bytes], stop: list[str]) -> None:
    """Any division into tokens gives the text up to the first stop string."""
    found, text = _pieces(tokens, tuple(stop))
    shown = "".join(piece.text for piece in found)
    whole = b"".join(tokens).decode("utf-8", "replace")
    if text.stopped:
        assert whole.startswith(shown)
        assert not any(one in shown for one in stop)
    else:
        assert shown == whole
        assert sum(piece.tokens for piece in found) == len(tokens)


@given(st.text(max_size=30), st.text("ab", min_size=1, max_size=3))
def test_cutting_makes_no_difference(text: str, stop: str) -> None:
    """Byte by byte and all at once show the same."""
    data = text.encode()
    one_by_one, _ = _pieces([data[index : index + 1] for index in range(len(data))], (stop,))
    at_once, _ = _pieces([data], (stop,))
    assert "".join(p.text for p in one_by_one) == "".join(p.text for p in at_once)
