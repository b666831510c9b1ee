"""Forecast which quantiles of a plan will have an open interval, and how long a load must be for a closed one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis import stats
from harness.analysis.sample_size import LEVELS, label, limited
from harness.scenario.loads.kinds import Load, load_names
from harness.scenario.model import Scenario
from harness.scenario.workload import Workload
from harness.schedule.cells import Cell, Skip
from harness.units import enumerated


def foretold(planned: Sequence[Cell | Skip]) -> list[str]:
    """A line for each load too short for a quantile that its limits name, however the requests turn out."""
    cells = [cell for cell in planned if isinstance(cell, Cell)]
    times = max((cell.repetition for cell in cells), default=1)
    plans = {plan.name: plan for cell in cells for plan in cell.trials}
    lines = (will_be_bounds(name, plan.load, plan.workload, plan.limits, times, ()) for name, plan in plans.items())
    return [line for line in lines if line]


def foretold_of(scenario: Scenario) -> list[str]:
    """Return `foretold` of a scenario that is not expanded."""
    blocks = [scenario.load, *(block.load for block in scenario.engines if block.load is not None)]
    lines = {}
    for loads in blocks:
        for name, load in zip(load_names(loads), loads, strict=True):
            limits = (*scenario.limits, *load.limits)
            lines[name] = will_be_bounds(name, load, scenario.workload, limits, scenario.repetitions, ())
    return [line for line in lines.values() if line]


def will_be_bounds(
    name: str,
    load: Load,
    workload: Workload,
    limits: Iterable[str] = (),
    repetitions: int = 1,
    always: Iterable[float] = LEVELS,
) -> str | None:
    """Return the sentence on a load too short for a quantile; None if it is long enough, or its length is unknown.

    Args:
        limits: Limits whose quantiles count, too.
        repetitions: Number of repetitions, taken together.
        always: Further quantiles.
    """
    expected = measured_requests(load, workload)
    if expected is None:
        return None
    levels = sorted({*always, *(p for _, p in limited(limits))})
    lacking = [p for p in levels if expected * repetitions < stats.floor_two_sided(p)]
    if not lacking:
        return None
    seconds = load.measured_s
    gives = f"about {expected:.0f} requests" + ("" if seconds is None else f" in {shown_time(seconds)}")
    gives += "" if repetitions == 1 else f", {repetitions} times"
    needs = [f"{label(p)} needs {_least(p, load, expected * repetitions)}" for p in lacking]
    return f"load {name}: {gives}; a two-sided interval of {enumerated(needs)}"


def measured_requests(load: Load, workload: Workload) -> float | None:
    """Return the largest expected number of measured requests; None if it depends on the engine."""
    return load.model_copy(update={"warmup_s": 0.0}).expected_requests(workload).high


def _least(p: float, load: Load, expected: float) -> str:
    needed = stats.floor_two_sided(p)
    seconds = load.measured_s
    return f"{needed:,}" + ("" if seconds is None or expected <= 0 else f", {shown_time(seconds * needed / expected)}")


def shown_time(seconds: float) -> str:
    """Return a time for a sentence."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
