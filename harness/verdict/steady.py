"""Judge whether a window was steady: warm-up, drift, overload, and the effect on the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis import stats
from harness.analysis.columns import NS_PER_S
from harness.analysis.distributions import Pool
from harness.analysis.latencies import of_each
from harness.analysis.queue import changes_by_plan
from harness.analysis.rates import seconds_since_due
from harness.analysis.stats import Floats, quantile_of
from harness.analysis.steady import BIN_REQUESTS, LEAST_BINS, Drift, Series, drift_of, mser, series_of_window
from harness.records import Loop
from harness.verdict import thresholds
from harness.verdict.reason import Effect, Level, Reason
from harness.verdict.tolerance import WITH, WORDS, Tolerance, doubted, in_words, without

if TYPE_CHECKING:
    from harness.analysis.reading import Reading

STEADY, WARM_UP, DRIFT, NOT_ENOUGH = "steady", "warm-up", "drift", "not enough"
_LATENCIES = ("ttft_ms", "ttfo_ms", "e2e_ms", "norm_latency_ms", "attainment", "goodput_rps")


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a series is best cut: so many bins at its begin.

    clear: they differ from the rest as a warm-up does.   converged: the cut lies before the half, which is the limit.
    """

    bins: int
    clear: bool
    converged: bool


