"""Placeholders in a command line: `{port}`, `{model}` and `{label.NAME}`; `{{word}}` stands for the text `{word}`.

Only a name in braces is a placeholder. JSON, `{}` and a shell's `${NAME}` stay as they are.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial

PORT, MODEL = "port", "model"
KNOWN = (PORT, MODEL)
_LABEL = "label."
_IN_BRACES = re.compile(r"(?<![${])(\{+)(\s*[A-Za-z_]\w*(?:[.-]\w+)*\s*)(\}+)")


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with its placeholders filled in; unknown ones stay."""
    return _IN_BRACES.sub(partial(_fill, values), text)


def names_in(text: str) -> Iterator[str]:
    """Yield the names of the placeholders in a text, known or not, as they are written."""
    for found in _IN_BRACES.finditer(text):
        if _is_placeholder(found):
            yield found[2]


def problem_with(text: str) -> str | None:
    """Return what is wrong with the placeholders in a text: the first that is unknown, and what to write."""
    unknown = next((name for name in names_in(text) if name not in KNOWN and not name.startswith(_LABEL)), None)
    if unknown is None:
        return None
    near = get_close_matches(unknown.strip().lower(), KNOWN, n=1)
    instead = f"did you mean `{{{near[0]}}}`?" if near else "known are `{port}`, `{model}` and `{label.NAME}`."
    return f"unknown placeholder `{{{unknown}}}`: {instead} Write `{{{{{unknown}}}}}` for these characters themselves"


def labels_in(text: str) -> Iterator[str]:
    """Yield the names of the labels that stand in a text, as `commit` for `{label.commit}`."""
    return (name.removeprefix(_LABEL) for name in names_in(text) if name.startswith(_LABEL))


def label_values(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the placeholders of labels."""
    return {f"{_LABEL}{name}": value for name, value in labels.items()}


def command_of(words: Sequence[str]) -> str:
    """Return the command line of these words, in which only a word `{port}` is a placeholder."""
    return shlex.join(word if word == "{port}" else literal(word) for word in words)


def literal(text: str) -> str:
    """Return the text that becomes this one when it is filled in."""
    return _IN_BRACES.sub(r"{\1\2\3}", text)


def _fill(values: Mapping[str, str], found: re.Match[str]) -> str:
    opening, name, closing = found.groups()
    if not _is_placeholder(found):
        return "".join((opening[1:], name, closing[1:]))
    return "".join((opening[1:], values[name], closing[1:])) if name in values else found[0]


def _is_placeholder(found: re.Match[str]) -> bool:
    """Return whether a name has a single brace on one side: `{name}`, or `{name}` inside JSON."""
    return min(len(found[1]), len(found[3])) == 1
