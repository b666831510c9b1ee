"""Generated prompts and drawn lengths: pure functions of (seed, index).

Generated prompts are plain English sentences. Each begins with three words chosen by its index. These beginnings are
unique, so that a prefix cache finds nothing to reuse. Prompts may share a prefix if the scenario requests it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.scenario.files.prompts import Tokenizer, digest
from harness.scenario.lengths import Length, ThinkTime
from harness.seeding import generator

# Sentences of generated prompts, without digits or rare words.
SENTENCES = tuple((Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines())
CHARACTERS_PER_TOKEN = 4
LEAST_OWN_TOKENS = 8
_CORPUS_SENTENCES = 2_000
_MASK = 2**64 - 1


class Prompts(Protocol):
    """Source of prompts, by the index of a request and the requested length.

    Attributes:
        source: "tokenizer" (exact length), "estimated" (4 characters per token) or "file" (length of the file).
        fingerprint: Identity of the prompts.
    """

    source: str
    fingerprint: str

    def prompt(self, index: int, tokens: int) -> str | tuple[int, ...]: ...


def draw_lengths(length: Length, random: np.random.Generator, count: int) -> NDArray[np.int32]:
    """Return `count` token counts from a distribution, clipped to its `min` and `max`."""
    return np.clip(np.rint(_draw(length, random, count)), length.min, length.max or 2**31 - 1).astype(np.int32)


def draw_seconds(time: ThinkTime, random: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return `count` times in ns from a distribution of seconds."""
    match time.dist:
        case "fixed":
            drawn = np.full(count, time.value_s)
        case "exponential":
            drawn = random.exponential(time.mean_s, count)
        case "lognormal":
            drawn = np.exp(random.normal(time.log_mean, time.log_sd, count))
    return np.rint(drawn * 1e9).astype(np.int64)


def _draw(length: Length, random: np.random.Generator, count: int) -> NDArray[np.float64]:
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
            return random.choice(np.asarray(length.values, dtype=np.float64), count, p=weights / weights.sum())


