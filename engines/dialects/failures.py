"""Failures inside replies that began well, in every dress that servers and gateways give them, with their words.

A failure may be a key (`error`, `errors`, `exception`, `fault` ...), an object or an event that calls itself an error,
an envelope whose code, status or success says so, a finish reason, or a text that is no JSON at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from engines.base import Chunk, ChunkKind
from engines.dialects.answers import as_json, clean, tolerant, unreadable

_QUOTED_CHARACTERS = 200
_DEEPEST = 6
_WORDS = (
    "message", "msg", "errormessage", "errormsg", "errmsg", "detail", "details", "description", "errordescription",
    "statusmsg", "statusmessage", "faultstring", "reason", "title", "error", "errors", "text",
)  # fmt: skip
_ERRORS = frozenset(
    {"error", "errors", "errormessage", "errormsg", "errmsg", "errortype", "exception", "fault", "failure", "traceback"}
)
_ERROR_CODES = frozenset({"errorcode", "errcode", "errno"})
_NAMES = frozenset({"object", "type", "event", "status", "state", "kind"})
_SUCCESS = frozenset({"success", "ok", "issuccess", "succeeded"})
_STATUS_CODES = frozenset({"status", "statuscode", "httpstatus"})
_ENVELOPES = frozenset({"baseresp", "data", "result", "response", "header", "body", "output"})
_TELLING = _ERRORS | _ERROR_CODES | _NAMES | _SUCCESS | _STATUS_CODES | _ENVELOPES | {"code"}
_GOOD_CODES = frozenset({"", "0", "200", "ok", "success", "succeeded", "none", "null"})
_USUAL = frozenset({"chat.completion.chunk", "chat.completion", "text_completion"})
_CALLS_ITSELF = re.compile(r"error|exception|fail|abort|fatal|overload|unavailable|denied|cancel|timed?[-_ ]?out", re.I)
_SAYS = re.compile(
    rb"error|exception|traceback|fail|fatal|abort|out of memory|overload|unavailable|denied|unauthori[sz]ed|forbidden|"
    rb"timed? ?out|too many requests|bad gateway|not found|refused|rate.?limit|exceeded|exhausted|crash|killed",
    re.I,
)
_SAYS_AS_KEY = re.compile(rb"""^[\[{\s]*['"]?(?:error|errors|exception|fault|detail)['"]?\s*:""", re.I)
_JSON_BEGINS = re.compile(rb"""\s*(?:\{|"|\[\s*[\[{"\d])""")
_USUAL_ENDS = frozenset({"stop", "length", "tool_calls"})
_ENDED_BADLY = re.compile(
    r"error|exception|abort|fail|cancel|timed?_?-?out|insufficient|overload|unavailable|interrupt|disconnect|crash|"
    r"kill|evict|preempt|out_of_memory|\boom\b",
    re.I,
)
_PULSE = re.compile(
    rb"[^a-z_\x80-\xff]*(?:ping|pong|keep[-_ ]?alive|heart[-_ ]?beat|(?:openrouter )?processing)?[^a-z_\x80-\xff]*",
    re.I,
)
_LONGEST_PULSE = 64
_READ_BYTES = 4096  # of a text that says that something failed, it says so here


def sentence_of(found: object, deepest: int = _DEEPEST) -> str:
    """What an error object, or a list of some, says: its message, else all of it; at most 200 characters."""
    said = _words(found, deepest)
    return _short(said or as_json(found))


def server_text(body: bytes) -> str:
    """What a server said, as the end of a sentence: ': "..."', the first 200 characters; "" when it said nothing."""
    try:
        document = tolerant(body)
    except ValueError:
        document = None
    if isinstance(document, dict | list) and (said := _words(document, _DEEPEST)):
        return ": " + _short(said)
    text = _short(body[: 4 * _QUOTED_CHARACTERS].decode("utf-8", "replace"))
    return f": {text}" if text else ""


def failure_in(event: Mapping[str, Any], *, alone: bool, deepest: int = _DEEPEST) -> str | None:
    """What an object that bears no token says went wrong; None where nothing did.

    alone: the format knows nothing in it. Then a code or a status that is not good says so, too.
    """
    for key, value in event.items():
        name = _telling(key)
        if not name or (type(value) is str and value in _USUAL):
            continue
        failed = _is_failure(name, value) or (alone and _is_bad_code(name, value))
        if not failed and name in _ENVELOPES and isinstance(value, dict) and deepest:
            inner = failure_in(value, alone=alone or name == "baseresp", deepest=deepest - 1)
            if inner is not None:
                return inner
        if failed:
            own = value if name in _ERRORS and isinstance(value, dict | list | str) else None
            return sentence_of(own if own and _words(own, _DEEPEST) else event)
    return None


def words_alone(event: Mapping[str, Any]) -> Chunk | None:
    """What an object says in which the format knows nothing, and nothing else tells of a failure; None where it says
    nothing, or only that all is well.
    """
    said = _words({name: value for name, value in event.items() if isinstance(value, str | list)}, 3)
    if not said or said.lower() in _GOOD_CODES or is_pulse(said.encode("utf-8", "replace")):
        return None
    words = _short(said)
    return Chunk(ChunkKind.ERROR, words) if _SAYS.search(said.encode("utf-8", "replace")) else unreadable(words)


def is_pulse(text: bytes) -> bool:
    """Whether a text only shows that the connection lives."""
    return len(text) <= _LONGEST_PULSE and _PULSE.fullmatch(text) is not None


def text_chunk(text: bytes) -> Chunk:
    """What a text is that is no JSON, where JSON should stand: a sign of life, a failure, or unreadable."""
    if is_pulse(text):
        return Chunk(ChunkKind.COMMENT)
    start = text[:_READ_BYTES]
    fails = _SAYS_AS_KEY.search(start) or (_SAYS.search(start) and not _JSON_BEGINS.match(start))
    said = f"the server sent something that cannot be read{server_text(text)}"
    return Chunk(ChunkKind.ERROR if fails else ChunkKind.UNREADABLE, said)


def told_failure(said: bytes) -> Chunk:
    """What the field or the event says that a server calls an error."""
    text = server_text(said).removeprefix(": ")
    return Chunk(ChunkKind.ERROR, text or "the server sent an error without a word")


def web_page(body: bytes) -> Chunk:
    """A page where an answer should be."""
    return Chunk(ChunkKind.ERROR, f"the server answered with a web page{server_text(body)}")


def ending(reason: object) -> list[Chunk]:
    """The end of a reply with its finish reason, which may be that it failed; nothing where there is no reason yet."""
    if isinstance(reason, str) and reason in _USUAL_ENDS:
        return [Chunk(ChunkKind.FINISH, finish_reason=reason)]
    name, words = reason, ""
    if isinstance(reason, dict):
        name, words = reason.get("type") or reason.get("reason"), _words(reason, 1)
    if not isinstance(name, str):
        return [Chunk(ChunkKind.FINISH)] if reason else []
    name = clean(name[:_QUOTED_CHARACTERS])
    if name.lower() in ("", "null", "none"):
        return []
    if _ENDED_BADLY.search(name):
        said = f": {_short(words)}" if words and words != name else ""
        return [Chunk(ChunkKind.ERROR, f"the server ended its reply with the finish reason {name!r}{said}")]
    return [Chunk(ChunkKind.FINISH, finish_reason=name)]


@lru_cache(maxsize=4096)
def _telling(key: str) -> str:
    """A key as the sets above have it; "" for one that tells nothing of failures."""
    name = key.replace("_", "").replace("-", "").lower()
    return name if name in _TELLING or name.endswith("exception") else ""


def _is_failure(name: str, value: object) -> bool:
    if name in _ERRORS or name.endswith("exception"):
        return _says_something(value)
    if name in _ERROR_CODES:
        return _is_bad(value)
    if name in _SUCCESS:
        return value is False or value in ("false", "False")
    return name in _NAMES and isinstance(value, str) and _CALLS_ITSELF.search(value) is not None


def _is_bad_code(name: str, value: object) -> bool:
    if name in _STATUS_CODES:
        return not isinstance(value, str) and _is_bad(value)
    return name == "code" and _is_bad(value)


def _is_bad(code: object) -> bool:
    if isinstance(code, bool) or not isinstance(code, int | float | str):
        return False
    return not 200 <= code < 300 and code != 0 if not isinstance(code, str) else code.strip().lower() not in _GOOD_CODES


def _says_something(value: object) -> bool:
    """Whether an error says anything: not null, false, 0, or an object of such."""
    if isinstance(value, dict):
        return any(_says_something(one) for one in value.values())
    if isinstance(value, str):
        return value.strip().lower() not in _GOOD_CODES and value.strip().lower() != "false"
    return bool(value)


def _words(found: object, deepest: int) -> str:
    """The most telling text in an object."""
    if isinstance(found, str):
        return found.strip()
    if not deepest:
        return ""
    if isinstance(found, list):
        return next((said for one in found if (said := _words(one, deepest - 1))), "")
    if not isinstance(found, dict):
        return ""
    by_name = {key.replace("_", "").lower(): value for key, value in found.items()}
    for name in _WORDS:
        if by_name.get(name) and (said := _words(by_name[name], deepest - 1)):
            return said
    within = (value for value in found.values() if isinstance(value, dict | list))
    return next((said for value in within if (said := _words(value, deepest - 1))), "")


def _short(text: str) -> str:
    return clean(" ".join(text.split())[:_QUOTED_CHARACTERS])
