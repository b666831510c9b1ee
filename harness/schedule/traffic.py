"""Rows of a schedule without their times: class, lengths and think time of each, drawn in blocks from a seed.

Some rows repeat an earlier one exactly, for result caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.scenario.files.prompts import FilePrompts
from harness.scenario.files.traces import Trace
from harness.schedule.images import GeneratedImages
from harness.schedule.prompts import Prompts, draw_lengths, draw_seconds
from harness.seeding import generator

_REPEATS, _PICKS = 14, 15
Int64 = NDArray[np.int64]


class Repeats:
    """Origins of the rows of a schedule: each row repeats another row or itself.

    A repeat picks a random earlier row. It takes the nearest original of its stream before this row (after it, if the
    block begins without one). Old prompts therefore recur as often as new ones. The first row of a stream is an
    original.

    Args:
        shares: Share of repeats in each stream.
        block: Rows in a block; every stream occurs in each block.
        deal: Function from a block to the streams of its rows.
    """

    def __init__(
        self, shares: Sequence[float], seed: int, block: int, deal: Callable[[int], NDArray[np.int16]]
    ) -> None:
        self._shares = np.array(shares, dtype=np.float64)
        self._seed, self._block, self._deal = seed, block, deal
        self._originals: dict[int, list[Int64]] = {}

    def origins(self, block: int) -> Int64:
        """Return the row that each row of a block repeats; an original repeats itself."""
        of_row = self._deal(block)
        rows = np.arange(block * self._block, (block + 1) * self._block, dtype=np.int64)
        origins = rows.copy()
        repeated = np.flatnonzero(self._repeated(block, of_row))
        drawn = generator(self._seed, _PICKS, block).random(self._block)
        picks = np.floor(drawn[repeated] * rows[repeated]).astype(np.int64)
        for other in np.unique(picks // self._block):
            here = picks // self._block == other
            for stream in np.unique(of_row[repeated[here]]):
                mine = here & (of_row[repeated] == stream)
                origins[repeated[mine]] = self._nearest(int(other), int(stream), picks[mine], rows[repeated[mine]])
        return origins

    def _repeated(self, block: int, of_row: NDArray[np.int16]) -> NDArray[np.bool_]:
        repeated: NDArray[np.bool_] = generator(self._seed, _REPEATS, block).random(self._block) < self._shares[of_row]
        if block == 0:
            repeated[np.unique(of_row, return_index=True)[1]] = False
        return repeated

    def _nearest(self, block: int, stream: int, picks: Int64, rows: Int64) -> Int64:
        """Return the nearest original of a stream before each pick, or else after it but before the row."""
        originals, very_first = self._originals_of(block)[stream], self._originals_of(0)[stream][0]
        if not len(originals):
            return np.full(len(picks), very_first)
        chosen = originals[np.maximum(np.searchsorted(originals, picks, side="right") - 1, 0)]
        return np.where(chosen < rows, chosen, very_first)

    def _originals_of(self, block: int) -> list[Int64]:
        if block not in self._originals:
            of_row = self._deal(block)
            owners = np.where(self._repeated(block, of_row), -1, of_row)
            self._originals[block] = [
                np.flatnonzero(owners == stream) + block * self._block for stream in range(len(self._shares))
            ]
        return self._originals[block]


_ROWS_AT_ONCE = 4096
_BLOCKS_KEPT = 64
_CLASSES, _PROMPT_TOKENS, _OUTPUT_TOKENS, _THINK = 10, 11, 12, 13
_TURN_THINK, _CANCELLED, _CANCEL_AFTER = 17, 18, 19
NEVER = -1


@dataclass(frozen=True, slots=True)
class Stream:
    """Class of traffic, without its times.

    Attributes:
        weight: Share among the classes, in any unit.
        prompt_tokens: Distribution of lengths, as `output_tokens`.
        exact: True if output lengths are exact.
        repeat: Share of requests that repeat an earlier one.
        later_prompts: Prompts of later turns; None: those of first turns.
        cancel: `share` of requests to cancel and the time `after` sending.
    """

    name: str
    weight: float
    prompt_tokens: Any
    output_tokens: Any
    prompts: Prompts
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = True
    exact: bool = False
    repeat: float = 0.0
    later_prompts: Prompts | None = None
    cancel: Any = None
    priority: int | None = None
    images: GeneratedImages | None = None


class Content(NamedTuple):
    """Content of a row.

    Attributes:
        stream: Index of its stream.
        prompt_tokens: Prompt length; 0 if unknown.
        think_ns: Think time before it.
        origin: Row with the same prompt and lengths: itself, or the earlier row that it repeats.
        turn_think_ns: Think time if the row continues a conversation.
        cancel_ns: Time from sending to cancelling, or NEVER.
    """

    stream: int
    prompt_tokens: int
    output_tokens: int
    think_ns: int
    origin: int
    turn_think_ns: int
    cancel_ns: int


class Columns(NamedTuple):
    """Columns of `Content` for many rows; a column is None if no row needs it."""

    stream: NDArray[np.int16]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    think_ns: NDArray[np.int64] | None
    origin: NDArray[np.int64] | None
    turn_think_ns: NDArray[np.int64] | None
    cancel_ns: NDArray[np.int64] | None


class Traffic:
    """Rows 0, 1, 2, ... of a mix of streams; the first n rows do not depend on the length of the schedule.

    Classes are dealt in hands of ceil(1 / least share) * 10 rows. Each hand contains each class by its share, in random
    order. Rounding errors do not accumulate.

    Args:
        think_time: Distribution of the time before a row that waits.
        trace: Recorded lengths, instead of the streams' distributions.
        turn_think_time: Distribution of the time between turns; None: `think_time`.
    """

    def __init__(
        self,
        streams: tuple[Stream, ...],
        seed: int,
        think_time: Any = None,
        trace: Trace | None = None,
        turn_think_time: Any = None,
    ) -> None:
        self.streams, self._seed, self._trace = streams, seed, trace
        self._think_time, self._turn_think_time = think_time, turn_think_time
        weights = np.array([stream.weight for stream in streams], dtype=np.float64)
        self._shares = weights / weights.sum()
        self._hand = 1 if len(streams) == 1 else 10 * math.ceil(1 / self._shares.min() - 1e-9)
        self._block = self._hand * max(1, _ROWS_AT_ONCE // self._hand)
        shares = [stream.repeat for stream in streams]
        self._repeats = Repeats(shares, seed, self._block, self._deal) if any(shares) else None
        self._whole: Columns | None = None
        self._blocks: dict[int, Columns] = {}
        self._dealt: dict[int, NDArray[np.int16]] = {}

    def materialised(self, count: int | None) -> Traffic:
        """Return the traffic with its first `count` rows computed; unchanged if the schedule has no end."""
        if count is None:
            return self
        parts = [self._draw(block) for block in range(-(-count // self._block))] or [self._draw(0)]
        columns = zip(*parts, strict=True)
        whole = Traffic(self.streams, self._seed, self._think_time, self._trace, self._turn_think_time)
        joined = Columns(*(None if c[0] is None else np.concatenate(c)[:count] for c in columns))  # type: ignore[arg-type]
        if (origin := joined.origin) is not None:
            prompt_tokens, output_tokens = joined.prompt_tokens[origin], joined.output_tokens[origin]
            joined = joined._replace(prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        whole._whole = joined
        return whole

    def content(self, i: int) -> Content:
        """Return the content of row i."""
        columns, at = self._at(i)
        stream, think_ns = int(columns.stream[at]), 0 if columns.think_ns is None else int(columns.think_ns[at])
        turn_think_ns = think_ns if columns.turn_think_ns is None else int(columns.turn_think_ns[at])
        cancel_ns = NEVER if columns.cancel_ns is None else int(columns.cancel_ns[at])
        origin = i if columns.origin is None else int(columns.origin[at])
        if origin != i:
            columns, at = self._at(origin)
        prompt_tokens, output_tokens = int(columns.prompt_tokens[at]), int(columns.output_tokens[at])
        return Content(stream, prompt_tokens, output_tokens, think_ns, origin, turn_think_ns, cancel_ns)

    def _at(self, i: int) -> tuple[Columns, int]:
        """Return the columns that contain row i, and its place in them."""
        return (self._whole, i) if self._whole is not None else (self._cached(i // self._block), i % self._block)

    def think_ns(self, i: int, *, later_turn: bool) -> int:
        """Return the think time before row i alone."""
        columns, at = self._at(i)
        own = columns.turn_think_ns if later_turn and columns.turn_think_ns is not None else columns.think_ns
        return 0 if own is None else int(own[at])

    def number_in_class(self, i: int) -> int:
        """Return the number of row i among the rows of its class, from 0."""
        if len(self.streams) == 1:
            return i
        block, at = divmod(i, self._block)
        if block not in self._dealt:
            self._dealt = {block: self._deal(block)}
        of_row = self._dealt[block]
        index = int(of_row[at])
        return self.rows_of_class(index, block * self._block) + int((of_row[:at] == index).sum())

    def streams_of(self, rows: int) -> NDArray[np.int16]:
        """Return the place of the stream of each of the first `rows`."""
        if len(self.streams) == 1:
            return np.zeros(rows, dtype=np.int16)
        dealt = [self._deal(block) for block in range(-(-rows // self._block))]
        return np.concatenate([np.empty(0, dtype=np.int16), *dealt])[:rows]

    def rows_of_class(self, place: int, rows: int) -> int:
        """Return the number of the first `rows` that belong to a class, with an error of at most one hand."""
        return rows if len(self.streams) == 1 else int(_dealt(self._shares, np.array([rows]))[0, place])

    def columns(self) -> Columns:
        """Return all computed rows, or the first block of a schedule without end."""
        return self._whole if self._whole is not None else self._cached(0)

    def description(self) -> dict[str, Any]:
        """Return everything that determines the rows, as JSON-able data for the schedule's hash."""
        streams = []
        for stream in self.streams:
            facts = {name: getattr(stream, name) for name in ("name", "weight", "stream", "exact")}
            facts |= {name: _plain(getattr(stream, name)) for name in ("prompt_tokens", "output_tokens")}
            facts |= {"prompts": stream.prompts.fingerprint, "sampling": dict(stream.sampling)}
            optional = {"repeat": stream.repeat or None, "cancel": _plain(stream.cancel), "priority": stream.priority}
            optional["images"] = None if stream.images is None else stream.images.fingerprint
            streams.append(facts | {name: value for name, value in optional.items() if value is not None})
        found = {"seed": self._seed, "think_time": _plain(self._think_time), "streams": streams}
        found |= {} if self._trace is None else {"trace": self._trace.fingerprint}
        return found | ({} if self._turn_think_time is None else {"turn_think_time": _plain(self._turn_think_time)})

    def _cached(self, block: int) -> Columns:
        if block not in self._blocks:
            if len(self._blocks) >= _BLOCKS_KEPT:
                del self._blocks[min(self._blocks)]
            self._blocks[block] = self._draw(block)
        return self._blocks[block]

    def _draw(self, block: int) -> Columns:
        of_row = self._deal(block)
        prompt_tokens, output_tokens = np.empty((2, self._block), dtype=np.int32)
        for index, stream in enumerate(self.streams):
            rows = np.flatnonzero(of_row == index)
            prompts, outputs = self._lengths(block, index, stream)
            prompt_tokens[rows], output_tokens[rows] = prompts[rows], outputs[rows]
        origin = None if self._repeats is None else self._repeats.origins(block)
        think = self._think_time
        think = None if think is not None and think.dist == "fixed" and think.value_s == 0 else think
        think_ns, turn_ns = self._times(think, _THINK, block), self._times(self._turn_think_time, _TURN_THINK, block)
        if self._trace is not None and self._trace.think_ns is not None:
            turn_ns = self._trace.think_ns[self._recorded(block)]
        cancel_ns = self._cancel_times(block, of_row)
        return Columns(of_row, prompt_tokens, output_tokens, think_ns, origin, turn_ns, cancel_ns)

    def _times(self, distribution: Any, *stream: int) -> Int64 | None:
        return None if distribution is None else draw_seconds(distribution, generator(self._seed, *stream), self._block)

    def _lengths(self, block: int, index: int, stream: Stream) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        if self._trace is not None:
            row = self._recorded(block)
            stated = self._trace.output_tokens[row]
            if stated.all():
                return self._trace.prompt_tokens[row], stated
            outputs = draw_lengths(
                stream.output_tokens, generator(self._seed, _OUTPUT_TOKENS, index, block), self._block
            )
            return self._trace.prompt_tokens[row], np.where(stated > 0, stated, outputs)
        outputs = draw_lengths(stream.output_tokens, generator(self._seed, _OUTPUT_TOKENS, index, block), self._block)
        if isinstance(stream.prompts, FilePrompts):
            if stream.prompts.in_sessions:
                return np.zeros(self._block, dtype=np.int32), outputs
            line = stream.prompts.lines(self._numbers(block, index))
            stated = stream.prompts.output_tokens[line]
            return stream.prompts.prompt_tokens[line], np.where(stated > 0, stated, outputs)
        prompts = draw_lengths(stream.prompt_tokens, generator(self._seed, _PROMPT_TOKENS, index, block), self._block)
        return prompts, outputs

    def _recorded(self, block: int) -> NDArray[np.int64]:
        """Return the rows of the trace for the rows of a block."""
        assert self._trace is not None
        rows = np.arange(block * self._block, (block + 1) * self._block, dtype=np.int64)
        return rows.clip(max=len(self._trace.prompt_tokens) - 1)

    def _numbers(self, block: int, index: int) -> NDArray[np.int64]:
        """Return for each row of a block the number of earlier rows of a class."""
        own = self._deal(block) == index
        numbers: NDArray[np.int64] = self.rows_of_class(index, block * self._block) + np.cumsum(own) - own
        return numbers

    def _cancel_times(self, block: int, of_row: NDArray[np.int16]) -> NDArray[np.int64] | None:
        """Return the nanoseconds from sending to cancelling of each row, or NEVER."""
        if all(stream.cancel is None for stream in self.streams):
            return None
        found = np.full(self._block, NEVER, dtype=np.int64)
        chance = generator(self._seed, _CANCELLED, block).random(self._block)
        for index, stream in enumerate(self.streams):
            if stream.cancel is not None:
                random = generator(self._seed, _CANCEL_AFTER, index, block)
                after = draw_seconds(stream.cancel.after, random, self._block)
                found = np.where((of_row == index) & (chance < stream.cancel.share), after, found)
        return found

    def _deal(self, block: int) -> NDArray[np.int16]:
        hands = self._block // self._hand
        if len(self.streams) == 1:
            return np.zeros(self._block, dtype=np.int16)
        ends = np.arange(block * hands, (block + 1) * hands + 1) * self._hand
        counts = np.diff(_dealt(self._shares, ends), axis=0)
        classes = np.tile(np.arange(len(self.streams), dtype=np.int16), hands)
        sorted_hands = np.repeat(classes, counts.ravel()).reshape(hands, self._hand)
        shuffle = generator(self._seed, _CLASSES, block).random((hands, self._hand)).argsort(axis=1)
        return np.take_along_axis(sorted_hands, shuffle, axis=1).ravel()


def _dealt(shares: NDArray[np.float64], totals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of each class among the first `totals` rows, by largest remainder; shape (totals, classes)."""
    quotas = np.round(totals[:, None] * shares[None, :], 6)
    whole = np.floor(quotas).astype(np.int64)
    missing = totals - whole.sum(axis=1)
    rank = (whole - quotas).argsort(axis=1, kind="stable").argsort(axis=1)
    dealt: NDArray[np.int64] = whole + (rank < missing[:, None])
    return dealt


def _plain(distribution: Any) -> Any:
    return None if distribution is None else distribution.model_dump(mode="json")
