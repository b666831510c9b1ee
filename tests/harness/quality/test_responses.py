"""Descriptions of replies: known texts, and what the report may say of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.quality.responses import describe, distinct, flesch, overlap, summary, syllables


@pytest.mark.parametrize(
    ("word", "count"), [("whale", 1), ("table", 2), ("agree", 2), ("harpooneer", 3), ("the", 1), ("b", 1), ("make", 1)]
)
def test_syllables(word: str, count: int) -> None:
    """Groups of vowels, without a silent e."""
    assert syllables(word) == count


def test_reading_ease_of_a_known_sentence() -> None:
    """Six words of one syllable in one sentence: 206.835 - 1.015 * 6 - 84.6 = 116.145."""
    words = ["the", "cat", "sat", "on", "the", "mat"]
    assert flesch("The cat sat on the mat.", words) == pytest.approx(116.145)


def test_a_reply_that_repeats_itself_has_few_different_words() -> None:
    """Ten times the same word: one of ten, and one of nine pairs."""
    found = describe("whale " * 10)
    assert (found.words, found.distinct_1, found.distinct_2) == (10, 0.1, pytest.approx(1 / 9))
    assert distinct([], 1) is None


def test_words_shared_with_the_prompt() -> None:
    """The commonest words do not count."""
    assert overlap(["the", "whale"], "The white whale and the sea") == pytest.approx(1 / 3)
    assert overlap(["the"], "The and of") is None


@given(st.text(max_size=200), st.text(max_size=80))
def test_any_text_can_be_described(reply: str, prompt: str) -> None:
    """Shares lie between 0 and 1, and an empty reply has none."""
    found = describe(reply, prompt)
    shares = [found.distinct_1, found.distinct_2, found.overlap]
    assert all(share is None or 0 <= share <= 1 for share in shares)


def test_means_leave_out_what_is_unknown() -> None:
    """A reply without words has no reading ease, and takes nothing from the others' mean."""
    found = summary([describe("The cat sat on the mat."), describe("")])
    assert found["replies"] == 2
    assert found["flesch"] == pytest.approx(116.145)
    assert found["words"] == 3
