"""Sample size: which quantiles a trial can give as a number, before it runs and after, and how long it must be for
the others.

A quantile needs ln(alpha / 2) / ln(p) independent requests, 72 for a p95 and 368 for a p99; with fewer it is a bound.
Requests that queue are worth fewer than their number, by how much nobody knows before the run: what is said before
is the least.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness import stats
from harness.estimate import expected_requests
from harness.limits import parse_limit
from harness.loads import Load
from harness.matrix import Cell, Skip
from harness.metrics import find
from harness.reasons import Level, Reason
from harness.records import Loop
from harness.scenario import Scenario
from harness.traffic_section import Workload
from harness.trial_plans import load_names

if TYPE_CHECKING:
    from harness.reading import Reading

LEVELS = (0.5, 0.95, 0.99)
HEADLINE = 0.95
METRICS = ("ttft_ms", "e2e_ms")
DEPENDENT = 0.5  # requests worth less than this part of their number hang together


def foretold(planned: Sequence[Cell | Skip]) -> list[str]:
    """A line for each load of a plan some of whose quantiles will be bounds, however the requests turn out."""
    cells = [cell for cell in planned if isinstance(cell, Cell)]
    times = max((cell.repetition for cell in cells), default=1)
    plans = {plan.name: plan for cell in cells for plan in cell.trials}
    lines = (will_be_bounds(name, plan.load, plan.workload, plan.limits, times) for name, plan in plans.items())
    return [line for line in lines if line]


def foretold_of(scenario: Scenario) -> list[str]:
    """The same of a scenario that is not expanded."""
    blocks = [scenario.load, *(block.load for block in scenario.engines if block.load is not None)]
    lines = {}
    for loads in blocks:
        for name, load in zip(load_names(loads), loads, strict=True):
            limits = (*scenario.limits, *load.limits)
            lines[name] = will_be_bounds(name, load, scenario.workload, limits, scenario.repetitions)
    return [line for line in lines.values() if line]


def will_be_bounds(
    name: str, load: Load, workload: Workload, limits: Iterable[str] = (), repetitions: int = 1
) -> str | None:
    """What to say before a load runs; None where every quantile may be a number, or nobody knows how many requests
    there will be. limits: whose levels count, too.   repetitions: which are taken together.
    """
    expected = measured_requests(load, workload)
    if expected is None:
        return None
    levels = sorted({*LEVELS, *(p for _, p in limited(limits))})
    lacking = [p for p in levels if expected * repetitions < stats.floor_two_sided(p)]
    if not lacking:
        return None
    seconds = _seconds(load)
    gives = f"about {expected:.0f} requests" + ("" if seconds is None else f" in {_time(seconds)}")
    gives += "" if repetitions == 1 else f", {repetitions} times"
    needs = [f"{label(p)} (needs at least {_least(p, load, expected * repetitions)})" for p in lacking]
    return f"load {name}: {gives}, so {_joined(needs)} will be given as {'bounds' if len(lacking) > 1 else 'a bound'}"


def measured_requests(load: Load, workload: Workload) -> float | None:
    """How many requests a load is expected to measure, at most; None where that depends on the engine."""
    if "warmup_s" in type(load).model_fields:
        load = load.model_copy(update={"warmup_s": 0.0})
    return expected_requests(load, workload).high


def limited(limits: Iterable[str]) -> Iterator[tuple[str, float]]:
    """The (registered metric, level) of each limit on a quantile of all requests."""
    for limit in map(parse_limit, limits):
        metric = find(limit.metric)
        if metric and not limit.class_name and limit.statistic and limit.statistic.startswith("p"):
            yield metric.name, float(limit.statistic[1:]) / 100


def sizes_of(reading: Reading) -> dict[str, dict[str, Any]]:
    """What the quantiles of a trial lack that are bounds for want of requests: "ttft_ms p99" -> level, needed and have
    (independent requests), n (requests) and times_longer (how many times as long it should have been).
    """
    asked = set(limited(reading.trial.get("limits") or ()))
    wanted = dict.fromkeys([(name, p) for name in METRICS for p in (HEADLINE, stats.LEVELS[-1])])
    wanted |= dict.fromkeys(sorted(one for one in asked if one[0] in reading.distributions))
    found = {}
    for name, p in wanted:
        held = reading.distributions[name]
        have, needed = held.effective_size(p), stats.floor_two_sided(p)
        if held.ordered.n and math.floor(have) < needed:
            size = {"level": p, "needed": needed, "have": have, "n": held.ordered.n}
            found[f"{name} {label(p)}"] = size | {"times_longer": needed / max(have, 1.0)}
    return found


def too_few(reading: Reading, sizes: dict[str, dict[str, Any]]) -> Iterator[Reason]:
    """A warning for each level that is a bound and was asked for: p95, which every report leads with, and those that a
    limit names. Never invalid: a bound is a true statement.
    """
    asked = {f"{name} {label(p)}" for name, p in limited(reading.trial.get("limits") or ())}
    asked |= {f"{name} {label(HEADLINE)}" for name in METRICS}
    told = {statistic: size for statistic, size in sizes.items() if statistic in asked}
    for p in sorted({size["level"] for size in told.values()}):
        of_level = {statistic.split()[0]: size for statistic, size in told.items() if size["level"] == p}
        worst = min(of_level.values(), key=lambda size: (size["have"], size["n"]))
        verb = "is given as a bound"
        sentence = (
            f"{label(p)} of {' and '.join(of_level)} {verb}: it needs {worst['needed']} independent requests, "
            f"and these {worst['n']} are worth {worst['have']:.0f}."
        )
        advice = more_of(reading, worst["n"], worst["times_longer"])
        if alone(reading) and worst["have"] < DEPENDENT * worst["n"]:
            advice = (
                f"Nobody queues behind one user: free the machine of other work. If that was all, {lowered(advice)}"
            )
        yield Reason("few_samples", Level.WARN, sentence, advice)


def alone(reading: Reading) -> bool:
    """Whether one user at a time was all there was: what then depends on each other does so by the machine."""
    return reading.trial.get("loop") == Loop.CLOSED and reading.frame["user"].nunique() <= 1


def lowered(sentence: str) -> str:
    """A sentence in the middle of another."""
    return sentence[:1].lower() + sentence[1:]


def more_of(reading: Reading, n: int, times: float) -> str:
    """How to measure so many times as much: loads that end with a number of requests have no time to prolong, and
    more time does not make a spike larger.
    """
    trial = reading.trial
    if (trial.get("bursts") or {"every_s": math.inf})["every_s"] is None:
        return f"Repeat the spike (`repetitions`), or measure with about {math.ceil(n * times)} requests."
    if (trial.get("window") or {}).get("end_ns") is None:
        return f"Measure with about {math.ceil(n * times)} requests."
    return f"Measure about {times:.1f} times as long ({_time(times * reading.window.seconds)})."


def label(p: float) -> str:
    """A level as a statistic is called: p99.9."""
    return f"p{100 * p:.6g}"


def _least(p: float, load: Load, expected: float) -> str:
    needed = stats.floor_two_sided(p)
    seconds = _seconds(load)
    return f"{needed}" + ("" if seconds is None or expected <= 0 else f", {_time(seconds * needed / expected)}")


def _seconds(load: Load) -> float | None:
    seconds: float | None = getattr(load, "duration_s", None)
    return seconds


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
