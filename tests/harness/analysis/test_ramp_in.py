"""Where the window of an open loop begins: rates are those of the plan however few requests there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from harness.analysis.facts import facts_of
from harness.analysis.rates import rates
from harness.analysis.reading import read
from harness.analysis.stats import Floats
from harness.analysis.window import window_of
from harness.records import Phase, Record
from tests.fabricated import FabricatedTrial, streamed, trial_entry, trial_of

RUNS = 400


def at(due_ms: Floats, e2e_ms: float, end_ms: float) -> list[Record]:
    """Requests of one token each at its end; those behind the window as cooldown."""
    return [
        streamed(i, due, ttft_ms=e2e_ms, tokens=1, phase=Phase.MEASURE if due < end_ms else Phase.COOLDOWN)
        for i, due in enumerate(due_ms.tolist())
    ]


def found(trial: FabricatedTrial) -> tuple[float, float]:
    """Offered and completed per second."""
    reading = read(trial)
    every = rates(reading.columns, reading.window)
    return every["offered_rps"].value, every["completed_rps"].value


def offered(loads: Sequence[tuple[Floats, float]], e2e_ms: float) -> list[float]:
    """Offered per second in each of many trials of (due in ms, end in ms): they are read as one, an hour apart."""
    begins_s = 3600.0 * np.arange(len(loads))
    made = [
        at(due + 1000 * begin, e2e_ms, end + 1000 * begin) for (due, end), begin in zip(loads, begins_s, strict=True)
    ]
    together = read(trial_of([record for records in made for record in records])).columns
    trial = np.repeat(np.arange(len(made)), [len(records) for records in made])
    offers = []
    for number, ((_, end_ms), begin_s) in enumerate(zip(loads, begins_s, strict=True)):
        columns = together.where(trial == number)
        window = window_of(trial_entry(start_s=begin_s, end_s=begin_s + end_ms / 1000), columns)
        offers.append(rates(columns, window)["offered_rps"].value)
    return offers


def poisson(seed: int, per_s: float, until_s: float) -> Floats:
    """Due times in ms."""
    gaps = np.random.default_rng(seed).exponential(1000 / per_s, round(per_s * until_s * 2 + 50))
    due: Floats = np.cumsum(gaps)
    return due[due < until_s * 1000]


@pytest.mark.parametrize(("per_s", "e2e_ms"), [(2, 20), (2, 500), (5, 1000)])
def test_random_arrivals_have_their_rate_in_a_short_trial(per_s: float, e2e_ms: float) -> None:
    """10 s at 2/s or 5/s: over 400 trials the mean is that of the plan; a window that began with a request would hold
    one too many, 2 to 5 %.
    """
    until_s = 10 + 2 * e2e_ms / 1000
    due = [poisson(seed, per_s, until_s) for seed in range(RUNS)]
    planned = [float((one < 10_000).sum()) / 10 for one in due]
    assert np.mean(offered([(one, 10_000.0) for one in due], e2e_ms)) == pytest.approx(np.mean(planned), rel=0.01)


def test_random_arrivals_limited_by_number_have_their_rate() -> None:
    """Twenty requests and the next, at which the window ends: 1/s over 400 trials, with 100 ms or 1 s for each."""
    for e2e_ms in (100, 1000):
        due = [np.cumsum(np.random.default_rng(seed).exponential(1000, 25)) for seed in range(RUNS)]
        assert np.mean(offered([(one, float(one[20])) for one in due], e2e_ms)) == pytest.approx(1, rel=0.02)


def test_where_nothing_is_in_flight_at_the_end_nothing_is_left_out() -> None:
    """The load begins as it ends, with nothing in flight: 60 in 60 s, each completed, and no tokens lost."""
    records = at(np.arange(60) * 1000.0, 400, 60_000)
    reading = read(trial_of(records))
    assert (reading.window.start_ns, reading.window.end_ns, reading.window.ramp_in_ns) == (0, 60e9, 0)
    assert found(trial_of(records)) == (1, 1)


def test_a_random_load_begins_as_soon_as_it_has_come_up() -> None:
    """Due at 0, 130, 300, 510 and so on, 400 ms each: just after the third, with which as many are in flight as at the
    end, and not only with the fourth. Where the first reply is complete before, it begins with that.
    """
    due = np.cumsum([0.0, *[130.0, 170.0, 210.0] * 40])
    assert [int(((due <= at_ms) & (due + 400 > at_ms)).sum()) for at_ms in (300.0, 15_100.0)] == [3, 3]
    assert read(trial_of(at(due, 400, 15_100), end_s=15.1)).window.start_ns == 300e6 + 1
    quick = at(due, 400, 15_100)
    quick[0] = streamed(0, 0, ttft_ms=50, tokens=1)
    assert read(trial_of(quick, end_s=15.1)).window.start_ns == 50e6


def test_facts_say_what_was_left_out_and_how_long_all_of_it_took() -> None:
    """Ten a second, 1 s each, 5 s long: the first second is no part of the window; the last reply ends 0.9 s late."""
    trial = trial_of(at(np.arange(100) * 100.0, 1000, 5000), end_s=5.0)
    facts = facts_of(trial.cell, read(trial), trial.samples())
    assert facts["window"] == {"start_s": 1.0, "end_s": 5.0, "ramp_in_s": 1.0, "text": "1.000 s to 5.000 s"}
    assert facts["served_s"] == 5.9
    assert facts["peak_in_flight"] == 10
    nothing = trial_of([])
    empty = facts_of(nothing.cell, read(nothing), nothing.samples())
    assert (empty["served_s"], empty["peak_in_flight"]) == (0, 0)


def test_the_peak_in_flight_is_that_of_a_moment_not_of_a_mean() -> None:
    """Five requests for 20 ms, once a second, are five; what ended before the window does not count."""
    due = np.repeat(np.arange(60) * 1000.0, 5)
    trial = trial_of(at(due, 20, 60_000), end_s=60.0)
    assert facts_of(trial.cell, read(trial), trial.samples())["peak_in_flight"] == 5
