"""Prompts from the files and data sets that a scenario names."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.base import Message
from harness.errors import Problem, ScenarioError
from harness.scenario.files.entries import entries, fingerprint
from harness.scenario.files.hub import HubPrompts, fetched
from harness.scenario.files.layouts import WANTED, Conversation, Prompt, Skipped, UnknownLayout, prompt_of, renamed
from harness.seeding import generator

_OFFSET = 4
_MOST_PROBLEMS = 20
_MOST_KEYS = 6


class Tokenizer(Protocol):
    """Tokenizer that counts the tokens of a text, without special tokens."""

    def count(self, text: str) -> int: ...


class FilePrompts:
    """Prompts of a file in its order, from the start again after the last; see `Prompts`.

    The layouts are those of `prompt_layouts`. In conversations (`in_sessions`), a file with `messages` or
    `conversations` has one conversation a line.

    Attributes:
        offset: First line used, from 0. Drawn from the seed, so that the loads of one engine start use other lines.
        output_tokens: Per line; 0 if the line states none.
        prompt_tokens: Per line; 0 if they cannot be counted.
        in_sessions: True if each line is one conversation, with the user's messages as its turns.
        notes: Sentences on keys that were not read, and on lines that were skipped.
    """

    source = "file"

    def __init__(
        self, path: Path | HubPrompts, tokenizer: Tokenizer | None = None, seed: int = 0, *, sessions: bool = False
    ) -> None:
        """Raise ScenarioError with the place of every mistake in the file; `sessions`: for conversations."""
        columns = {} if isinstance(path, Path) else {str(ours): name for ours, name in path.columns.items()}
        reader = _Reader(columns)
        for file in [path] if isinstance(path, Path) else fetched(path):
            reader.read(file)
        self._prompts, self.notes = reader.finished(), reader.notes()
        self.fingerprint = reader.fingerprint
        self.output_tokens = np.array(reader.output_tokens, dtype=np.int32)
        self.in_sessions = sessions and any(isinstance(prompt, Conversation) for prompt in self._prompts)
        counter = None if self.in_sessions else tokenizer
        self.prompt_tokens = np.array([_known_tokens(prompt, counter) for prompt in self._prompts], dtype=np.int32)
        self.offset = int(generator(seed, _OFFSET).integers(len(self._prompts)))

    def lines(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lines of some requests, by their numbers among the requests that use the file."""
        found: NDArray[np.int64] = (numbers + self.offset) % len(self._prompts)
        return found

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def all_text(self) -> bool:
        """True if no prompt is given as token ids."""
        return not any(isinstance(prompt, tuple) for prompt in self._prompts)

    def prompt(self, index: int, tokens: int) -> str | tuple[int, ...]:
        """Return the prompt of request `index` among the requests that use the file; `tokens` is not used."""
        prompt = self._at(index)
        return prompt.single()[1] if isinstance(prompt, Conversation) else prompt

    def before(self, index: int) -> tuple[Message, ...]:
        """Return the messages before the prompt of request `index`."""
        prompt = self._at(index)
        return prompt.single()[0] if isinstance(prompt, Conversation) else ()

    def turn(self, session: int, turn: int) -> tuple[tuple[Message, ...], str]:
        """Return the messages before a conversation, and the prompt of one of its turns."""
        prompt = self._at(session)
        if isinstance(prompt, Conversation):
            return prompt.turn(turn)
        return (), prompt if isinstance(prompt, str) else ""

    def turns(self, session: int) -> int:
        """Return the number of turns of a conversation: the user's messages of its line."""
        return _turns(self._at(session))

    def turn_counts(self) -> Counter[int]:
        """Return the number of lines by their number of turns; empty if lines are no conversations."""
        return Counter(_turns(prompt) for prompt in self._prompts) if self.in_sessions else Counter()

    def _at(self, index: int) -> Prompt:
        return self._prompts[(index + self.offset) % len(self._prompts)]


@dataclass(frozen=True, slots=True)
class Summary:
    """Facts about a file of prompts.

    Attributes:
        all_text: No prompt is given as token ids.
        turns: Number of conversations by their number of turns; empty if lines are no conversations.
        notes: See `FilePrompts`.
    """

    all_text: bool
    turns: Counter[int]
    notes: list[str]


