"""Words that a master and its workers say to each other, each with the shape of its data.

A message with another word or another shape is not handed to Locust, whose own code trusts every message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.drivers.base import DriveReport
from harness.drivers.workers.part import PartSpec

Check = Callable[[Any], bool]
_NUMBER = (int, float)
_INT_LIMIT = 1 << 63


def _with(**kinds: type | tuple[type, ...]) -> Check:
    """Return a check for a mapping that has at least these entries."""

    def check(data: Any) -> bool:
        return isinstance(data, Mapping) and all(
            isinstance(data.get(name), kind) and _bounded(data[name]) for name, kind in kinds.items()
        )

    return check


def _bounded(value: Any) -> bool:
    return not isinstance(value, int) or -_INT_LIMIT <= value < _INT_LIMIT


def _any(_: Any) -> bool:
    return True


def _report(data: Any) -> bool:
    if not isinstance(data, Mapping) or not isinstance(data.get("silence"), str | None):
        return False
    names = {each.name for each in fields(DriveReport)}
    return isinstance(data.get("report"), dict) and set(data["report"]) <= names and _valid(DriveReport, data["report"])


def _part(data: Any) -> bool:
    return _with(part=dict, index=int, of=int)(data) and _valid(PartSpec, data["part"])


def _valid(kind: type, data: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(data)
    except (ValidationError, ValueError, TypeError, RecursionError):
        return False
    return True


_ORDER: Check = _with()

FROM_WORKERS: Mapping[str, Check] = {
    # Locust's own:
    "client_ready": lambda data: data == -1 or (isinstance(data, str) and len(data) >= 4),
    "client_stopped": _any,
    "quit": _any,
    "spawning": _any,
    "spawning_complete": _with(user_classes_count=dict, user_count=int),
    "heartbeat": _with(state=str, current_cpu_usage=_NUMBER),
    "stats": _with(stats=list, stats_total=dict, errors=dict, user_classes_count=dict, user_count=int),
    "logs": _with(worker_id=str, logs=list),
    "exception": _with(msg=str, traceback=str),
    # Those of `harness.drivers.locust.master`:
    "harness_hello": _with(host=str),
    "harness_ping": _with(at_ns=int),
    "harness_refused": _with(reason=str),
    "harness_ready": _with(offset_ns=int, uncertainty_ns=int),
    "harness_records": _with(ipc=bytes),
    "harness_counted": _with(),
    "harness_report": _report,
}
FROM_MASTER: Mapping[str, Check] = {
    "ack": lambda data: data is None or isinstance(data, Mapping),
    "spawn": _with(timestamp=_NUMBER, user_classes_count=dict, parsed_options=dict),
    "stop": _any,
    "quit": _any,
    "reconnect": _any,
    "heartbeat": _any,
    "spawning_complete": _with(user_count=int),
    "harness_part": _part,
    "harness_pong": _with(at_ns=int, master_ns=int),
    "harness_begin": _with(t0_ns=int, t0_utc_s=_NUMBER),
    "harness_over": _with(more=bool),
    "harness_dismissed": _with(reason=str),
    "harness_release": _ORDER,
    "harness_stop": _ORDER,
    "harness_abort": _ORDER,
}


def is_said(words: Mapping[str, Check], word: Any, data: Any) -> bool:
    """Return True if a word is one of these, and its data has the right shape."""
    return isinstance(word, str) and word in words and words[word](data)
