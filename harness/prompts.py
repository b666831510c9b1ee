"""What is asked: how long, and which words. Pure functions of (seed, index); a file is read once, when it is opened.

Made-up prompts are plain English sentences. Each begins with three words chosen by its index, no two alike, so that a
prefix cache finds nothing to reuse unless the scenario wants it to.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import Problem, ScenarioError
from harness.seeding import generator
from harness.sentences import SENTENCES

CHARACTERS_PER_TOKEN = 4
_HEAD_WORDS = 3
_OFFSET = 4
_CORPUS_SENTENCES = 2_000
_LONGEST = 2**31 - 1
_MASK = 2**64 - 1
_MOST_PROBLEMS = 20
_HALF = re.compile("[\ud800-\udfff]")


class Length(Protocol):
    """A distribution of token counts as the scenario states it, with the parameters of its `dist`."""

    @property
    def dist(self) -> str:
        """`fixed`, `uniform`, `normal`, `lognormal` or `empirical`."""
        ...


class Tokenizer(Protocol):
    """What is needed of a tokenizer; no special tokens are added."""

    def count(self, text: str) -> int:
        """Number of tokens of a text."""
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


class FilePrompts:
    """Prompts from a JSON Lines file, in the order of the file, again from the start after the last; see `Prompts`.

    offset: the line with which they begin, from 0; drawn from the seed, so that loads of one start meet others.
    A line is {"prompt": text or list of token ids, "output_tokens": n (optional)}; other keys are the file's own.
    output_tokens: per line, 0 where the line does not say.   prompt_tokens: per line, 0 where it cannot be counted.
    """

    source = "file"

    def __init__(self, path: Path, tokenizer: Tokenizer | None = None, seed: int = 0) -> None:
        """Raises ScenarioError with the file and line of everything wrong in the file."""
        content = _read(path)
        self.fingerprint = digest(content)
        self._prompts, output_tokens = _parse_lines(path, content)
        self.output_tokens = np.array(output_tokens, dtype=np.int32)
        self.prompt_tokens = np.array([_known_tokens(prompt, tokenizer) for prompt in self._prompts], dtype=np.int32)
        self.offset = int(generator(seed, _OFFSET).integers(len(self._prompts)))

    def lines(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The lines of some requests, by their numbers among those that draw from the file."""
        found: NDArray[np.int64] = (numbers + self.offset) % len(self._prompts)
        return found

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def all_text(self) -> bool:
        """Whether no prompt is given as token ids."""
        return all(isinstance(prompt, str) for prompt in self._prompts)

    def prompt(self, index: int, tokens: int) -> str | tuple[int, ...]:
        """The prompt of request `index` among those that draw from the file; `tokens` is not used."""
        return self._prompts[(index + self.offset) % len(self._prompts)]


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = f"the prompts cannot be read: {error.strerror}; write the path of a JSON Lines file"
        raise ScenarioError([Problem(reason, key="workload.prompts", file=str(path))]) from error


def _parse_lines(path: Path, content: bytes) -> tuple[list[str | tuple[int, ...]], list[int]]:
    prompts: list[str | tuple[int, ...]] = []
    output_tokens: list[int] = []
    problems: list[Problem] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            prompt, tokens = _parse_line(line)
        except ValueError as error:
            problems.append(Problem(str(error), key="workload.prompts", file=str(path), line=number))
            if len(problems) == _MOST_PROBLEMS:
                break
        else:
            prompts.append(prompt)
            output_tokens.append(tokens)
    if not prompts and not problems:
        reason = 'the file has no prompts; write one {"prompt": "..."} a line'
        problems.append(Problem(reason, key="workload.prompts", file=str(path)))
    if problems:
        raise ScenarioError(problems)
    return prompts, output_tokens


def _parse_line(line: bytes) -> tuple[str | tuple[int, ...], int]:
    wanted = 'write {"prompt": "...", "output_tokens": 100}'
    try:
        entry = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1} of the line; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno}); {wanted}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists without end
        raise ValueError(f"JSON that is larger than any prompt; {wanted}") from error
    if not isinstance(entry, dict):
        raise ValueError(f"a line is a JSON object; {wanted}")
    for key in entry.keys() - {"prompt", "output_tokens"}:
        near = difflib.get_close_matches(key, ["prompt", "output_tokens"], n=1, cutoff=0.8)
        if near:
            raise ValueError(f"unknown key {key!r}; did you mean {near[0]!r}?")
    tokens = entry.get("output_tokens")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 < tokens < 2**31):
        raise ValueError(f"output_tokens is a whole number of at least 1, not {tokens!r}")
    return _parse_prompt(entry.get("prompt"), wanted), tokens or 0


def _parse_prompt(prompt: object, wanted: str) -> str | tuple[int, ...]:
    if isinstance(prompt, str) and prompt:
        if half := _HALF.search(prompt):
            raise ValueError(f"'prompt' holds half a character (\\u{ord(half[0]):04x}); write both halves, or \\ufffd")
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int and token >= 0 for token in prompt):
        return tuple(prompt)
    raise ValueError(f"'prompt' is a text or a list of token ids, and not empty; {wanted}")


def _known_tokens(prompt: str | tuple[int, ...], tokenizer: Tokenizer | None) -> int:
    if isinstance(prompt, tuple):
        return len(prompt)
    return 0 if tokenizer is None else tokenizer.count(prompt)


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
