"""What is asked: how long, and which words. Pure functions of (seed, index); a file is read once, when it is opened.

Made-up prompts are plain English sentences. Each begins with three words chosen by its index, no two alike, so that a
prefix cache finds nothing to reuse unless the scenario wants it to.

Prompts may share their beginnings, as those of one application with a long instruction do.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.scenario.prompt_files import Tokenizer, digest
from harness.seeding import generator

SENTENCES = tuple((Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines())
"""What made-up prompts are built from: plain sentences of our own, without digits or rare words."""

CHARACTERS_PER_TOKEN = 4
_HEAD_WORDS = 3
_CORPUS_SENTENCES = 2_000
_LONGEST = 2**31 - 1
_MASK = 2**64 - 1


class Length(Protocol):
    """A distribution of token counts as the scenario states it, with the parameters of its `dist`."""

    @property
    def dist(self) -> str:
        """`fixed`, `uniform`, `normal`, `lognormal` or `empirical`."""
        ...


class Prompts(Protocol):
    """A source of prompts: the request's index and the length asked for give the text.

    source: "tokenizer" (exactly that many tokens), "estimated" (4 characters a token) or "file" (length not asked for).
    fingerprint: equal for sources that give equal prompts.
    """

    source: str
    fingerprint: str

    def prompt(self, index: int, tokens: int) -> str | tuple[int, ...]:
        """The prompt of request `index`."""
        ...


def draw_lengths(length: Length, random: np.random.Generator, count: int) -> NDArray[np.int32]:
    """`count` token counts of at least 1 from a distribution; what lies outside `min` and `max` is set to the bound."""
    drawn = np.rint(_draw(length, random, count))
    high = getattr(length, "max", None)
    return np.clip(drawn, max(1, getattr(length, "min", None) or 1), high or _LONGEST).astype(np.int32)


def draw_seconds(time: Any, random: np.random.Generator, count: int) -> NDArray[np.int64]:
    """`count` times in ns from a distribution of seconds (`fixed`, `exponential` or `lognormal`)."""
    match time.dist:
        case "fixed":
            drawn = np.full(count, time.value_s)
        case "exponential":
            drawn = random.exponential(time.mean_s, count)
        case "lognormal":
            drawn = np.exp(random.normal(time.log_mean, time.log_sd, count))
        case other:
            raise ValueError(f"there is no distribution of times {other!r}")
    return np.rint(drawn * 1e9).astype(np.int64)


def _draw(length: Any, random: np.random.Generator, count: int) -> NDArray[np.float64]:
    match length.dist:
        case "fixed":
            return np.full(count, float(length.value))
        case "uniform":
            return random.integers(length.min, length.max + 1, count).astype(np.float64)
        case "normal":
            return random.normal(length.mean, length.sd, count)
        case "lognormal":
            drawn: NDArray[np.float64] = np.exp(random.normal(length.log_mean, length.log_sd, count))
            return drawn
        case "empirical":
            weights = np.asarray(length.weights or [1.0] * len(length.values), dtype=np.float64)
            values = np.asarray(length.values, dtype=np.float64)
            return random.choice(values, count, p=weights / weights.sum())
        case other:
            raise ValueError(f"there is no length distribution {other!r}")


class WordPrompts:
    """Prompts of a wanted length made of our own sentences; see `Prompts`.

    salt: another one gives every prompt, and every common beginning, another head of the same length: a server that has
    seen the prompts of one run does not know those of the next. It is not part of the fingerprint.
    """

    def __init__(self, seed: int, tokenizer: Tokenizer | None = None, salt: int = 0) -> None:
        self.source = "estimated" if tokenizer is None else "tokenizer"
        self._tokenizer = tokenizer
        self._salt = int(generator(seed, 1).integers(2**63))
        words = _shuffled_words(seed)
        self._heads = sorted({word.strip(".,;?").lower() for word in words})
        self._corpus = " " + " ".join(words)
        self._ends = list(accumulate((len(word) + 1 for word in words), initial=0))
        costs = {word: self._cost(" " + word) for word in set(words) | set(self._heads)}
        self._costs = costs
        self._first_costs = {word: self._cost(word) for word in self._heads}
        self._spent = list(accumulate((costs[word] for word in words), initial=0))
        self._codes = len(self._heads) ** _HEAD_WORDS
        self._step, self._shift = _permutation(self._codes, seed)
        self._shift = (self._shift + salt) % self._codes
        self._filler = None if tokenizer is None else _filler(tokenizer)
        self._additive = tokenizer is None or self._is_additive()
        self.fingerprint = digest(f"words 1 {seed} {self.source} {sorted(costs.items())}".encode())

    def prompt(self, index: int, tokens: int) -> str:
        """Prompt number `index`, `tokens` tokens long.

        With a tokenizer the length is exact; raises ValueError where the tokenizer has no text of that length. A prompt
        too short for three words of its own has fewer, and may then occur twice.
        """
        return self._finished(*self._compose(index, self._budget(tokens)), tokens)

    def opening(self, group: int, tokens: int) -> tuple[str, int]:
        """A beginning for many prompts, unlike that of any other, and what it takes of the budget of a prompt.

        Lengths are as those of `prompt`.
        """
        text = self.prompt(self._codes - 1 - group, tokens)
        return text, len(text) if self._tokenizer is None else tokens

    def continued(self, opening: tuple[str, int], index: int, tokens: int) -> str:
        """As `prompt`, but `opening` comes first and counts among the tokens."""
        before, spent = opening
        return self._finished(*self._compose(index, self._budget(tokens) - spent, before), tokens)

    def _budget(self, tokens: int) -> int:
        return tokens if self._tokenizer else tokens * CHARACTERS_PER_TOKEN

    def _finished(self, text: str, missing: int, tokens: int) -> str:
        """A composed text of exactly the length asked for, where that can be counted."""
        if self._tokenizer is None:
            return text
        if missing >= 0 and self._filler is not None:
            text += self._filler * missing
            if self._additive:
                return text
        return _repair(text, tokens, self._tokenizer, self._filler)

    def _cost(self, text: str) -> int:
        """What a text takes of the budget: tokens where they can be counted, else characters."""
        return len(text) if self._tokenizer is None else self._tokenizer.count(text)

    def _compose(self, index: int, budget: int, before: str = "") -> tuple[str, int]:
        """Head and sentences within the budget, and what is left of it; below zero where not even one word fits.

        before: stands before the head and is not in the budget.
        """
        head, left = self._head(index, budget, before)
        start = mix(index ^ self._salt) % (len(self._ends) - 1)
        parts = [head]
        while left > 0:
            end = bisect_right(self._spent, self._spent[start] + left) - 1
            parts.append(self._corpus[self._ends[start] : self._ends[end]])
            left -= self._spent[end] - self._spent[start]
            if end < len(self._ends) - 1:
                break
            start = 0
        return "".join(parts), left

    def _head(self, index: int, budget: int, before: str) -> tuple[str, int]:
        code, base = (index * self._step + self._shift) % self._codes, len(self._heads)
        first, second, third = code // base**2, code // base % base, code % base
        word = self._heads[first]
        text, cost = (f"{before} {word}", self._costs[word]) if before else (word, self._first_costs[word])
        left = budget - cost
        for word in (self._heads[second], self._heads[third]):
            if self._costs[word] > left:
                break
            text, left = f"{text} {word}", left - self._costs[word]
        return text, left

    def _is_additive(self) -> bool:
        """Whether the tokenizer counts words one by one, so that the sum over the words is the length of the text.

        True of every tokenizer that splits at spaces first; tried on 24 prompts.
        """
        if self._tokenizer is None or self._filler is None:
            return False
        for index, tokens in enumerate((24, 63, 64, 200, 513, 1000) * 4):
            text, missing = self._compose(index, tokens)
            if missing < 0 or self._tokenizer.count(text + self._filler * missing) != tokens:
                return False
            longer, missing = self._compose(index, tokens, text + self._filler * missing)
            if missing < 0 or self._tokenizer.count(longer + self._filler * missing) != 2 * tokens:
                return False
        return True


def _shuffled_words(seed: int) -> list[str]:
    picks = generator(seed, 0).integers(len(SENTENCES), size=_CORPUS_SENTENCES)
    return " ".join(SENTENCES[pick] for pick in picks).split()


def _permutation(size: int, seed: int) -> tuple[int, int]:
    """step and shift such that i -> (i * step + shift) mod size visits every number once, in far jumps."""
    random = generator(seed, 2)
    step = int(size * (0.58 + 0.08 * random.random())) | 1
    while math.gcd(step, size) != 1:
        step += 1
    return step, int(random.integers(size))


def mix(value: int) -> int:
    """A well-scattered 64-bit number for every number: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _filler(tokenizer: Tokenizer) -> str | None:
    """A text that adds exactly one token at the end of any sentence, however often."""
    base = SENTENCES[0]
    known = tokenizer.count(base)
    for candidate in (" the", " a", " and", ".", "!", "a"):
        if all(tokenizer.count(base + candidate * n) == known + n for n in range(1, 9)):
            return candidate
    return None


