"""Prompts with common beginnings: shares, groups, lengths."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.models.tokenizer import ByteTokenizer
from harness.scenario.files.prompts import Tokenizer
from harness.schedule.prompts import LEAST_OWN_TOKENS, PrefixedPrompts, WordPrompts


class WordPieces:
    """A tokenizer that splits at spaces and cuts words into pieces of up to five characters."""

    def count(self, text: str) -> int:
        """Pieces of all words; a space belongs to the word after it."""
        return sum(-(-len(word) // 5) for word in text.split(" ") if word)


class NotAdditive:
    """A tokenizer that merges any two characters in a row, across words: counts depend on the neighbours."""

    def count(self, text: str) -> int:
        """Count one token per two characters, rounded up."""
        return -(-len(text) // 2)


def common_start(texts: list[str]) -> str:
    """The longest text with which all begin."""
    length = next((i for i, signs in enumerate(zip(*texts, strict=False)) if len(set(signs)) > 1), min(map(len, texts)))
    return texts[0][:length]


TOKENIZERS: dict[str, Tokenizer] = {"bytes": ByteTokenizer(), "pieces": WordPieces(), "pairs": NotAdditive()}
WORDS = {name: WordPrompts(1, tokenizer) for name, tokenizer in TOKENIZERS.items()}
ESTIMATED = WordPrompts(1)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(TOKENIZERS)),
    index=st.integers(0, 10**6),
    tokens=st.integers(1, 900),
    prefix=st.integers(1, 600),
)
def test_the_whole_prompt_has_the_requested_length(name: str, index: int, tokens: int, prefix: int) -> None:
    """The length is exact for any tokenizer, even if the prompt is shorter than the prefix."""
    prompts = PrefixedPrompts(WORDS[name], 1, share=1.0, tokens=prefix, groups=3)
    assert TOKENIZERS[name].count(prompts.prompt(index, tokens)) == tokens


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_prompts_of_a_group_share_the_prefix_and_no_more(name: str) -> None:
    """Two of a group have as many tokens in common as the prefix has, two of different groups hardly any."""
    prompts = PrefixedPrompts(WORDS[name], 1, share=1.0, tokens=300, groups=2)
    texts: dict[int | None, list[str]] = {0: [], 1: []}
    for index in range(200):
        texts[prompts.group(index)].append(prompts.prompt(index, 400))
    for group in texts.values():
        common = common_start(group)
        assert abs(TOKENIZERS[name].count(common) - 300) <= 2
        assert len(set(group)) == len(group)
    assert len(common_start([texts[0][0], texts[1][0]])) < 20


def test_the_share_and_the_groups_are_kept() -> None:
    """30 % of 20,000 prompts have a prefix, a quarter of these each of four; the others are as without any."""
    prompts = PrefixedPrompts(ESTIMATED, 1, share=0.3, tokens=50, groups=4)
    found = Counter(prompts.group(index) for index in range(20_000))
    assert found[None] / 20_000 == pytest.approx(0.7, abs=0.015)
    assert [found[group] / 6000 for group in range(4)] == pytest.approx([0.25] * 4, abs=0.03)
    alone = next(index for index in range(100) if prompts.group(index) is None)
    assert prompts.prompt(alone, 80) == ESTIMATED.prompt(alone, 80)


def test_a_short_prompt_begins_with_a_part_of_the_prefix() -> None:
    """Its own words remain, so that it is no copy of another; the shortest have no prefix at all."""
    prompts = PrefixedPrompts(ESTIMATED, 1, share=1.0, tokens=500, groups=1)
    whole, short, other = prompts.prompt(0, 600), prompts.prompt(1, 100), prompts.prompt(2, 100)
    assert short != other
    assert len(common_start([whole, short])) > 300
    assert prompts.prompt(3, LEAST_OWN_TOKENS) == ESTIMATED.prompt(3, LEAST_OWN_TOKENS)


def test_prefixes_depend_on_the_seed_and_their_parameters() -> None:
    """Equal parameters give equal prompts and fingerprints, any other parameter another fingerprint."""
    parameters: Any = {"share": 0.5, "tokens": 50, "groups": 2}
    one, same = (PrefixedPrompts(WordPrompts(1), 1, **parameters) for _ in range(2))
    assert [one.prompt(i, 90) for i in range(50)] == [same.prompt(i, 90) for i in range(50)]
    others = [
        PrefixedPrompts(WordPrompts(2), 2, **parameters),
        PrefixedPrompts(WordPrompts(1), 1, **parameters | {"share": 0.6}),
        PrefixedPrompts(WordPrompts(1), 1, **parameters | {"tokens": 51}),
        PrefixedPrompts(WordPrompts(1), 1, **parameters | {"groups": 3}),
    ]
    assert one.fingerprint == same.fingerprint
    assert len({prompts.fingerprint for prompts in (one, *others)}) == 5