class WordPrompts:
    """Generated prompts of a requested length; see `Prompts`.

    Another `salt` gives every prompt and prefix other first words. A server then does not know the prompts of an
    earlier run. The salt is not part of the fingerprint.
    """

    def __init__(self, seed: int, tokenizer: Tokenizer | None = None, salt: int = 0) -> None:
        self.source = "estimated" if tokenizer is None else "tokenizer"
        self._tokenizer = tokenizer
        self._salt = int(generator(seed, 1).integers(2**63))
        picks = generator(seed, 0).integers(len(SENTENCES), size=_CORPUS_SENTENCES)
        words = " ".join(SENTENCES[pick] for pick in picks).split()
        self._heads = sorted({word.strip(".,;?").lower() for word in words})
        self._corpus = " " + " ".join(words)
        self._ends = list(accumulate((len(word) + 1 for word in words), initial=0))
        self._costs = {word: self._cost(" " + word) for word in set(words) | set(self._heads)}
        self._first_costs = {word: self._cost(word) for word in self._heads}
        self._spent = list(accumulate((self._costs[word] for word in words), initial=0))
        self._codes = len(self._heads) ** 3
        self._step, shift = _permutation(self._codes, seed)
        self._shift = (shift + salt) % self._codes
        self._filler = None if tokenizer is None else _filler(tokenizer)
        self._additive = tokenizer is None or self._is_additive()
        self.fingerprint = digest(f"words 1 {seed} {self.source} {sorted(self._costs.items())}".encode())

    def prompt(self, index: int, tokens: int) -> str:
        """Return prompt number `index` with `tokens` tokens; the length is exact if there is a tokenizer.

        A prompt too short for three unique words may occur twice. Raises ValueError if the tokenizer has no text of
        this length.
        """
        return self._finished(*self._compose(index, self._budget(tokens)), tokens)

    def opening(self, group: int, tokens: int) -> tuple[str, int]:
        """Return a unique beginning for many prompts, with the part of a prompt's budget that it uses."""
        text = self.prompt(self._codes - 1 - group, tokens)
        return text, len(text) if self._tokenizer is None else tokens

    def continued(self, opening: tuple[str, int], index: int, tokens: int) -> str:
        """Return a prompt that begins with `opening`, which counts among its tokens."""
        before, spent = opening
        return self._finished(*self._compose(index, self._budget(tokens) - spent, before), tokens)

    def in_blocks(self, ids: Sequence[int], block_tokens: int, index: int, tokens: int) -> str:
        """Return a prompt of `tokens` tokens that consists of blocks, by their ids from 0.

        The last block may be cut. If the blocks end before the prompt, the rest is that of prompt `index`.
        """
        text, left = "", tokens
        for number in ids:
            size = min(block_tokens, left)
            if size < 1:
                break
            text, missing = self._compose(self._codes - 1 - number, self._budget(size), text)
            left -= size
            if left > 0:  # complete, whatever follows
                text += self._fill(missing)
        if left > 0:
            text, missing = self._compose(index, self._budget(left), text)
        return self._finished(text, missing, tokens)

    def _fill(self, missing: int) -> str:
        return self._filler * missing if self._filler is not None and missing > 0 else ""

    def _budget(self, tokens: int) -> int:
        return tokens if self._tokenizer else tokens * CHARACTERS_PER_TOKEN

    def _finished(self, text: str, missing: int, tokens: int) -> str:
        """Return a composed text with the requested length, exactly if a tokenizer can count it."""
        if self._tokenizer is None:
            return text
        if missing >= 0 and self._filler is not None:
            text += self._filler * missing
            if self._additive:
                return text
        return _repair(text, tokens, self._tokenizer, self._filler)

    def _cost(self, text: str) -> int:
        """Return the budget that a text uses: tokens if they can be counted, else characters."""
        return len(text) if self._tokenizer is None else self._tokenizer.count(text)

    def _compose(self, index: int, budget: int, before: str = "") -> tuple[str, int]:
        """Return unique words and sentences within the budget, and the rest of the budget (negative if no word fits).

        The text `before` comes first and does not count in the budget.
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
        """Return True if the words' tokens add up to the text's, as for tokenizers that split at spaces first."""
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


def _permutation(size: int, seed: int) -> tuple[int, int]:
    """Return step and shift such that i -> (i * step + shift) mod size visits every number once, in far jumps."""
    random = generator(seed, 2)
    step = int(size * (0.58 + 0.08 * random.random())) | 1
    while math.gcd(step, size) != 1:
        step += 1
    return step, int(random.integers(size))


def mix(value: int) -> int:
    """Return a well-scattered 64-bit number by the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _filler(tokenizer: Tokenizer) -> str | None:
    """Return a text that adds exactly one token at the end of any sentence, even if repeated."""
    base, candidates = SENTENCES[0], (" the", " a", " and", ".", "!", "a")
    ends = [tokenizer.count(base) + n for n in range(1, 9)]
    return next((one for one in candidates if [tokenizer.count(base + one * n) for n in range(1, 9)] == ends), None)


def _repair(text: str, tokens: int, tokenizer: Tokenizer, filler: str | None) -> str:
    """Return the text, cut or extended to exactly `tokens` tokens; raise ValueError if that fails."""
    while text and (over := tokenizer.count(text) - tokens) > 0:
        text = text[: -max(1, over // 2)]
    while filler and (missing := tokens - tokenizer.count(text)) > 0:
        longer = text + filler * missing
        if tokenizer.count(longer) <= tokenizer.count(text):
            break
        text = longer
    if tokenizer.count(text) != tokens:
        raise ValueError(f"the tokenizer has no text of exactly {tokens} tokens among the built-in prompts")
    return text


class PrefixedPrompts:
    """Generated prompts, a share of which begins with one of `groups` common prefixes; see `Prompts`.

    The requested length is that of the whole prompt. A prompt too short for the prefix and 8 tokens of its own begins
    with a part of the prefix. Seed and index determine the prefix of a prompt.
    """

    def __init__(self, words: WordPrompts, seed: int, *, share: float, tokens: int, groups: int) -> None:
        self.source = words.source
        self.fingerprint = digest(f"prefix 1 {words.fingerprint} {seed} {share!r} {tokens} {groups}".encode())
        self.words = words
        self._share, self._tokens, self._groups = share, tokens, groups
        self._salt = int(generator(seed, 3).integers(2**63))
        self._openings: dict[int, tuple[str, int]] = {}

    def group(self, index: int) -> int | None:
        """Return the number of the prefix of request `index`, from 0; None without a prefix."""
        scattered = mix(index ^ self._salt)
        return None if scattered * 2.0**-64 >= self._share else mix(scattered) % self._groups

    def prompt(self, index: int, tokens: int) -> str:
        """Return the prompt of request `index` with `tokens` tokens; see `WordPrompts.prompt`."""
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
