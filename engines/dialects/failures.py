"""Failures inside replies that began well, in the forms that servers and gateways use, with their messages.

A failure is a key (`error`, `errors`, `exception`, `fault` ...), an object or event named as an error, an envelope with
a bad code, status or success, a finish reason, or a text that is not JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from engines.base import Chunk, ChunkKind
from engines.dialects.answers import as_json, cut, tolerant, unreadable

_QUOTED_CHARACTERS = 200
_DEEPEST = 6
_MESSAGE_KEYS = (
    "message", "msg", "errormessage", "errormsg", "errmsg", "detail", "details", "description", "errordescription",
    "statusmsg", "statusmessage", "faultstring", "reason", "title", "error", "errors", "text",
)  # fmt: skip
_ERRORS = frozenset(
    {"error", "errors", "errormessage", "errormsg", "errmsg", "errortype", "exception", "fault", "failure", "traceback"}
)
_ERROR_CODES = frozenset({"errorcode", "errcode", "errno"})
_NAME_KEYS = frozenset({"object", "type", "event", "status", "state", "kind"})
_SUCCESS = frozenset({"success", "ok", "issuccess", "succeeded"})
_STATUS_CODES = frozenset({"status", "statuscode", "httpstatus"})
_ENVELOPES = frozenset({"baseresp", "data", "result", "response", "header", "body", "output"})
_KNOWN_KEYS = _ERRORS | _ERROR_CODES | _NAME_KEYS | _SUCCESS | _STATUS_CODES | _ENVELOPES | {"code"}
_GOOD_CODES = frozenset({"", "0", "200", "ok", "success", "succeeded", "none", "null"})
_USUAL = frozenset({"chat.completion.chunk", "chat.completion", "text_completion"})
_FAILURE_NAME = re.compile(r"error|exception|fail|abort|fatal|overload|unavailable|denied|cancel|timed?[-_ ]?out", re.I)
_FAILURE_TEXT = re.compile(
    rb"error|exception|traceback|fail|fatal|abort|out of memory|overload|unavailable|denied|unauthori[sz]ed|forbidden|"
    rb"timed? ?out|too many requests|bad gateway|not found|refused|rate.?limit|exceeded|exhausted|crash|killed",
    re.I,
)
_FAILURE_KEY = re.compile(rb"""^[\[{\s]*['"]?(?:error|errors|exception|fault|detail)['"]?\s*:""", re.I)
_JSON_BEGINS = re.compile(rb"""\s*(?:\{|"|\[\s*[\[{"\d])""")
_USUAL_ENDS = frozenset({"stop", "length", "tool_calls"})
_BAD_ENDS = re.compile(
    r"error|exception|abort|fail|cancel|timed?_?-?out|insufficient|overload|unavailable|interrupt|disconnect|crash|"
    r"kill|evict|preempt|out_of_memory|\boom\b",
    re.I,
)
_PULSE = re.compile(
    rb"[^a-z_\x80-\xff]*(?:ping|pong|keep[-_ ]?alive|heart[-_ ]?beat|(?:openrouter )?processing)?[^a-z_\x80-\xff]*",
    re.I,
)
_LONGEST_PULSE = 64
_READ_BYTES = 4096  # a text that reports a failure does so within these


def server_text(body: bytes) -> str:
    """Return a server's message as the end of a sentence, ': ...', at most 200 characters; "" if there is none."""
    try:
        document = tolerant(body)
    except ValueError:
        document = None
    if isinstance(document, dict | list) and (message := _message(document, _DEEPEST)):
        return ": " + _short(message)
    text = _short(body[:_READ_BYTES].decode("utf-8", "replace"))
    return f": {text}" if text else ""


def failure_in(event: Mapping[str, Any], *, alone: bool, deepest: int = _DEEPEST) -> str | None:
    """Return the failure that an object without tokens reports, else None.

    Args:
        alone: The format knows nothing in the object. Then a bad code or status is a failure too.
    """
    for key, value in event.items():
        name = _known_key(key)
        if not name or (type(value) is str and value in _USUAL):
            continue
        is_code = name == "code" or (name in _STATUS_CODES and not isinstance(value, str))
        failed = _is_failure(name, value) or (alone and is_code and _is_bad(value))
        if not failed and name in _ENVELOPES and isinstance(value, dict) and deepest:
            inner = failure_in(value, alone=alone or name == "baseresp", deepest=deepest - 1)
            if inner is not None:
                return inner
        if failed:
            message = _message(value, _DEEPEST) if name in _ERRORS else ""
            return _short(message or _message(event, _DEEPEST) or as_json(event))
    return None


def unknown_text(event: Mapping[str, Any]) -> Chunk | None:
    """Return the chunk of the text in an object that the format does not know and that reports no failure otherwise.

    None if there is no text, or only one that means success.
    """
    message = _message({name: value for name, value in event.items() if isinstance(value, str | list)}, 3)
    if not message or message.lower() in _GOOD_CODES or is_pulse(message.encode("utf-8", "replace")):
        return None
    fails = _FAILURE_TEXT.search(message.encode("utf-8", "replace"))
    return Chunk(ChunkKind.ERROR, _short(message)) if fails else unreadable(_short(message))


def is_pulse(text: bytes) -> bool:
    """Return True if a text is only a keep-alive."""
    return len(text) <= _LONGEST_PULSE and _PULSE.fullmatch(text) is not None


def text_chunk(text: bytes) -> Chunk:
    """Return the chunk of a text that is not JSON: a keep-alive, a failure, or unreadable."""
    if is_pulse(text):
        return Chunk(ChunkKind.COMMENT)
    start = text[:_READ_BYTES]
    fails = _FAILURE_KEY.search(start) or (_FAILURE_TEXT.search(start) and not _JSON_BEGINS.match(start))
    message = f"the server sent something that cannot be read{server_text(text)}"
    return Chunk(ChunkKind.ERROR if fails else ChunkKind.UNREADABLE, message)


def ending(reason: object) -> list[Chunk]:
    """Return the end of a reply, an ERROR for a bad finish reason; [] if there is no reason yet."""
    if isinstance(reason, str) and reason in _USUAL_ENDS:
        return [Chunk(ChunkKind.FINISH, finish_reason=reason)]
    name, words = reason, ""
    if isinstance(reason, dict):
        name, words = reason.get("type") or reason.get("reason"), _message(reason, 1)
    if not isinstance(name, str):
        return [Chunk(ChunkKind.FINISH)] if reason else []
    name = cut(name, _QUOTED_CHARACTERS)
    if name.lower() in ("", "null", "none"):
        return []
    if _BAD_ENDS.search(name):
        message = f": {_short(words)}" if words and words != name else ""
        return [Chunk(ChunkKind.ERROR, f"the server ended its reply with the finish reason {name!r}{message}")]
    return [Chunk(ChunkKind.FINISH, finish_reason=name)]


@lru_cache(maxsize=4096)
def _known_key(key: str) -> str:
    """Return a key in the form of the sets above; "" if it cannot report a failure."""
    name = key.replace("_", "").replace("-", "").lower()
    return name if name in _KNOWN_KEYS or name.endswith("exception") else ""


def _is_failure(name: str, value: object) -> bool:
    if name in _ERRORS or name.endswith("exception"):
        return _is_error_value(value)
    if name in _ERROR_CODES:
        return _is_bad(value)
    if name in _SUCCESS:
        return value is False or value in ("false", "False")
    return name in _NAME_KEYS and isinstance(value, str) and _FAILURE_NAME.search(value) is not None


def _is_bad(code: object) -> bool:
    if isinstance(code, bool) or not isinstance(code, int | float | str):
        return False
    return not 200 <= code < 300 and code != 0 if not isinstance(code, str) else code.strip().lower() not in _GOOD_CODES


def _is_error_value(value: object) -> bool:
    """Return True unless an error is null, false, 0, or an object of such."""
    if isinstance(value, dict):
        return any(_is_error_value(one) for one in value.values())
    if isinstance(value, str):
        return value.strip().lower() not in _GOOD_CODES and value.strip().lower() != "false"
    return bool(value)


def _message(found: object, deepest: int) -> str:
    """Return the most specific message in an object."""
    if isinstance(found, str):
        return found.strip()
    if not deepest:
        return ""
    if isinstance(found, list):
        return next((message for one in found if (message := _message(one, deepest - 1))), "")
    if not isinstance(found, dict):
        return ""
    by_name = {key.replace("_", "").lower(): value for key, value in found.items()}
    for name in _MESSAGE_KEYS:
        if by_name.get(name) and (message := _message(by_name[name], deepest - 1)):
            return message
    within = (value for value in found.values() if isinstance(value, dict | list))
    return next((message for value in within if (message := _message(value, deepest - 1))), "")


def _short(text: str) -> str:
    return cut(" ".join(text.split()), _QUOTED_CHARACTERS)
