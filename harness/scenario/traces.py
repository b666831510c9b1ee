"""Recorded traffic: times and lengths of requests, from CSV or JSON Lines files in three layouts."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import Problem, ScenarioError
from harness.seeding import generator

_SAMPLE = 23
_KEY = "load.file"
_MOST_PROBLEMS = 20
_LARGEST_NS = 2**62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCK = re.compile(
    r"(?P<second>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(?P<part>\d{1,9})\d*)?(?P<zone>Z|[+-]\d\d:?\d\d)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests of a trace in order of time.

    Attributes:
        due_ns: Offsets from the start of the trace.
        fingerprint: Identity of the file's content and of the selection from it.
    """

    due_ns: NDArray[np.int64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    fingerprint: str

    def selected(self, time_scale: float, sample: float, seed: int) -> Trace:
        """Return a random share of the requests, with every gap scaled.

        Each request is drawn independently, so that bursts remain bursts. A larger share contains every smaller one.

        Raises:
            ValueError: No request was drawn.
        """
        kept = generator(seed, _SAMPLE).random(len(self.due_ns)) < sample
        if not kept.any():
            raise ValueError(f"`sample: {sample:g}` leaves none of its {len(self.due_ns)} requests; raise it")
        due_ns = np.floor(self.due_ns[kept] * time_scale).astype(np.int64)
        fingerprint = f"{self.fingerprint} x{time_scale!r} of {sample!r} by {seed}"
        return Trace(due_ns, self.prompt_tokens[kept], self.output_tokens[kept], fingerprint)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Layout of a trace: names of its columns; with `from_first`, times count from the earliest and not from 0."""

    time: str
    prompt: str
    output: str
    read_ns: Callable[[object], int]
    from_first: bool

    @property
    def names(self) -> tuple[str, str, str]:
        return self.time, self.prompt, self.output


def read_trace(path: Path) -> Trace:
    """Return the trace of a file, sorted by time.

    The names of the columns or keys select the layout:
    - `TIMESTAMP, ContextTokens, GeneratedTokens`: clock times, as in the Azure LLM inference trace.
    - `timestamp, input_length, output_length`: milliseconds, as in the Mooncake trace; `hash_ids` are ignored.
    - `due_s, prompt_tokens, output_tokens`: seconds from the start.

    Raises:
        ScenarioError: The file is wrong; it lists the place of every mistake.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ScenarioError([_problem(path, f"trace cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        raise ScenarioError([_problem(path, f"is not UTF-8 text (byte {error.start}); save it as UTF-8")]) from error
    rows: list[tuple[int, int, int]] = []
    problems: list[Problem] = []
    layout: _Layout | None = None
    for line, cells in _json_lines(text) if text.lstrip().startswith("{") else _csv_lines(text):
        try:
            if isinstance(cells, str):
                raise ValueError(cells)
            layout = layout or _layout_of(cells)
            if layout is None:
                raise ValueError(f"does not have the keys of a trace; write {_KNOWN}")
            rows.append(_row(layout, cells))
        except ValueError as error:
            problems.append(_problem(path, str(error), line))
            if layout is None or len(problems) == _MOST_PROBLEMS:
                break
    if problems or layout is None:
        raise ScenarioError(problems or [_problem(path, f"contains no requests; write {_KNOWN}")])
    return _sorted(rows, layout, hashlib.sha256(content).hexdigest())


def _sorted(rows: list[tuple[int, int, int]], layout: _Layout, fingerprint: str) -> Trace:
    due_ns, prompt_tokens, output_tokens = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    order = np.argsort(due_ns, kind="stable")
    begin_ns = int(due_ns.min()) if layout.from_first else 0
    prompts, replies = (column[order].astype(np.int32) for column in (prompt_tokens, output_tokens))
    return Trace(due_ns[order] - begin_ns, prompts, replies, fingerprint)


def _csv_lines(text: str) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    reader = csv.reader(text.splitlines())
    header: list[str] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if header:
                yield reader.line_num, dict(zip_longest(header, cells[: len(header)], fillvalue=""))
            elif _layout_of(header := cells) is None:
                yield reader.line_num, f"does not have the columns of a trace; write {_KNOWN}"
                return
    except csv.Error as error:
        yield reader.line_num, f"is not CSV: {error}"


def _json_lines(text: str) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"is not JSON ({getattr(error, 'msg', 'not readable')}); write one object a line"
            continue
        yield number, entry if isinstance(entry, dict) else "is not a JSON object; write one a line"


def _layout_of(names: Iterable[str]) -> _Layout | None:
    return next((layout for layout in _LAYOUTS if set(layout.names) <= set(names)), None)


def _row(layout: _Layout, cells: Mapping[str, object]) -> tuple[int, int, int]:
    missing = [name for name in layout.names if cells.get(name) in (None, "")]
    if missing:
        raise ValueError(f"has no `{missing[0]}`")
    try:
        at_ns = layout.read_ns(cells[layout.time])
    except (ValueError, InvalidOperation, OverflowError) as error:
        raise ValueError(f"`{layout.time}` is not a time: {cells[layout.time]!r:.60}") from error
    return at_ns, _tokens(layout.prompt, cells[layout.prompt]), _tokens(layout.output, cells[layout.output])


def _tokens(name: str, value: object) -> int:
    whole = value if type(value) is int else int(value) if isinstance(value, str) and value.isdecimal() else 0
    if not 0 < whole < 2**31:
        raise ValueError(f"`{name}` must be a whole number of at least 1, found {value!r:.60}")
    return whole


def _number_ns(value: object, unit_ns: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    at_ns = Decimal(str(value)) * unit_ns
    if not 0 <= at_ns < _LARGEST_NS:
        raise ValueError("out of range")
    return int(at_ns)


def _clock_ns(value: object) -> int:
    match = _CLOCK.fullmatch(str(value))
    if match is None:
        raise ValueError("not a clock time")
    since = datetime.fromisoformat(match["second"] + (match["zone"] or "Z")) - _EPOCH
    return since // timedelta(seconds=1) * 1_000_000_000 + int((match["part"] or "0").ljust(9, "0"))


def _problem(path: Path, reason: str, line: int | None = None) -> Problem:
    return Problem(reason, key=_KEY, file=str(path), line=line)


_LAYOUTS = (
    _Layout("due_s", "prompt_tokens", "output_tokens", lambda value: _number_ns(value, 1_000_000_000), False),
    _Layout("TIMESTAMP", "ContextTokens", "GeneratedTokens", _clock_ns, True),
    _Layout("timestamp", "input_length", "output_length", lambda value: _number_ns(value, 1_000_000), True),
)
_KNOWN = ", or ".join(f"`{', '.join(layout.names)}`" for layout in _LAYOUTS)