def summary(source: Path | HubPrompts) -> Summary:
    """Return the facts about a file, which is read again only if it has changed. Raises as `FilePrompts`."""
    if not isinstance(source, Path):
        return _summary(source, "")
    try:
        return _summary(source, fingerprint(source))
    except OSError as error:
        raise _unreadable(source, error) from error


@lru_cache(maxsize=8)
def _summary(source: Path | HubPrompts, content: str) -> Summary:
    """Return the summary of a content, for which `content` stands."""
    prompts = FilePrompts(source, sessions=True)
    return Summary(prompts.all_text, prompts.turn_counts(), prompts.notes)


class _Reader:
    """Reader of the files of one data set."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.output_tokens = array("i")
        self.fingerprint = ""
        self._columns = columns
        self._prompts: list[Prompt] = []
        self._problems: list[Problem] = []
        self._unread: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._path = Path()

    def read(self, path: Path) -> None:
        """Read one file; raise ScenarioError if it cannot be read."""
        self._path = path
        tabular = path.suffix in (".csv", ".tsv")
        try:
            own = fingerprint(path)
            self.fingerprint = digest((self.fingerprint + own).encode()) if self.fingerprint else own
            for line, values in entries(path, (lambda _: None) if tabular else None):
                if not self._add(line, values):
                    break
        except OSError as error:
            raise _unreadable(path, error) from error

    def finished(self) -> list[Prompt]:
        """Return the prompts; raise ScenarioError if there are problems, or no prompts."""
        if self._problems or not self._prompts:
            empty = 'the file has no prompts; write one {"prompt": "..."} a line'
            if self._skipped:
                empty = f"no line has a prompt: {self._reasons()}; {WANTED}"
            raise ScenarioError(self._problems or [_problem(self._path, empty)])
        return self._prompts

    def notes(self) -> list[str]:
        """Return a sentence on keys that were not read, and one on lines that were skipped."""
        found = []
        if self._skipped:
            skipped = self._skipped.total()
            of = skipped + len(self._prompts)
            found.append(f"{self._path.name}: {skipped:,} of {of:,} lines are skipped: {self._reasons()}")
        if self._unread:
            keys = [f"`{key:.40}` in {_lines(count)}" for key, count in self._unread.most_common(_MOST_KEYS)]
            more = len(self._unread) - len(keys)
            keys += [f"{more} more keys"] if more else []
            found.append(f"{self._path.name}: not read: {', '.join(keys)}")
        return found

    def _add(self, line: int, values: Mapping[str, object] | str) -> bool:
        """Add a line; return False if the rest of the file is not worth reading."""
        try:
            if isinstance(values, str):
                raise ValueError(values)
            prompt, tokens, unread = prompt_of(renamed(values, self._columns) if self._columns else values)
        except Skipped as skipped:
            self._skipped[str(skipped)] += 1
        except ValueError as error:
            self._problems.append(_problem(self._path, str(error), line))
            # One sentence for a layout that is not known, rather than one for each line.
            if not self._prompts and (len(self._problems) > 1 or isinstance(error, UnknownLayout)):
                del self._problems[1:]
                return False
            return len(self._problems) < _MOST_PROBLEMS
        else:
            self._prompts.append(prompt)
            self.output_tokens.append(tokens)
            self._unread.update(unread)
        return True

    def _reasons(self) -> str:
        return ", ".join(f"{count:,} with {reason}" for reason, count in self._skipped.most_common(_MOST_KEYS))


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"


def _problem(path: Path, reason: str, line: int | None = None) -> Problem:
    return Problem(reason, key="workload.prompts", file=str(path), line=line)


def _unreadable(path: Path, error: OSError) -> ScenarioError:
    reason = f"prompts cannot be read: {error.strerror}; write the path of a JSON Lines file"
    return ScenarioError([_problem(path, reason)])


def _turns(prompt: Prompt) -> int:
    return prompt.turns if isinstance(prompt, Conversation) else 1


def _known_tokens(prompt: Prompt, tokenizer: Tokenizer | None) -> int:
    """Return the tokens of a prompt; 0 without tokenizer, or if a chat template adds an unknown number per message."""
    if isinstance(prompt, tuple):
        return len(prompt)
    if tokenizer is None:
        return 0
    if isinstance(prompt, str):
        return tokenizer.count(prompt)
    before, text = prompt.single()
    if any(message.role != "system" for message in before):
        return 0
    return sum(tokenizer.count(message.text) for message in before) + tokenizer.count(text)


def digest(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
