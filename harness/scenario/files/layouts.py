"""Layouts of prompt files: a prompt a line, chat `messages`, and `conversations` as in ShareGPT."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from engines.base import Message

PROMPTS = ("prompt", "text", "text_input")
TALKS = ("messages", "conversations", "conversation")
SYSTEMS = ("system", "system_prompt")
OUTPUTS = (
    "output_tokens",
    "max_tokens",
    "max_completion_tokens",
    "max_new_tokens",
    "output_length",
    "output_len",
    "expected_output_len",
    "output_tokens_count",
    "completion_tokens_count",
    "completion_tokens",
)
WANTED = 'write {"prompt": "...", "output_tokens": 100}'

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "bard", "bing"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_TOOL_ROLES = frozenset({"tool", "function", "function_call", "observation"})
_KNOWN = frozenset((*PROMPTS, *TALKS, *SYSTEMS, *OUTPUTS))
_HALF = re.compile("[\ud800-\udfff]")


class Skipped(Exception):
    """Line of a data set that no request can be made of, with the reason after "have"."""


class UnknownLayout(ValueError):
    """Line without any of the keys that hold a prompt."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of a line, up to the last of the user.

    Attributes:
        at_first: A single request is the first turn, as in `conversations`; otherwise the last, as in `messages`.
    """

    messages: tuple[Message, ...]
    at_first: bool

    def single(self) -> tuple[tuple[Message, ...], str]:
        """Return the messages before a single request, and its prompt."""
        at = self._users()[0] if self.at_first else len(self.messages) - 1
        return self.messages[:at], self.messages[at].text

    def turn(self, number: int) -> tuple[tuple[Message, ...], str]:
        """Return the messages before a conversation, and the user's message of a turn from 0."""
        users = self._users()
        return self.messages[: users[0]], self.messages[users[number]].text

    @property
    def turns(self) -> int:
        """Number of messages of the user."""
        return len(self._users())

    def _users(self) -> list[int]:
        return [at for at, message in enumerate(self.messages) if message.role == "user"]


_MAIN = ("prompt", *TALKS, *PROMPTS[1:])  # the first that a line has
Prompt = str | tuple[int, ...] | Conversation


def renamed(values: Mapping[str, object], columns: Mapping[str, str]) -> Mapping[str, object]:
    """Return the values under our names; `columns` has the name in the data set by ours. Raise UnknownLayout."""
    missing = [name for name in columns.values() if name not in values]
    if missing:
        raise UnknownLayout(f"has no column `{missing[0]}`; its columns are {_listed(values)}")
    return {key: value for key, value in values.items() if key not in columns.values()} | {
        ours: values[name] for ours, name in columns.items()
    }


def prompt_of(values: Mapping[str, object]) -> tuple[Prompt, int, list[str]]:
    """Return the prompt of a line, its number of output tokens (0: not stated), and the keys that were not read.

    Raises:
        Skipped: A conversation without a message of the user, or with a message that is no text.
        UnknownLayout: The line has none of the keys of a prompt.
        ValueError: A value is wrong.
    """
    named = [name for name in _MAIN if name in values]
    main = next((name for name in named if values[name] not in (None, "")), named[0] if named else None)
    _check_spelling(values, main)
    if main is None:
        raise UnknownLayout(
            f"has the keys {_listed(values)} and no prompt; write the text as `prompt`, or use `messages` or "
            "`conversations`"
        )
    lengths = [name for name in OUTPUTS if values.get(name) not in (None, "")]
    systems = [name for name in SYSTEMS if values.get(name)]
    used = {main, *OUTPUTS, *systems[:1]}
    tokens = _count(lengths[0], values[lengths[0]]) if lengths else 0
    prompt = _prompt(main, values[main], None if not systems else _checked(values[systems[0]], systems[0]))
    return prompt, tokens, [key for key in values if key not in used]


def _check_spelling(values: Mapping[str, object], main: str | None) -> None:
    stated = not values.keys().isdisjoint(OUTPUTS)
    for key in values:
        if key not in _KNOWN and (near := _meant(key, main is not None, stated)):
            raise ValueError(f"unknown key {key!r}; did you mean {near!r}?")


@lru_cache(maxsize=1024)
def _meant(key: str, has_prompt: bool, has_tokens: bool) -> str | None:
    """Return the key that a line lacks and that resembles an unknown one."""
    missing = ([] if has_prompt else ["prompt"]) + ([] if has_tokens else ["output_tokens"])
    return next(iter(difflib.get_close_matches(key, missing, n=1, cutoff=0.8)), None)


def _prompt(name: str, value: object, system: str | None) -> Prompt:
    opening = () if system is None else (Message("system", system),)
    if name in TALKS or (isinstance(value, list) and value and isinstance(value[0], dict)):
        messages = (*opening, *_messages(name, value))
        last = max((at for at, message in enumerate(messages) if message.role == "user"), default=None)
        if last is None:
            raise Skipped("no message of a user")
        return Conversation(messages[: last + 1], at_first=name in TALKS[1:])
    if isinstance(value, str) and value:
        text = _checked(value, name)
        return Conversation((*opening, Message("user", text)), at_first=False) if opening else text
    if isinstance(value, list) and value and all(type(token) is int and token >= 0 for token in value):
        if opening:
            raise ValueError("a system message cannot precede token ids; write the prompt as text")
        return tuple(value)
    raise ValueError(f"{name!r} must be a text or a list of token ids, and not empty; {WANTED}")


def _messages(name: str, value: object) -> Iterator[Message]:
    if isinstance(value, str) and value.lstrip().startswith("["):  # a column of CSV
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name!r} is a text that is not JSON; write a list of messages") from error
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError(f'{name!r} must be a list of messages such as {{"role": "user", "content": "..."}}')
    for one in value:
        role, content = one.get("role", one.get("from")), one.get("content", one.get("value"))
        if role in _TOOL_ROLES:
            raise Skipped(f"a message of the role `{role}`")
        known = _ROLES.get(role) if isinstance(role, str) else None
        if known is None:
            raise ValueError(f"the role {role!r:.60} of a message is not known; write system, user or assistant")
        text = _content(content)
        if text is None:
            raise Skipped("a message without text")
        if text or known == "user":
            if not text:
                raise Skipped("an empty message of a user")
            yield Message(known, _checked(text, name))


def _content(content: object) -> str | None:
    """Return the text of a message or of its parts; None if there is another kind of content."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return "".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None


def _checked(text: object, name: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{name!r} must be a text, found {text!r:.60}")
    if half := _HALF.search(text):
        code = f"\\u{ord(half[0]):04x}"
        raise ValueError(f"{name!r} contains half a character ({code}); write both halves, or \\ufffd")
    return text


def _count(name: str, value: object) -> int:
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    whole = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 12 else whole
    if not isinstance(whole, int) or isinstance(whole, bool) or not 0 < whole < 2**31:
        raise ValueError(f"{name!r} must be a whole number of at least 1, found {value!r:.60}")
    return whole


def _listed(values: Mapping[str, object]) -> str:
    names = [f"`{name:.40}`" for name in values]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "none"
