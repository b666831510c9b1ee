"""Steady: whether the measured stream had stopped warming up when the window began, and did not drift within it.

It only tells. The numbers stay those of the planned window: what a search for the best place to cut leaves out differs
from run to run, so that two runs would no longer have measured the same thing, and a service that is slow to warm up
would look better than its users find it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import stats, thresholds
from harness.columns import Columns, Floats
from harness.latencies import of_each
from harness.queue_guard import changes_by_plan
from harness.rates import output_tokens_in, time_bins
from harness.reasons import Level, Reason
from harness.records import Status
from harness.window import NS_PER_S

if TYPE_CHECKING:
    from harness.reading import Reading

STEADY, WARM_UP, DRIFT, NOT_ENOUGH = "steady", "warm-up", "drift", "not enough"
BIN_REQUESTS = 5
LEAST_BINS = 20
MOST_BINS = 600
PARTS_OF_BIN = 4
BATCHES = 20
DRIFT_P_VALUE = 0.01
CLEAR_DEVIATIONS = 4.0
CLEAR_SHARE = 0.02
STILL_DEVIATIONS = 2.0
DECAYING = 0.9
NAMES = {
    "ttft_ms": "the time to the first token",
    "tpot_ms": "the time per output token",
    "e2e_ms": "the end-to-end time",
    "output_tokens_per_s": "output tokens per second",
    "in_flight": "the number of requests in flight",
}


@dataclass(frozen=True, slots=True)
class Series:
    """Something measured over the window in bins. starts_s: of each bin after the window's begin.   values: per bin.

    each: what trends are of, in order, with when (in s after the window's begin); None for a series without a test.
    """

    starts_s: Floats
    values: Floats
    each: tuple[Floats, Floats] | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a series is best cut: so many bins at its begin.

    clear: they differ from the rest as a warm-up does.   converged: the cut lies before the half, which is the limit.
    """

    bins: int
    clear: bool
    converged: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """How likely chance alone makes a trend as clear, and the fitted change over the whole as a share of the mean."""

    p_value: float
    change: float


def mser(bins: Floats) -> int:
    """How many bins at the begin to cut so that the standard error of the mean of the others is least: the marginal
    standard error rule (White 1997) with the bins as its batches; at most half of them.
    """
    m = len(bins)
    centred = bins - bins.mean()
    cuts = np.arange(m // 2 + 1)
    left = m - cuts
    sums, squares = (np.cumsum(part[::-1])[::-1][cuts] for part in (centred, centred**2))
    spread = np.maximum(squares - sums**2 / left, 1e-12 * squares[0])
    return int(cuts[np.argmin(spread / left.astype(np.float64) ** 2)])


def cut_of(bins: Floats) -> Cut:
    """Where a series is best cut, and whether what comes before is a warm-up and no chance.

    Queues make excursions of their own. So it must differ from the rest by CLEAR_DEVIATIONS, the rest's autocorrelation
    counted in, and by CLEAR_SHARE of the rest's mean; its first third must be about as far off as any, and its second
    half off by STILL_DEVIATIONS.
    """
    d = mser(bins)
    if d == 0:
        return Cut(0, False, True)
    rest = bins[d:]
    middle, spread, time = float(rest.mean()), float(rest.std()), stats.autocorrelation_time(rest)
    sign = math.copysign(1, float(bins[:d].mean()) - middle)

    def off(part: Floats) -> float:
        return sign * (float(part.mean()) - middle)

    def deviation(part: Floats) -> float:
        return spread * math.sqrt(time / len(part) + time / len(rest))

    begin, late = bins[:d], bins[d // 2 : d]
    clear = (
        off(begin) > max(CLEAR_DEVIATIONS * deviation(begin), CLEAR_SHARE * abs(middle))
        and off(late) > STILL_DEVIATIONS * deviation(late)
        and off(begin[: -(-d // 3)]) >= DECAYING * max(off(part) for part in np.array_split(begin, min(3, d)))
    )
    return Cut(d, clear, d < len(bins) // 2)


def drift_of(values: Floats) -> Drift | None:
    """The trend of BATCHES batch means; None for fewer than five values each."""
    size = len(values) // BATCHES
    if size < BIN_REQUESTS:
        return None
    means = values[: size * BATCHES].reshape(BATCHES, size).mean(axis=1)
    found, middle = stats.trend(means), float(np.abs(means.mean()))
    return Drift(found.p_value, found.slope * (BATCHES - 1) / middle if middle > 0 else 0.0)


def steady_facts(reading: Reading) -> dict[str, Any]:
    """How steady the window was, JSON-able.

    class: "steady", "warm-up", "drift" or "not enough" (None with `reason`: the load changes by plan).
    warmup_s: how long after the window's begin it still warmed up, None: not clearly.   warming: the series that did so
    for longest.   converged: that ended before the half.   trends: metric -> p_value, change (share of its mean, over
    what comes after warmup_s).
    """
    nothing: dict[str, Any] = {"class": None, "warmup_s": None, "warming": None, "converged": True, "trends": {}}
    if changes_by_plan(reading.trial):
        return nothing | {"reason": "the load changes by plan"}
    series = {name: one for name, one in series_of_window(reading).items() if len(one.values) >= LEAST_BINS}
    if not any(one.each for one in series.values()):
        return nothing | {"class": NOT_ENOUGH, "reason": f"fewer than {BIN_REQUESTS * LEAST_BINS} requests"}
    cuts = {name: cut_of(one.values) for name, one in series.items()}
    ends = {name: float(series[name].starts_s[cut.bins]) for name, cut in cuts.items() if cut.clear}
    warming = max(ends, key=lambda name: ends[name], default=None)
    cut_s = ends[warming] if warming else None
    trends = _trends(series, cut_s or 0.0)
    if warming and not cuts[warming].converged and _drifting(trends):  # no warm-up: it goes on
        warming, cut_s, trends = None, None, _trends(series, 0.0)
    long = bool(cut_s) and thresholds.WARM_UP.level((cut_s or 0.0) / _length_s(reading)) is not Level.VALID
    kind = DRIFT if _drifting(trends) else WARM_UP if long else STEADY
    return nothing | {
        "class": kind,
        "warmup_s": cut_s,
        "warming": warming,
        "converged": warming is None or cuts[warming].converged,
        "trends": {name: asdict(found) for name, found in trends.items()},
    }


def unsteady(reading: Reading, facts: dict[str, Any]) -> Iterator[Reason]:
    """What of `steady_facts` casts doubt on a window."""
    cut_s = facts["warmup_s"]
    if cut_s and thresholds.WARM_UP.level(cut_s / _length_s(reading)) is not Level.VALID:
        what = NAMES[facts["warming"]]
        sentence = f"The first {_seconds(cut_s)} of the window still warmed up, judged by {what}."
        wanted = _seconds(math.ceil(reading.window.start_ns / NS_PER_S + cut_s))
        advice = f"Set `warmup` to at least {wanted}."
        if not facts["converged"]:
            sentence = f"The window still warmed up at its half, judged by {what}."
            advice = f"Set `warmup` to far more than {wanted}, or offer less than the engine can take."
        yield Reason("warmup_too_short", Level.WARN, sentence, advice)
    if facts["class"] == DRIFT:
        trends = {name: Drift(**found) for name, found in facts["trends"].items()}
        name, found = _drifting(trends)[0]
        sentence = f"{NAMES[name].capitalize()} drifted by {found.change:+.0%} over the window."
        yield Reason("not_steady", Level.WARN, sentence, _remedy({name for name, _ in _drifting(trends)}))


def series_of_window(reading: Reading) -> dict[str, Series]:
    """What is looked at: medians of ttft and tpot (without any, of e2e), tokens per second, requests in flight."""
    columns = reading.columns
    rows = reading.window.population(columns)
    due = rows.times["due"]
    if not len(rows) or not due[-1] > due[0]:
        return {}
    values = of_each(rows)
    first = np.isfinite(values["ttft_ms"]).any()
    found = {
        name: _of_requests(values[name], (due - reading.window.start_ns) / NS_PER_S)
        for name in (("ttft_ms", "tpot_ms") if first else ("e2e_ms",))
    }
    found["in_flight"] = _in_flight(columns, len(rows), reading.window.start_ns, float(due[-1]))
    found["output_tokens_per_s"] = _tokens(columns, reading.window.start_ns, float(due[-1]))
    return found


def _of_requests(values: Floats, due_s: Floats) -> Series:
    known = np.isfinite(values)
    values, due_s = values[known], due_s[known]
    width = max(BIN_REQUESTS, -(-len(values) // MOST_BINS))
    count = len(values) // width
    bins = np.median(values[: count * width].reshape(count, width), axis=1)
    return Series(due_s[: count * width : width], bins, (values, due_s))


def _in_flight(columns: Columns, offered: int, begin_ns: float, end_ns: float) -> Series:
    """Means over equal parts of the time, about as many as five requests each give."""
    sent = ~columns.has_status([Status.NOT_SENT]) & np.isfinite(columns.times["due"]) & np.isfinite(columns.ended)
    due_s, ended_s = ((times[sent] - begin_ns) / NS_PER_S for times in (columns.times["due"], columns.ended))
    count = max(1, min(MOST_BINS, offered // BIN_REQUESTS))
    edges_s = np.linspace(0.0, (end_ns - begin_ns) / NS_PER_S, count * PARTS_OF_BIN + 1)
    busy_s = np.diff(_elapsed(due_s, edges_s) - _elapsed(np.sort(ended_s), edges_s))
    parts = busy_s / (edges_s[1] - edges_s[0])
    return Series(edges_s[:-1:PARTS_OF_BIN], parts.reshape(count, PARTS_OF_BIN).mean(axis=1), (parts, edges_s[:-1]))


def _elapsed(moments: Floats, at: Floats) -> Floats:
    """The sum of the times that have passed since those of the moments, in ascending order, that lie before."""
    before = np.searchsorted(moments, at)
    return before * at - np.concatenate(([0.0], np.cumsum(moments)))[before]


def _tokens(columns: Columns, begin_ns: float, end_ns: float) -> Series:
    edges = time_bins(columns)
    inside = (edges[:-1] >= begin_ns) & (edges[1:] <= end_ns)
    arrived, _ = output_tokens_in(columns, edges)
    return Series((edges[:-1][inside] - begin_ns) / NS_PER_S, arrived[inside])


def _trends(series: dict[str, Series], since_s: float) -> dict[str, Drift]:
    found = {}
    for name, one in series.items():
        values, at_s = one.each or (np.empty(0), np.empty(0))
        drift = drift_of(values[at_s >= since_s])
        if drift is not None:
            found[name] = drift
    return found


def _drifting(trends: dict[str, Drift]) -> list[tuple[str, Drift]]:
    """Those that did, the clearest first. DRIFT_P_VALUE is for all of them together."""
    found = [
        (name, one)
        for name, one in trends.items()
        if one.p_value < DRIFT_P_VALUE / len(trends) and thresholds.DRIFT.level(abs(one.change)) is not Level.VALID
    ]
    return sorted(found, key=lambda one: one[1].p_value)


def _remedy(drifting: set[str]) -> str:
    if "in_flight" in drifting:
        return "Offer less than the engine can take: requests pile up, or warm up for longer."
    if drifting == {"tpot_ms"}:
        return "Warm up for longer, and look at clocks, temperature and the memory of the engine over the window."
    return "Warm up for longer, or offer less than the engine can take."


def _length_s(reading: Reading) -> float:
    return max(reading.window.seconds, 1e-9)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"