def cut_of(bins: Floats) -> Cut:
    """Return where a series is best cut, and whether what comes before is a warm-up and no chance.

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
    chance = thresholds.CLEAR_DEVIATIONS.value * deviation(begin)
    clear = off(begin) > max(chance, thresholds.CLEAR_SHARE.value * abs(middle))
    still = off(late) > thresholds.STILL_DEVIATIONS.value * deviation(late)
    worst = max(off(part) for part in np.array_split(begin, min(3, d)))
    decaying = off(begin[: -(-d // 3)]) >= thresholds.DECAYING.value * worst
    return Cut(d, clear and still and decaying, d < len(bins) // 2)


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
    whole = _trends(series, 0.0)
    if warming and not cuts[warming].converged and _drifting(trends or whole):  # no warm-up: it goes on
        warming, cut_s, trends = None, None, whole
    long = (cut_s or 0.0) > thresholds.WARM_UP.value * _length_s(reading)
    kind = DRIFT if _drifting(trends) else WARM_UP if long else STEADY
    return nothing | {
        "class": kind,
        "warmup_s": cut_s,
        "warming": warming,
        "converged": warming is None or cuts[warming].converged,
        "trends": {name: asdict(found) for name, found in trends.items()},
    }


def unsteady(reading: Reading, facts: dict[str, Any], tolerance: Tolerance) -> Iterator[Reason]:
    """Yield the reasons of a window in which numbers depend on when it begins or ends (D6)."""
    trends = {name: Drift(**found) for name, found in facts["trends"].items()}
    drifting = [name for name, _ in _drifting(trends)]
    overload = list(_overload(reading, trends))
    yield from overload
    if not overload:  # of which drifting latencies are the consequence
        latencies = [name for name in drifting if name in WITH]
        yield from _drifted(reading, [(name, trends[name]) for name in latencies], tolerance.share)
    yield from _warm_up(reading, facts, tolerance)


def _overload(reading: Reading, trends: dict[str, Drift]) -> Iterator[Reason]:
    """Yield the reason of requests that pile up in an open loop."""
    found = trends.get("in_flight")
    if found is None or reading.trial.loop == Loop.CLOSED or not _is_clear(found, len(trends)):
        return
    at_once = seconds_since_due(reading.columns, reading.window) / _length_s(reading)
    due = max(1, len(reading.window.population(reading.columns)))
    if found.change * at_once <= thresholds.BACKLOG.value * due:  # replies that take longer keep more in flight, too
        return
    what, advice = "in flight", "Lower the rate: the server completes fewer requests than arrive."
    if reading.trial.max_concurrency is not None:
        what = "in flight or waiting for a place"
        advice = "Lower the rate, or raise `max_concurrency`: fewer requests complete than arrive."
    sentence = f"Overload: requests {what} grew by {found.change:+.0%} over the window. p95 grows with its length."
    yield from thresholds.OVERLOAD.reasons(found.change, sentence, advice, _LATENCIES)


def _drifted(reading: Reading, found: Sequence[tuple[str, Drift]], share: float) -> Iterator[Reason]:
    """Yield the reason of latencies that drift by more than a share, and than half their interval."""
    for name, drift in found:
        held = reading.distributions[name]
        estimate, value = Pool([held]).estimate("p50"), quantile_of(held.ordered, 0.5)
        width = (estimate.high - estimate.low) / value if value > 0 else math.inf
        chance = math.isfinite(width) and abs(drift.change) <= thresholds.HALF.value * width
        if chance or not math.isfinite(value) or abs(drift.change) <= share:
            continue
        sentence = f"{WORDS[name]} drifted by {drift.change:+.0%} over the window"
        part = abs(drift.change) / 2
        effect = Effect(name, "p50", value, max(0.0, value * (1 - part)), value * (1 + part))
        advice = _remedy(name)
        size = thresholds.DRIFT.times(abs(drift.change))
        sentence += f": {in_words(effect)}."
        yield Reason("not_steady", Level.WARN, sentence, advice, doubted([effect]), (effect,), size)
        return


def _warm_up(reading: Reading, facts: dict[str, Any], tolerance: Tolerance) -> Iterator[Reason]:
    """Yield the reason of a warm-up within the window: the numbers with and without it."""
    cut_s = facts["warmup_s"]
    if not cut_s or cut_s <= thresholds.WARM_UP.value * _length_s(reading):
        return
    rows = reading.columns.measured
    later = rows.times["due"] >= reading.window.start_ns + cut_s * NS_PER_S
    effects = []
    for name, values in of_each(rows).items():
        known = np.isfinite(values)
        effects += tolerance.effects_on(name, values[known], values[known & later])
    kept, size = tolerance.largest(effects)
    if not kept:
        return
    sentence = f"The first {_seconds(cut_s)} of the window were still warm-up: {without(kept[0])} them."
    wanted = _seconds(math.ceil(reading.window.start_ns / NS_PER_S + cut_s))
    advice = f"Set `warmup` to at least {wanted}."
    if not facts["converged"]:
        advice = f"Set `warmup` to far more than {wanted}: half of the window was not enough."
    yield Reason("warm_up", Level.WARN, sentence, advice, doubted(kept), kept, size)


def _trends(series: dict[str, Series], since_s: float) -> dict[str, Drift]:
    found = {}
    for name, one in series.items():
        values, at_s = one.each or (np.empty(0), np.empty(0))
        drift = drift_of(values[at_s >= since_s])
        if drift is not None:
            found[name] = drift
    return found


def _drifting(trends: dict[str, Drift]) -> list[tuple[str, Drift]]:
    """Return those that did, the clearest first."""
    clear = {name: one for name, one in trends.items() if _is_clear(one, len(trends))}
    found = [(name, one) for name, one in clear.items() if thresholds.DRIFT.level(abs(one.change)) is not Level.VALID]
    return sorted(found, key=lambda one: one[1].p_value)


def _is_clear(drift: Drift, trends: int) -> bool:
    """Return whether a trend is no chance; DRIFT_P_VALUE is for all trends together."""
    return drift.p_value < thresholds.DRIFT_P_VALUE.value / trends


def _remedy(name: str) -> str:
    if name == "tpot_ms":
        return "Set a longer `warmup`, and look at clocks, temperature and memory of the engine over the window."
    return "Set a longer `warmup`, or lower the load."


def _length_s(reading: Reading) -> float:
    return max(reading.window.seconds, 1e-9)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"
