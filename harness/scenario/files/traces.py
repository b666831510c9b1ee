"""Recorded traffic: times, lengths, texts and sessions of requests, from files in the layouts of public traces."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import Problem, ScenarioError
from harness.scenario.files.entries import entries, fingerprint
from harness.seeding import generator

_SAMPLE = 23
_KEY = "load.file"
_MOST_PROBLEMS = 20
_LARGEST_NS = 2**62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCK = re.compile(
    r"(?P<second>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(?P<part>\d{1,9})\d*)?(?P<zone>Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_HALF = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"[0-9]+(\.0+)?", re.ASCII)
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Blocks:
    """Ids of the blocks of each row, from 0: those of row i are `ids[begins[i] : begins[i + 1]]`."""

    ids: NDArray[np.int32]
    begins: NDArray[np.int64]

    def of(self, row: int) -> list[int]:
        """Return the ids of a row."""
        found: list[int] = self.ids[self.begins[row] : self.begins[row + 1]].tolist()
        return found

    def taken(self, rows: NDArray[np.int64]) -> Blocks:
        """Return the blocks of some rows, in their order."""
        sizes = np.diff(self.begins)[rows]
        begins = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.arange(begins[-1]) - np.repeat(begins[:-1], sizes) + np.repeat(self.begins[rows], sizes)
        return Blocks(self.ids[places], begins)


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests of a trace in order of time; those of a session follow one another.

    Attributes:
        due_ns: Offsets from the start of the trace, of each request or session.
        prompt_tokens: Per request; 0 for a text.
        output_tokens: Per request; 0 if none is recorded.
        fingerprint: Identity of the file's content and of the selection from it.
        turns: Requests per session; None without sessions.
        think_ns: Wait of each request after the end of the one before in its session; None without sessions.
        texts: Recorded prompts; None if there are none.
        blocks: Blocks of tokens that prompts share; None if there are none.
        notes: Sentences on requests that were skipped, and on missing times.
    """

    due_ns: NDArray[np.int64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    fingerprint: str
    turns: NDArray[np.int32] | None = None
    think_ns: NDArray[np.int64] | None = None
    texts: tuple[str | None, ...] | None = None
    blocks: Blocks | None = None
    notes: tuple[str, ...] = ()

    def selected(self, time_scale: float, sample: float, seed: int) -> Trace:
        """Return a random share of the requests or sessions, with every gap scaled.

        Each is drawn independently, so that bursts remain bursts. A larger share contains every smaller one.

        Raises:
            ValueError: No request was drawn.
        """
        kept = generator(seed, _SAMPLE).random(len(self.due_ns)) < sample
        if not kept.any():
            raise ValueError(f"`sample: {sample:g}` leaves none of its {len(self.due_ns)} requests; raise it")
        rows = np.flatnonzero(kept if self.turns is None else np.repeat(kept, self.turns))
        think_ns = None if self.think_ns is None else np.floor(self.think_ns[rows] * time_scale).astype(np.int64)
        return replace(
            self._taken(rows),
            due_ns=np.floor(self.due_ns[kept] * time_scale).astype(np.int64),
            fingerprint=f"{self.fingerprint} x{time_scale!r} of {sample!r} by {seed}",
            turns=None if self.turns is None else self.turns[kept],
            think_ns=think_ns,
        )

    def _taken(self, rows: NDArray[np.int64]) -> Trace:
        """Return the trace with some of its rows, in the given order."""
        return replace(
            self,
            prompt_tokens=self.prompt_tokens[rows],
            output_tokens=self.output_tokens[rows],
            think_ns=None if self.think_ns is None else self.think_ns[rows],
            texts=None if self.texts is None else tuple(self.texts[row] for row in rows),
            blocks=None if self.blocks is None else self.blocks.taken(rows),
        )

    def total_tokens(self) -> int:
        """Return the tokens of all requests, with what the requests of sessions repeat of those before."""
        tokens = self.prompt_tokens.astype(np.int64) + self.output_tokens
        if self.turns is None:
            return int(tokens.sum())
        begins = np.cumsum(self.turns) - self.turns
        before = np.cumsum(tokens) - tokens
        return int((tokens + before - np.repeat(before[begins], self.turns)).sum())


@dataclass(frozen=True, slots=True)
class _Layout:
    """Layout of a trace, by the names of its columns in any case.

    Attributes:
        from_first: Times count from the earliest, and not from 0.
        failures: A row of 0 tokens is a request that failed.
        optional_time: A file may have no times.
        text: Column of a text instead of a prompt length.
    """

    time: str
    prompt: str
    output: str
    read_ns: Callable[[object], int]
    from_first: bool = True
    failures: bool = True
    optional_time: bool = False
    text: str | None = None

    @property
    def names(self) -> tuple[str, str, str]:
        return self.time, self.prompt, self.output

    def fits(self, names: set[str]) -> bool:
        """Return True if columns of these names, in lower case, are this layout."""
        time, prompt, output = (name.lower() for name in self.names)
        if self.optional_time:  # Mooncake: the time, the length of a text and its reply may be missing
            return self.text in names or {prompt, output} <= names
        return {time, prompt, output} <= names


def read_trace(path: Path) -> Trace:
    """Return the trace of a file, sorted by time.

    The names of the columns or keys select the layout:
    - `due_s, prompt_tokens, output_tokens`: seconds from the start.
    - `TIMESTAMP, ContextTokens, GeneratedTokens`: clock times, as in the Azure LLM inference trace.
    - `Timestamp, Request tokens, Response tokens`: seconds, as in BurstGPT.
    - `timestamp, input_length, output_length`: milliseconds, as in the Mooncake trace. `hash_ids` name the blocks that
      prompts share. `text_input` is a prompt. Requests of a `session_id` follow one another, with a `delay`.

    Raises:
        ScenarioError: The file is wrong; it lists the place of every mistake.
    """
    try:
        return _read(path, fingerprint(path))
    except OSError as error:
        raise ScenarioError([_problem(path, f"trace cannot be read: {error.strerror or error}")]) from error


@lru_cache(maxsize=2)
def _read(path: Path, content: str) -> Trace:
    """Return the trace of a content, for which `content` stands; estimates and plan need it several times."""
    reader = _Reader(path)
    for line, cells in entries(path, _fault_of):
        if not reader.add(line, cells):
            break
    return reader.trace(content)


class _Reader:
    """Reader of the rows of a trace, in columns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._layout: _Layout | None = None
        self._problems: list[Problem] = []
        self._failed = self._untimed = 0
        self._at, self._prompts, self._outputs, self._think = array("q"), array("i"), array("i"), array("q")
        self._texts: dict[int, str] = {}
        self._ids, self._begins = array("q"), array("q", [0])
        self._session_of = array("q")  # of each row the first row of its session
        self._sessions: dict[object, int] = {}

    def add(self, line: int, cells: Mapping[str, object] | str) -> bool:
        """Add a row; return False if the rest of the file is not worth reading."""
        try:
            if isinstance(cells, str):
                raise ValueError(cells)
            values = {_plain(name): value for name, value in cells.items()}
            self._layout = self._layout or _layout_of(values)
            if self._layout is None:
                raise ValueError(f"does not have the keys of a trace; write {_KNOWN}")
            self._add_row(self._layout, values)
        except ValueError as error:
            self._problems.append(_problem(self._path, str(error), line))
            return self._layout is not None and len(self._problems) < _MOST_PROBLEMS
        return True

    def _add_row(self, layout: _Layout, values: Mapping[str, object]) -> None:
        text = _text_of(values, layout)
        prompt = 0 if text is not None else _tokens(layout.prompt, _needed(values, layout.prompt))
        optional = text is not None and values.get(layout.output.lower()) in (None, "")
        output = 0 if optional else _tokens(layout.output, _needed(values, layout.output))
        if (text is None and not prompt) or (not output and not optional):
            if not layout.failures:
                name = layout.output if prompt else layout.prompt
                raise ValueError(_least(name, values[name.lower()]))
            self._failed += 1
            return
        ids = _ids_of(values) if layout.text is not None else []
        session = values.get("session_id") if layout.text is not None else None
        self._add_time(layout, values, None if session == "" else session)
        self._prompts.append(prompt)
        self._outputs.append(output)
        self._ids.extend(ids)
        self._begins.append(len(self._ids))
        if text is not None:
            self._texts[len(self._prompts) - 1] = text

    def _add_time(self, layout: _Layout, values: Mapping[str, object], session: object) -> None:
        """Add the time of a row, and its place in its session."""
        row = len(self._at)
        first = row if session is None else self._sessions.setdefault(_hashable(session), row)
        stated, delay = values.get(layout.time.lower()), values.get("delay")
        missing = stated in (None, "")
        if first != row:
            if not missing and delay in (None, ""):
                why = "follows another request of its session and has no `delay`; write the ms after its reply"
                raise ValueError(why)
            think_ns = 0 if delay in (None, "") else _time("delay", lambda value: _number_ns(value, _NS_PER_MS), delay)
            self._at.append(self._at[first])
        elif missing and not layout.optional_time:
            raise ValueError(f"has no `{layout.time}`")
        else:
            if (bool(self._untimed) if not missing else bool(self._at) and not self._untimed) and row:
                raise ValueError(f"has {'no' if missing else 'a'} `{layout.time}`, unlike the requests before it")
            self._untimed += missing
            self._at.append(0 if missing else _time(layout.time, layout.read_ns, stated))
            think_ns = 0
        self._think.append(think_ns)
        self._session_of.append(first)

    def trace(self, found: str) -> Trace:
        """Return the trace; raise ScenarioError if there are problems, or no requests."""
        layout = self._layout
        if self._problems or layout is None or not self._at:
            empty = f"contains no requests; write {_KNOWN}"
            if self._failed:
                empty = f"contains no requests but {self._failed:,} that failed (0 tokens); name another file"
            raise ScenarioError(self._problems or [_problem(self._path, empty)])
        at_ns, first = np.array(self._at, dtype=np.int64), np.array(self._session_of, dtype=np.int64)
        order = np.lexsort((np.arange(len(at_ns)), first, at_ns))
        begins = order[first[order] == order]
        whole = Trace(
            due_ns=at_ns[begins] - (int(at_ns.min()) if layout.from_first else 0),
            prompt_tokens=np.array(self._prompts, dtype=np.int32),
            output_tokens=np.array(self._outputs, dtype=np.int32),
            fingerprint=found,
            turns=np.bincount(first, minlength=len(first))[begins].astype(np.int32) if self._sessions else None,
            think_ns=np.array(self._think, dtype=np.int64) if self._sessions else None,
            texts=tuple(map(self._texts.get, range(len(at_ns)))) if self._texts else None,
            blocks=self._blocks(),
            notes=tuple(self._notes()),
        )
        return whole._taken(order)

    def _blocks(self) -> Blocks | None:
        """Return the blocks, with their ids numbered by their order among all."""
        if not self._ids:
            return None
        _, numbers = np.unique(np.array(self._ids, dtype=np.int64), return_inverse=True)
        return Blocks(numbers.astype(np.int32), np.array(self._begins, dtype=np.int64))

    def _notes(self) -> list[str]:
        notes = []
        if self._failed:
            rows = self._failed + len(self._at)
            notes.append(
                f"{self._path.name}: {self._failed:,} of {rows:,} requests are skipped: they failed (0 tokens)"
            )
        if self._untimed:
            notes.append(
                f"{self._path.name}: the requests have no `timestamp`; all are due at once, add times to spread them"
            )
        return notes


@lru_cache(maxsize=256)
def _plain(name: str) -> str:
    """Return the name of a column in lower case."""
    return name.strip().lower()


def _fault_of(header: list[str]) -> str | None:
    known = _layout_of(name.lower() for name in header)
    return f"does not have the columns of a trace; write {_KNOWN}" if known is None else None


def _layout_of(names: Iterable[str]) -> _Layout | None:
    distinct = set(names)
    return next((layout for layout in _LAYOUTS if layout.fits(distinct)), None)


def _needed(values: Mapping[str, object], name: str) -> object:
    value = values.get(name.lower())
    if value in (None, ""):
        raise ValueError(f"has no `{name}`")
    return value


def _text_of(values: Mapping[str, object], layout: _Layout) -> str | None:
    value = None if layout.text is None else values.get(layout.text)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ValueError(f"`{layout.text}` must be a text, and not empty; found {value!r:.60}")
    if half := _HALF.search(value):
        raise ValueError(f"`{layout.text}` contains half a character (\\u{ord(half[0]):04x}); write both halves")
    return value


def _ids_of(values: Mapping[str, object]) -> list[int]:
    ids = values.get("hash_ids")
    if ids in (None, ""):
        return []
    if isinstance(ids, str):  # a cell of CSV
        ids = [int(one) if one.strip().lstrip("-").isdecimal() else one for one in ids.strip("[] ").split(",")]
    if not isinstance(ids, list) or not all(type(one) is int and -(2**63) <= one < 2**63 for one in ids):
        raise ValueError(f"`hash_ids` must be a list of whole numbers, found {ids!r:.60}")
    return ids


def _hashable(session: object) -> object:
    if not isinstance(session, str | int | float):
        raise ValueError(f"`session_id` must be a text or a number, found {session!r:.60}")
    return session


def _time(name: str, read_ns: Callable[[object], int], value: object) -> int:
    try:
        return read_ns(value)
    except (ValueError, InvalidOperation, OverflowError) as error:
        raise ValueError(f"`{name}` is not a time: {value!r:.60}") from error


def _tokens(name: str, value: object) -> int:
    """Return a number of tokens, which may be 0."""
    whole = value if type(value) is int else int(value) if isinstance(value, float) and value.is_integer() else None
    if isinstance(value, str) and len(value) < 20 and _WHOLE.fullmatch(value):
        whole = int(value.partition(".")[0])
    if whole is None or not 0 <= whole < 2**31:
        raise ValueError(_least(name, value))
    return whole


def _least(name: str, value: object) -> str:
    return f"`{name}` must be a whole number of at least 1, found {value!r:.60}"


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
    _Layout(
        "due_s",
        "prompt_tokens",
        "output_tokens",
        lambda value: _number_ns(value, 1_000_000_000),
        from_first=False,
        failures=False,
    ),
    _Layout("TIMESTAMP", "ContextTokens", "GeneratedTokens", _clock_ns),
    _Layout("Timestamp", "Request tokens", "Response tokens", lambda value: _number_ns(value, 1_000_000_000)),
    _Layout(
        "timestamp",
        "input_length",
        "output_length",
        lambda value: _number_ns(value, _NS_PER_MS),
        optional_time=True,
        text="text_input",
    ),
)
_KNOWN = ", or ".join(f"`{', '.join(layout.names)}`" for layout in _LAYOUTS)