def _repair(text: str, tokens: int, tokenizer: Tokenizer, filler: str | None) -> str:
    """The text, cut or lengthened until it counts exactly `tokens`; ValueError where that cannot be reached."""
    while text and tokenizer.count(text) > tokens:
        over = tokenizer.count(text) - tokens
        text = text[: -max(1, over // 2)]
    while filler and (missing := tokens - tokenizer.count(text)) > 0:
        longer = text + filler * missing
        if tokenizer.count(longer) <= tokenizer.count(text):
            break
        text = longer
    if tokenizer.count(text) != tokens:
        raise ValueError(f"the tokenizer has no text of exactly {tokens} tokens among the built-in prompts")
    return text


LEAST_OWN_TOKENS = 8
_SCALE = 2.0**-64


class PrefixedPrompts:
    """A share of prompts begins with one of `groups` common prefixes; see `harness.schedule.prompts.Prompts`.

    The length asked for is that of the whole prompt. A prompt too short for the prefix and 8 tokens of its own begins
    with a part of the prefix. Who has which prefix depends on seed and index alone.
    """

    def __init__(self, words: WordPrompts, seed: int, *, share: float, tokens: int, groups: int) -> None:
        self.source = words.source
        self.fingerprint = digest(f"prefix 1 {words.fingerprint} {seed} {share!r} {tokens} {groups}".encode())
        self.words = words
        self._share, self._tokens, self._groups = share, tokens, groups
        self._salt = int(generator(seed, 3).integers(2**63))
        self._openings: dict[int, tuple[str, int]] = {}

    def group(self, index: int) -> int | None:
        """Which of the common prefixes request `index` begins with, from 0; None: with none."""
        scattered = mix(index ^ self._salt)
        if scattered * _SCALE >= self._share:
            return None
        return mix(scattered) % self._groups

    def prompt(self, index: int, tokens: int) -> str:
        """The prompt of request `index`, `tokens` tokens long; raises ValueError as `WordPrompts.prompt`."""
        group, shared = self.group(index), min(self._tokens, tokens - LEAST_OWN_TOKENS)
        if group is None or shared < 1:
            return self.words.prompt(index, tokens)
        return self.words.continued(self._opening(group, shared), index, tokens)

    def _opening(self, group: int, tokens: int) -> tuple[str, int]:
        if tokens < self._tokens:
            return self.words.opening(group, tokens)
        if group not in self._openings:
            self._openings[group] = self.words.opening(group, tokens)
        return self._openings[group]
