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

from harness.scenario.prompt_files import FilePrompts
from harness.scenario.traces import Trace
from harness.schedule.prompts import Prompts, draw_lengths, draw_seconds
from harness.seeding import generator

_REPEATS, _PICKS = 14, 15
Int64 = NDArray[np.int64]


class Repeats:
    """Origins of the rows of a schedule: each row repeats another row or itself.

    A repeat picks a random earlier row. It takes the nearest original of its stream before this row (after it, if the
    block begins without one). Old prompts therefore recur as often as new ones. The first row of a stream is an
    original.
    """

    def __init__(
        self, shares: Sequence[float], seed: int, block: int, deal: Callable[[int], NDArray[np.int16]]
    ) -> None:
        """Prepare the draws.

        Args:
            shares: Share of repeats in each stream.
            seed: Seed of every draw.
            block: Rows in a block; every stream occurs in each block.
            deal: Function from a block to the streams of its rows.
        """
        self._shares = np.array(shares, dtype=np.float64)
        self._seed, self._block, self._deal = seed, block, deal
        self._originals: dict[int, list[Int64]] = {}

    def origins(self, block: int) -> Int64:
        """Return the row that each row of a block repeats; an original repeats itself."""
        of_row = self._deal(block)
        rows = np.arange(block * self._block, (block + 1) * self._block, dtype=np.int64)
        origins = rows.copy()
        repeated = np.flatnonzero(self._repeated(block, of_row))
        picks = np.floor(generator(self._seed, _PICKS, block).random(self._block)[repeated] * rows[repeated])
        picks = picks.astype(np.int64)
        for other in np.unique(picks // self._block):
            here = picks // self._block == other
            for stream in np.unique(of_row[repeated[here]]):
                mine = here & (of_row[repeated] == stream)
                origins[repeated[mine]] = self._nearest(int(other), int(stream), picks[mine], rows[repeated[mine]])
        return origins

    def _repeated(self, block: int, of_row: NDArray[np.int16]) -> NDArray[np.bool_]:
        repeated: NDArray[np.bool_] = generator(self._seed, _REPEATS, block).random(self._block) < self._shares[of_row]
        if block == 0:
            _, first = np.unique(of_row, return_index=True)
            repeated[first] = False
        return repeated

    def _nearest(self, block: int, stream: int, picks: Int64, rows: Int64) -> Int64:
        """Return the nearest original of a stream before each pick, or else after it but before the row."""
        originals = self._originals_of(block)[stream]
        if not len(originals):
            return np.full(len(picks), self._originals_of(0)[stream][0])
        before = np.maximum(np.searchsorted(originals, picks, side="right") - 1, 0)
        chosen = originals[before]
        return np.where(chosen < rows, chosen, self._originals_of(0)[stream][0])

    def _originals_of(self, block: int) -> list[Int64]:
        if block not in self._originals:
            of_row = self._deal(block)
            originals = ~self._repeated(block, of_row)
            self._originals[block] = [
                np.flatnonzero(originals & (of_row == stream)) + block * self._block
                for stream in range(len(self._shares))
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
        prompt_tokens: Distribution of prompt lengths.
        output_tokens: Distribution of output lengths.
        exact: True if output lengths are exact.
        repeat: Share of requests that repeat an earlier one.
        later_prompts: Prompts of later turns; None: those of first turns.
        cancel: `share` of requests to cancel and the time `after` sending; None: no cancelling.
        priority: Priority of each request; None: none is sent.
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
    """

    def __init__(
        self,
        streams: tuple[Stream, ...],
        seed: int,
        think_time: Any = None,
        trace: Trace | None = None,
        turn_think_time: Any = None,
    ) -> None:
        """Prepare the draws.

        Args:
            streams: Classes of traffic.
            seed: Seed of every draw.
            think_time: Distribution of the time before a row that waits.
            trace: Recorded lengths, instead of the streams' distributions.
            turn_think_time: Distribution of the time between turns; None: `think_time`.
        """
        self.streams = streams
        self._trace = trace
        self._seed = seed
        self._think_time = think_time
        self._turn_think_time = turn_think_time
        weights = np.array([stream.weight for stream in streams], dtype=np.float64)
        self._shares = weights / weights.sum()
        self._hand = 1 if len(streams) == 1 else 10 * math.ceil(1 / self._shares.min() - 1e-9)
        self._block = self._hand * max(1, _ROWS_AT_ONCE // self._hand)
        shares = [stream.repeat for stream in streams]
        self._repeats = Repeats(shares, seed, self._block, self._deal) if any(shares) else None
        self.cancels = any(stream.cancel is not None for stream in streams)
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
        columns, at = (self._whole, i) if self._whole is not None else (self._cached(i // self._block), i % self._block)
        stream, think_ns = int(columns.stream[at]), 0 if columns.think_ns is None else int(columns.think_ns[at])
        turn_think_ns = think_ns if columns.turn_think_ns is None else int(columns.turn_think_ns[at])
        cancel_ns = NEVER if columns.cancel_ns is None else int(columns.cancel_ns[at])
        origin = i if columns.origin is None else int(columns.origin[at])
        if origin != i and self._whole is None:
            columns, at = self._cached(origin // self._block), origin % self._block
        prompt_tokens, output_tokens = int(columns.prompt_tokens[at]), int(columns.output_tokens[at])
        return Content(stream, prompt_tokens, output_tokens, think_ns, origin, turn_think_ns, cancel_ns)

    def think_ns(self, i: int, *, later_turn: bool) -> int:
        """Return the think time before row i alone."""
        columns, at = (self._whole, i) if self._whole is not None else (self._cached(i // self._block), i % self._block)
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
        return int(_dealt(self._shares, np.array([block * self._block]))[0, index] + (of_row[:at] == index).sum())

    def rows_of_class(self, place: int, rows: int) -> int:
        """Return the number of the first `rows` that belong to a class, with an error of at most one hand."""
        return rows if len(self.streams) == 1 else int(_dealt(self._shares, np.array([rows]))[0, place])

    def columns(self) -> Columns:
        """Return all computed rows, or the first block of a schedule without end."""
        return self._whole if self._whole is not None else self._cached(0)

    def description(self) -> dict[str, Any]:
        """Return everything that determines the rows, as JSON-able data for the schedule's hash."""
        traced = {} if self._trace is None else {"trace": self._trace.fingerprint}
        turns = {} if self._turn_think_time is None else {"turn_think_time": _plain(self._turn_think_time)}
        return (
            traced
            | turns
            | {
                "seed": self._seed,
                "think_time": _plain(self._think_time),
                "streams": [
                    {
                        "name": stream.name,
                        "weight": stream.weight,
                        "prompt_tokens": _plain(stream.prompt_tokens),
                        "output_tokens": _plain(stream.output_tokens),
                        "prompts": stream.prompts.fingerprint,
                        "sampling": dict(stream.sampling),
                        "stream": stream.stream,
                        "exact": stream.exact,
                    }
                    | ({"repeat": stream.repeat} if stream.repeat else {})
                    | ({"cancel": _plain(stream.cancel)} if stream.cancel is not None else {})
                    | ({"priority": stream.priority} if stream.priority is not None else {})
                    for stream in self.streams
                ],
            }
        )

    def _cached(self, block: int) -> Columns:
        if block not in self._blocks:
            if len(self._blocks) >= _BLOCKS_KEPT:
                del self._blocks[min(self._blocks)]
            self._blocks[block] = self._draw(block)
        return self._blocks[block]

    def _draw(self, block: int) -> Columns:
        of_row = self._deal(block)
        prompt_tokens = np.empty(self._block, dtype=np.int32)
        output_tokens = np.empty(self._block, dtype=np.int32)
        for index, stream in enumerate(self.streams):
            rows = np.flatnonzero(of_row == index)
            prompts, outputs = self._lengths(block, index, stream)
            prompt_tokens[rows], output_tokens[rows] = prompts[rows], outputs[rows]
        origin = None if self._repeats is None else self._repeats.origins(block)
        times = self._think(block), origin, self._turn_think(block), self._cancel_times(block, of_row)
        return Columns(of_row, prompt_tokens, output_tokens, *times)

    def _lengths(self, block: int, index: int, stream: Stream) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        if self._trace is not None:
            row = np.arange(block * self._block, (block + 1) * self._block).clip(max=len(self._trace.due_ns) - 1)
            return self._trace.prompt_tokens[row], self._trace.output_tokens[row]
        outputs = draw_lengths(stream.output_tokens, generator(self._seed, _OUTPUT_TOKENS, index, block), self._block)
        if isinstance(stream.prompts, FilePrompts):
            line = stream.prompts.lines(self._numbers(block, index))
            stated = stream.prompts.output_tokens[line]
            return stream.prompts.prompt_tokens[line], np.where(stated > 0, stated, outputs)
        prompts = draw_lengths(stream.prompt_tokens, generator(self._seed, _PROMPT_TOKENS, index, block), self._block)
        return prompts, outputs

    def _numbers(self, block: int, index: int) -> NDArray[np.int64]:
        """Return for each row of a block the number of earlier rows of a class."""
        if len(self.streams) == 1:
            return np.arange(block * self._block, (block + 1) * self._block)
        before = _dealt(self._shares, np.array([block * self._block]))[0, index]
        own = self._deal(block) == index
        numbers: NDArray[np.int64] = before + np.cumsum(own) - own
        return numbers

    def _think(self, block: int) -> NDArray[np.int64] | None:
        if self._think_time is None or (self._think_time.dist == "fixed" and self._think_time.value_s == 0):
            return None
        return draw_seconds(self._think_time, generator(self._seed, _THINK, block), self._block)

    def _turn_think(self, block: int) -> NDArray[np.int64] | None:
        if self._turn_think_time is None:
            return None
        return draw_seconds(self._turn_think_time, generator(self._seed, _TURN_THINK, block), self._block)

    def _cancel_times(self, block: int, of_row: NDArray[np.int16]) -> NDArray[np.int64] | None:
        """Return the nanoseconds from sending to cancelling of each row, or NEVER."""
        if not self.cancels:
            return None
        found = np.full(self._block, NEVER, dtype=np.int64)
        chance = generator(self._seed, _CANCELLED, block).random(self._block)
        for index, stream in enumerate(self.streams):
            if stream.cancel is not None:
                after = draw_seconds(
                    stream.cancel.after, generator(self._seed, _CANCEL_AFTER, index, block), self._block
                )
                found = np.where((of_row == index) & (chance < stream.cancel.share), after, found)
        return found

    def _deal(self, block: int) -> NDArray[np.int16]:
        hands = self._block // self._hand
        if len(self.streams) == 1:
            return np.zeros(self._block, dtype=np.int16)
        counts = _shares_in_hands(self._shares, self._hand, block * hands, hands)
        classes = np.tile(np.arange(len(self.streams), dtype=np.int16), hands)
        sorted_hands = np.repeat(classes, counts.ravel()).reshape(hands, self._hand)
        shuffle = generator(self._seed, _CLASSES, block).random((hands, self._hand)).argsort(axis=1)
        return np.take_along_axis(sorted_hands, shuffle, axis=1).ravel()


def _shares_in_hands(shares: NDArray[np.float64], hand: int, first: int, hands: int) -> NDArray[np.int64]:
    """Return the number of rows of each class in each hand."""
    counts: NDArray[np.int64] = np.diff(_dealt(shares, np.arange(first, first + hands + 1) * hand), axis=0)
    return counts


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
