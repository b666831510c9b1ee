"""Passing chunks: what is counted while the chunks of a large trial pass by, for all requests and for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.analysis.chunks import ChunkLists, PerRequest
from harness.analysis.columns import ALL, Columns, Counted, Flags, Floats, Ints
from harness.analysis.gap_counts import GapCounter, thresholds
from harness.analysis.latencies import chosen_for_gaps, chosen_for_token_gaps, cut_off_waits, token_gaps
from harness.analysis.rates import chunk_weights, time_bins
from harness.analysis.window import Window

SLICE_CHUNKS = 2**18
SAMPLE_CHUNKS = 2**18


@dataclass
class _Group:
    """One class, or all. rows: who belongs to it.   icl, itl: whose gaps count; of itl those whose tokens are counted
    too.
    """

    rows: Flags
    chosen: Flags
    succeeded: Flags
    icl: GapCounter
    itl: GapCounter
    arrived: list[Floats]


class PassingChunks:
    """Takes the chunks of a trial in batches, twice: a sample of them, then each once.

    columns: the requests without their chunks.   classes: rows counted separately as well.   levels: of the quantiles
    that will be asked for.
    """

    def __init__(self, columns: Columns, classes: Mapping[str, Flags], window: Window, levels: Sequence[float]) -> None:
        self._columns, self._levels = columns, tuple(levels)
        self._rows = {ALL: np.ones(len(columns), dtype=np.bool_), **classes}
        self._chosen = columns.measured_rows & chosen_for_gaps(columns)
        self._edges = (window.edges(), time_bins(columns))
        self._each = PerRequest.empty(len(columns))
        self._total = columns.counts["output_tokens"]
        self._samples: dict[str, tuple[list[Floats], list[Floats]]] = {name: ([], []) for name in self._rows}
        self._groups: dict[str, _Group] = {}

    def look_at(self, lists: ChunkLists, places: Ints) -> None:
        """A part of the sample, of which every so many requests are used. places: of its requests in due order."""
        step = max(1, len(lists.ns) // SAMPLE_CHUNKS)
        used = self._chosen[places] & (np.arange(len(places)) % step == 0)
        for name, (gaps, gaps_per_token) in self._samples.items():
            own = lists.where(used & self._rows[name][places])
            gaps.append(own.gaps_ns.astype(np.float64))
            each, times, _ = token_gaps(own)
            gaps_per_token.append(np.repeat(each, times))

    def take(self, lists: ChunkLists, places: Ints) -> None:
        """A batch. places: of its requests in due order."""
        if not self._groups:
            self._begin()
        rows = max(1, len(places) * SLICE_CHUNKS // max(len(lists.ns), 1))
        ends = np.concatenate(([0], np.cumsum(lists.sizes)))
        for first in range(0, len(places), rows):
            last = min(first + rows, len(places))
            inside = slice(ends[first], ends[last])
            part = ChunkLists(lists.sizes[first:last], lists.ns[inside], lists.tokens[inside])
            self._take_slice(part, places[first:last])

    def _begin(self) -> None:
        columns = self._columns
        for name, rows in self._rows.items():
            own = rows & self._chosen
            samples = [np.concatenate([*parts, np.empty(0)]) for parts in self._samples.pop(name)]
            icl, itl = (GapCounter(len(columns), thresholds(sample, self._levels)) for sample in samples)
            arrived = [np.zeros(len(edges) - 1) for edges in self._edges[: None if name == ALL else 1]]
            self._groups[name] = _Group(rows, own, own & columns.ok, icl, itl, arrived)

    def _take_slice(self, lists: ChunkLists, places: Ints) -> None:
        each = lists.each()
        self._each.put(places, each)
        total = self._total[places]
        countable = chosen_for_token_gaps(np.ones(len(places), dtype=np.bool_), each)
        for group in self._groups.values():
            own = group.rows[places]
            for arrived, edges in zip(group.arrived, self._edges, strict=False):
                arrived += arrived_in(lists.where(own), each.where(own), total[own], edges)
            _count(group, lists, places, group.succeeded[places] & countable)

    def finish(self) -> dict[str, Columns]:
        """The columns of all requests and of each class, with what was counted."""
        if not self._groups:
            self._begin()
        columns = replace(self._columns, each=self._each)
        found: dict[str, Columns] = {}
        for name, group in self._groups.items():
            waits = np.where(group.chosen, cut_off_waits(columns), np.nan)
            gaps = {"icl_ms": group.icl.finish(waits), "itl_ms": group.itl.finish(np.full(len(columns), np.nan))}
            counted = Counted(gaps, tuple(zip(self._edges, group.arrived, strict=False)))
            found[name] = replace(columns, counted=counted) if name == ALL else columns.where(group.rows, counted)
        return found


def _count(group: _Group, lists: ChunkLists, places: Ints, with_counts: Flags) -> None:
    """Gaps between chunks and, spread over their tokens, per token; one count serves both where these are the same."""
    chosen = group.chosen[places]
    gaps_ns = lists.gaps_ns if chosen.all() else lists.gaps_ns[np.repeat(chosen, lists.gap_counts)]
    part = group.icl.part(gaps_ns, None, lists.gap_counts[chosen])
    group.icl.add(part, places[chosen])
    alike = lists.all_alike and group.icl.thresholds_ns == group.itl.thresholds_ns
    if alike and np.array_equal(chosen, with_counts):
        group.itl.add(part, places[chosen])
        return
    gaps, tokens, of_request = token_gaps(lists.where(with_counts))
    group.itl.add(group.itl.part(gaps, tokens, of_request), places[with_counts])


def arrived_in(lists: ChunkLists, each: PerRequest, total: Floats, edges: Floats) -> Floats:
    """Tokens of chunks between neighbouring edges of equal parts.

    Only where a request's first and last chunk lie in different parts is each chunk looked at.
    """
    some = each.sizes > 0
    if not some.any():
        return np.zeros(len(edges) - 1)
    first = np.zeros(len(each.sizes), dtype=np.int64)
    last = first.copy()
    first[some] = _bins(lists.ns[lists.starts[some]], edges)
    last[some] = _bins(lists.ns[(lists.starts + lists.sizes - 1)[some]], edges)
    inside = some & (first == last)
    borne = np.where(each.counted > 0, np.where(np.isfinite(total), total, each.counted), np.nan_to_num(total))
    found: Floats = np.zeros(len(edges) + 1)
    found += np.bincount(first[inside], borne[inside], len(edges) + 1)
    across = some & ~inside
    if lists.all_alike:
        adjacent = across & (last == first + 1) & (last < len(edges))
        before = _before(lists.where(adjacent), edges[first[adjacent]]) / each.sizes[adjacent]
        found += np.bincount(first[adjacent], borne[adjacent] * before, len(edges) + 1)
        found += np.bincount(last[adjacent], borne[adjacent] * (1 - before), len(edges) + 1)
        across &= ~adjacent
    if across.any():
        parted = lists.where(across)
        weights = chunk_weights(parted, each.where(across), total[across])
        found += np.bincount(_bins(parted.ns, edges), weights, len(edges) + 1)
    return found[1:-1]


def _before(lists: ChunkLists, moments: Floats) -> Ints:
    """How many chunks of each request, which has at least one, came before a moment of its own."""
    if not len(lists.ns):
        return np.zeros(0, dtype=np.int64)
    came: Ints = np.add.reduceat(lists.ns < np.repeat(moments, lists.sizes), lists.starts, dtype=np.int64)
    return came


def _bins(moments: Floats | Ints, edges: Floats) -> Ints:
    """Which of equal parts each moment lies in, from 1; 0 before the first, and one more than there are after the
    last, whose own end it includes, as `np.histogram` does.
    """
    parts = len(edges) - 1
    width = (edges[-1] - edges[0]) / parts if parts else 0.0
    if not width > 0:
        return np.zeros(len(moments), dtype=np.int64)
    found: Ints = np.clip((moments - edges[0]) * (1 / width), 0, parts - 1).astype(np.int64) + 1
    found -= moments < edges[found - 1]
    found += (moments >= edges[found]) & (found < parts)
    found += moments > edges[-1]
    return found
