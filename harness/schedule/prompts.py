"""What is asked: how long, and which words. Pure functions of (seed, index); a file is read once, when it is opened.

Made-up prompts are plain English sentences. Each begins with three words chosen by its index, no two alike, so that a
prefix cache finds nothing to reuse unless the scenario wants it to.

The words that made-up prompts are built from: plain sentences of our own, without digits or rare words.

Prompts that share their beginnings, as those of one application with a long instruction do.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.scenario.prompt_files import Tokenizer, digest
from harness.seeding import generator

SENTENCES = (
    "The old bridge over the river was closed for the winter, and people walked the long way round.",
    "She wrote the letter twice, because the first one sounded colder than she meant.",
    "A small boat left the harbour before sunrise with three men and a quiet dog on board.",
    "Most of the village knew the story, yet nobody agreed on how it ended.",
    "Rain fell on the tin roof all night and filled every bucket in the yard.",
    "The teacher asked each child to bring one question and no answers.",
    "Under the stairs he found a box of maps drawn by someone with a patient hand.",
    "They planted apple trees along the road so that travellers would have shade and fruit.",
    "The market opens early on Saturday, and the best bread is gone within an hour.",
    "My neighbour repairs clocks, although his own kitchen clock has been wrong for years.",
    "Nobody had cleaned the windows since spring, so the light came in soft and brown.",
    "The train was late again, but the view from the platform made up for it.",
    "Before the meeting began, someone had already moved all the chairs into a circle.",
    "A good recipe says what to do when things go wrong, not only when they go well.",
    "The library keeps a shelf of books that were returned without a name.",
    "He learned to swim in a cold lake, with an uncle shouting advice from the shore.",
    "When the power failed, the whole street came outside to look at the stars.",
    "The garden is smaller than it looks in the photograph, but the roses are real.",
    "Every morning the baker whistles the same tune and never gets past the middle.",
    "Please describe the most useful tool in your house and explain why you keep it.",
    "The mountain path is safe in summer if you start early and carry enough water.",
    "Two friends opened a shop for used bicycles and slowly learned to fix them.",
    "The museum guide spoke about the painter as if they had met the week before.",
    "It takes a long time to build trust and a short message to lose it.",
    "Our train of thought was broken by a knock at the door and the smell of coffee.",
    "The farmer counted the sheep by colour first and by number only at the gate.",
    "If the weather holds, the boats will race around the island on Sunday afternoon.",
    "She keeps a notebook of mistakes and reads it whenever she feels too certain.",
    "The new lamp is bright enough to read by, yet gentle enough for conversation.",
    "Somewhere behind the wall a cat was asking to be let in or out.",
    "The doctor drew a simple picture and the patient finally understood the plan.",
    "Write a short summary of the report for a reader who has only two minutes.",
    "The valley was so quiet that we could hear the snow slide from the branches.",
    "He bought a map of a city he had never seen and learned its streets by heart.",
    "The orchestra tuned for a long time, and some listeners liked that part best.",
    "An honest answer given late is better than a quick one that has to be taken back.",
    "The ferry carries cars, letters, goats and, on rare days, a travelling theatre.",
    "What would you change about this plan if you had twice the time and half the money?",
    "The hotel had no lift, so the guests on the top floor became good friends.",
    "Each spring the river moves a little, and the farmers move their fences with it.",
    "They argued about the colour of the door until the paint in the can had dried.",
    "The engineer listened to the pump for a minute and then asked for a smaller wrench.",
    "A child asked why the moon follows the car, and nobody in the car was sure.",
    "The soup needs salt, patience and a lid that fits.",
    "Compare the two proposals and say which risks are shared and which are new.",
    "The postman knows every dog on the hill and most of their secrets.",
    "Long ago this field was a lake, and in wet years it remembers.",
    "The choir practises in the kitchen because the echo is kind to beginners.",
    "He sold the house with the piano in it, since neither would fit through the door.",
    "After the harvest there is music in the barn and flour on every coat.",
    "The photograph shows five people laughing at something just outside the frame.",
    "Explain in plain words how a key turns a lock, as if to a curious visitor.",
    "The night watchman reads novels about the sea and dreams of dry land.",
    "No one remembers who hung the bell, but everyone knows what it means.",
    "The path divides at the broken pine; keep left unless you like wet shoes.",
    "She measured the room with her scarf and ordered the shelf to match.",
)

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
