"""One-pass aggregation of chunk gaps and token counts, for trials with more chunks than can be kept in memory.

Gaps are counted in BUCKETS per octave. Each bucket stands for the mean of its gaps, so that a quantile is off by less
than 1 / BUCKETS of its value (0.012 %; nothing where the gaps of a bucket are equal). Counts, means, the least and the
greatest are exact. Effective sample sizes are those of indicators of thresholds near the levels, taken from a sample
beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.analysis import stats
from harness.analysis.chunks import ChunkLists, PerRequest
from harness.analysis.columns import ALL, NS_PER_MS, Columns, Counted
from harness.analysis.distributions import CountedGaps
from harness.analysis.latencies import chosen_for_gaps, chosen_for_token_gaps, cut_off_waits, token_gaps
from harness.analysis.rates import chunk_weights, time_bins
from harness.analysis.stats import Flags, Floats, Ints, Ordered
from harness.analysis.window import Window

BUCKETS = 2**13
OCTAVES = 60
SLICE_CHUNKS = 2**18
SAMPLE_CHUNKS = 2**18
_SHIFT = 52 - 13
_LEAST_KEY = 1023 << 13


@dataclass(frozen=True, slots=True)
class _Part:
    """Counts of a block of requests."""

    first: int  # number of the first bucket
    counts: Ints  # gaps of each bucket from the first on
    sums: Floats  # their sums in ns, plus 1 each
    least: float
    greatest: float
    sizes: Ints  # gaps of each request
    totals: Floats  # their sums
    below: NDArray[np.int32]  # how many lie at or below each threshold, shape (levels, requests)


class _GapCounter:
    """Counts the gaps of a trial's requests, block by block, in any order of the requests.

    `thresholds_ns`, by level, are for the effective sample sizes.
    """

    def __init__(self, requests: int, thresholds_ns: Mapping[float, float]) -> None:
        self._levels = sorted(thresholds_ns)
        self.thresholds_ns = [thresholds_ns[level] for level in self._levels]
        self._counts = np.zeros(OCTAVES * BUCKETS, dtype=np.int64)
        self._sums = np.zeros(OCTAVES * BUCKETS)
        self._sizes = np.zeros(requests, dtype=np.int64)
        self._totals = np.zeros(requests)
        self._below = np.zeros((len(self._levels), requests), dtype=np.int32)
        self._least, self._greatest = np.inf, -np.inf

    def add(self, part: _Part | None, places: Ints) -> None:
        """Add a part, if any. `places` are those of its requests."""
        if part is None:
            return
        buckets = slice(part.first, part.first + len(part.counts))
        self._counts[buckets] += part.counts
        self._sums[buckets] += part.sums
        self._least, self._greatest = min(self._least, part.least), max(self._greatest, part.greatest)
        self._sizes[places] = part.sizes
        self._totals[places] = part.totals
        self._below[:, places] = part.below

    def part(self, gaps_ns: Floats | Ints, times: Ints | None, of_request: Ints) -> _Part | None:
        """Count gaps, each once or `times`. `of_request` is the number of gaps of each request."""
        if not len(gaps_ns):
            return None
        requests = len(of_request)
        numbers = np.repeat(np.arange(requests), of_request)
        above_zero = np.maximum(gaps_ns, 0).astype(np.float64) + 1.0
        keys = (above_zero.view(np.int64) >> _SHIFT) - _LEAST_KEY
        first = int(keys.min())
        keys -= first
        weights: Floats = above_zero if times is None else above_zero * times
        totals: Floats = np.zeros(requests)
        weighted = gaps_ns if times is None else gaps_ns * times
        totals[of_request > 0] = np.add.reduceat(weighted, stats.cluster_starts(of_request))
        return _Part(
            first=first,
            counts=np.bincount(keys, times).astype(np.int64),
            sums=np.asarray(np.bincount(keys, weights), dtype=np.float64),
            least=float(gaps_ns.min()),
            greatest=float(gaps_ns.max()),
            sizes=of_request if times is None else np.bincount(numbers, times, requests).astype(np.int64),
            totals=totals,
            below=self._below_thresholds(gaps_ns, times, numbers, requests),
        )

    def _below_thresholds(
        self, gaps_ns: Floats | Ints, times: Ints | None, numbers: Ints, requests: int
    ) -> NDArray[np.int32]:
        """Count the gaps of each request at or below each threshold, shape (levels, requests)."""
        whole = gaps_ns.dtype == np.int64
        above = np.zeros(len(gaps_ns), dtype=np.int8)
        for threshold in self.thresholds_ns:
            above += gaps_ns > (math.floor(threshold) if whole else threshold)  # integers are compared faster
        width = len(self._levels) + 1
        held = np.bincount(numbers * width + above, times, requests * width).reshape(requests, width)
        return np.cumsum(held, axis=1)[:, :-1].T.astype(np.int32)

    def finish(self, cut_off_ns: Floats) -> CountedGaps:
        """Return the distribution. `cut_off_ns` is the last, censored gap of each request, NaN without one."""
        cut = np.isfinite(cut_off_ns)
        cuts = cut_off_ns[cut] / NS_PER_MS
        filled = np.flatnonzero(self._counts)
        counts = self._counts[filled]
        means = (self._sums[filled] / counts - 1.0) / NS_PER_MS
        gaps = _with_ends(Ordered.counted(means, counts), self._least / NS_PER_MS, self._greatest / NS_PER_MS)
        ordered = stats.merged([gaps, Ordered(np.full(len(cuts), np.inf))]) if len(cuts) else gaps
        known = stats.merged([gaps, Ordered.of(cuts)]) if len(cuts) else gaps
        sizes = self._sizes + cut
        totals = (self._totals + np.where(cut, cut_off_ns, 0.0)) / NS_PER_MS
        some = sizes > 0
        batches = stats.batched_clusters(totals[some], sizes[some].astype(np.float64))
        return CountedGaps(ordered, known, len(cuts), self._effective(sizes, some), batches)

    def _effective(self, sizes: Ints, some: Flags) -> dict[float, float]:
        n = int(sizes.sum())
        found: dict[float, float] = {}
        for level, below in zip(self._levels, self._below, strict=True):
            share = float(below.sum(dtype=np.int64)) / max(n, 1)
            found[level] = stats.size_of_clusters(below[some] - share * sizes[some], share, n) if n else 0.0
        return found


def _with_ends(gaps: Ordered, least: float, greatest: float) -> Ordered:
    """Replace the first and the last observation, means of their buckets, by the true ones."""
    if gaps.n < 2:
        return gaps
    counts = gaps.counts()
    counts[0] -= 1
    counts[-1] -= 1
    values = np.concatenate(([least], gaps.values, [greatest]))
    every = np.concatenate(([1], counts, [1]))
    return Ordered(values[every > 0], np.cumsum(every[every > 0]))


@dataclass
class _Group:
    """A class of requests, or all."""

    rows: Flags  # which belong to it
    chosen: Flags  # whose gaps count
    succeeded: Flags  # whose gaps per token may count
    icl: _GapCounter
    itl: _GapCounter
    arrived: list[Floats]


class PassingChunks:
    """Takes the chunks of a trial in batches, twice: a sample of them, then each once.

    `columns` are without chunks; `classes` are counted separately as well; `levels` are those of requested quantiles.
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
        """Take a part of the sample. `places` are those of its requests in due order."""
        step = max(1, len(lists.ns) // SAMPLE_CHUNKS)
        used = self._chosen[places] & (np.arange(len(places)) % step == 0)
        for name, (gaps, gaps_per_token) in self._samples.items():
            own = lists.where(used & self._rows[name][places])
            gaps.append(own.gaps_ns.astype(np.float64))
            each, times, _ = token_gaps(own)
            gaps_per_token.append(np.repeat(each, times))

    def take(self, lists: ChunkLists, places: Ints) -> None:
        """Count a batch. `places` are those of its requests in due order."""
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
        for name, rows in self._rows.items():
            own = rows & self._chosen
            icl, itl = map(self._counter, self._samples.pop(name))
            arrived = [np.zeros(len(edges) - 1) for edges in self._edges[: None if name == ALL else 1]]
            self._groups[name] = _Group(rows, own, own & self._columns.ok, icl, itl, arrived)

    def _counter(self, parts: Sequence[Floats]) -> _GapCounter:
        sample = Ordered.of(np.concatenate([*parts, np.empty(0)]))
        thresholds = {p: sample.at(stats.quantile_rank(sample.n, p)) for p in self._levels if sample.n}
        return _GapCounter(len(self._columns), thresholds)

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
        """Return the columns of all requests and of each class, with the counts."""
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
    """Count gaps between chunks and per token; one count serves both where these are the same."""
    chosen = group.chosen[places]
    gaps_ns = lists.gaps_ns if chosen.all() else lists.gaps_ns[np.repeat(chosen, lists.gap_counts)]
    part = group.icl.part(gaps_ns, None, lists.gap_counts[chosen])
    group.icl.add(part, places[chosen])
    alike = lists.all_alike and group.icl.thresholds_ns == group.itl.thresholds_ns
    if alike and np.array_equal(chosen, with_counts):
        group.itl.add(part, places[chosen])
    else:
        group.itl.add(group.itl.part(*token_gaps(lists.where(with_counts))), places[with_counts])


def arrived_in(lists: ChunkLists, each: PerRequest, total: Floats, edges: Floats) -> Floats:
    """Return the tokens of chunks between neighbouring edges of equal parts.

    Single chunks are examined only if a request's first and last chunk lie in different parts.
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
    """Count the chunks of each request, which has at least one, before a moment of its own."""
    if not len(lists.ns):
        return np.zeros(0, dtype=np.int64)
    came: Ints = np.add.reduceat(lists.ns < np.repeat(moments, lists.sizes), lists.starts, dtype=np.int64)
    return came


def _bins(moments: Floats | Ints, edges: Floats) -> Ints:
    """Return the number of the part, from 1, that holds each moment; 0 before the first, parts + 1 after the last.

    The last part includes its own end, as in `np.histogram`.
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
