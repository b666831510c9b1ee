"""Judge whether a window was steady: warm-up, drift, and what to do about them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis import stats
from harness.analysis.columns import NS_PER_S
from harness.analysis.queue import changes_by_plan
from harness.analysis.stats import Floats
from harness.analysis.steady import BIN_REQUESTS, LEAST_BINS, Drift, Series, drift_of, mser, series_of_window
from harness.verdict import thresholds
from harness.verdict.reason import Level, Reason

if TYPE_CHECKING:
    from harness.analysis.reading import Reading

STEADY, WARM_UP, DRIFT, NOT_ENOUGH = "steady", "warm-up", "drift", "not enough"
NAMES = {
    "ttft_ms": "the time to the first token",
    "tpot_ms": "the time per output token",
    "e2e_ms": "the end-to-end time",
    "output_tokens_per_s": "output tokens per second",
    "in_flight": "the number of requests in flight",
}


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


def _trends(series: dict[str, Series], since_s: float) -> dict[str, Drift]:
    found = {}
    for name, one in series.items():
        values, at_s = one.each or (np.empty(0), np.empty(0))
        drift = drift_of(values[at_s >= since_s])
        if drift is not None:
            found[name] = drift
    return found


def _drifting(trends: dict[str, Drift]) -> list[tuple[str, Drift]]:
    """Return those that did, the clearest first. DRIFT_P_VALUE is for all of them together."""
    clear = {name: one for name, one in trends.items() if one.p_value < thresholds.DRIFT_P_VALUE.value / len(trends)}
    found = [(name, one) for name, one in clear.items() if thresholds.DRIFT.level(abs(one.change)) is not Level.VALID]
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
