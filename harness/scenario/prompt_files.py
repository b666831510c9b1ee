"""Prompts from the JSON Lines files that a scenario names."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import Problem, ScenarioError
from harness.seeding import generator

_OFFSET = 4
_MOST_PROBLEMS = 20
_HALF = re.compile("[\ud800-\udfff]")


class Tokenizer(Protocol):
    """Tokenizer that counts the tokens of a text, without special tokens."""

    def count(self, text: str) -> int: ...


class FilePrompts:
    """Prompts of a JSON Lines file in its order, from the start again after the last; see `Prompts`.

    Lines are {"prompt": text or list of token ids, "output_tokens": n (optional)}; other keys are ignored.

    Attributes:
        offset: First line used, from 0. Drawn from the seed, so that the loads of one engine start use other lines.
        output_tokens: Per line; 0 if the line states none.
        prompt_tokens: Per line; 0 if they cannot be counted.
    """

    source = "file"

    def __init__(self, path: Path, tokenizer: Tokenizer | None = None, seed: int = 0) -> None:
        """Raise ScenarioError with the place of every mistake in the file."""
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = f"prompts cannot be read: {error.strerror}; write the path of a JSON Lines file"
            raise ScenarioError([_problem(path, reason)]) from error
        self.fingerprint = digest(content)
        self._prompts, output_tokens = _parse_lines(path, content)
        self.output_tokens = np.array(output_tokens, dtype=np.int32)
        self.prompt_tokens = np.array([_known_tokens(prompt, tokenizer) for prompt in self._prompts], dtype=np.int32)
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
        return all(isinstance(prompt, str) for prompt in self._prompts)

    def prompt(self, index: int, tokens: int) -> str | tuple[int, ...]:
        """Return the prompt of request `index` among the requests that use the file; `tokens` is not used."""
        return self._prompts[(index + self.offset) % len(self._prompts)]


def _problem(path: Path, reason: str, line: int | None = None) -> Problem:
    return Problem(reason, key="workload.prompts", file=str(path), line=line)


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
            problems.append(_problem(path, str(error), number))
            if len(problems) == _MOST_PROBLEMS:
                break
        else:
            prompts.append(prompt)
            output_tokens.append(tokens)
    if problems or not prompts:
        empty = 'the file has no prompts; write one {"prompt": "..."} a line'
        raise ScenarioError(problems or [_problem(path, empty)])
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
        raise ValueError(f"larger than any prompt; {wanted}") from error
    if not isinstance(entry, dict):
        raise ValueError(f"not a JSON object; {wanted}")
    for key in entry.keys() - {"prompt", "output_tokens"}:
        if near := difflib.get_close_matches(key, ["prompt", "output_tokens"], n=1, cutoff=0.8):
            raise ValueError(f"unknown key {key!r}; did you mean {near[0]!r}?")
    tokens = entry.get("output_tokens")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 < tokens < 2**31):
        raise ValueError(f"'output_tokens' must be a whole number of at least 1, found {tokens!r}")
    return _parse_prompt(entry.get("prompt"), wanted), tokens or 0


def _parse_prompt(prompt: object, wanted: str) -> str | tuple[int, ...]:
    if isinstance(prompt, str) and prompt:
        if half := _HALF.search(prompt):
            code = f"\\u{ord(half[0]):04x}"
            raise ValueError(f"'prompt' contains half a character ({code}); write both halves, or \\ufffd")
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int and token >= 0 for token in prompt):
        return tuple(prompt)
    raise ValueError(f"'prompt' must be a text or a list of token ids, and not empty; {wanted}")


def _known_tokens(prompt: str | tuple[int, ...], tokenizer: Tokenizer | None) -> int:
    if isinstance(prompt, tuple):
        return len(prompt)
    return 0 if tokenizer is None else tokenizer.count(prompt)


def digest(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
