"""Repetitions: starts that differ more than their requests explain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.repetitions import Spread, spread_of, spreads
from harness.analysis.summary import KEYS, summarise
from harness.results import derive
from harness.store.manifest import Manifest
from harness.verdict.starts import differing, hysteresis
from tests.fabricated import cell_entry, noisy, trial_of

positive = st.floats(1.0, 1e5)


def found(slower: tuple[float, ...]) -> dict[str, Spread]:
    """The spreads of a cell that was started so often, each so much slower."""
    trials = [trial_of(noisy(seed, 300, slower=by)) for seed, by in enumerate(slower)]
    for number, trial in enumerate(trials, 1):
        trial.cell.repetition = number
    (own,) = spreads(summarise(trials), KEYS).values()
    return own


def test_starts_that_differ_are_told() -> None:
    """A start that is a fifth slower differs by more than 300 requests of 25 % spread explain."""
    own = found((1.0, 1.2, 1.0))
    assert hysteresis(own["ttft_ms p50"])
    (reason,) = differing(own)
    assert reason.code == "hysteresis"
    assert "Variation between 3 starts exceeds the noise within one" in reason.sentence
    assert "repetitions" in reason.advice


def test_starts_that_are_alike_are_not() -> None:
    """Noise of the requests is explained by them."""
    assert not differing(found((1.0, 1.0, 1.0)))


def test_two_starts_cannot_tell() -> None:
    """Of two nobody knows how they spread."""
    assert spread_of([1.0, 2.0], [0.9, 1.9], [1.1, 2.1]) is None


def test_a_difference_that_does_not_matter_is_none() -> None:
    """Half a percent between starts is nobody's concern, however exact each of them is."""
    spread = spread_of([100.0, 100.5, 101.0], [99.99, 100.49, 100.99], [100.01, 100.51, 101.01])
    assert spread is not None
    assert spread.ratio > 2
    assert not hysteresis(spread)


def test_without_an_interval_nothing_is_said() -> None:
    """A start whose interval is open says nothing of its noise."""
    assert spread_of([1.0, 2.0, 3.0], [0.9, 1.9, 2.9], [1.1, 2.1, math.inf]) is None


@given(st.lists(positive, min_size=3, max_size=9), st.floats(1e-3, 0.5), st.floats(0.01, 100))
def test_a_change_of_unit_changes_nothing(values: list[float], width: float, factor: float) -> None:
    """Seconds or milliseconds, the ratio is the same."""

    def spread(scale: float) -> Spread | None:
        scaled = [scale * one for one in values]
        return spread_of(scaled, [one * (1 - width) for one in scaled], [one * (1 + width) for one in scaled])

    one, other = spread(1.0), spread(factor)
    assert one is not None
    assert other is not None
    assert one.ratio == pytest.approx(other.ratio, rel=1e-6, abs=1e-9)


def test_equal_starts_are_flagged_seldom() -> None:
    """Of three starts whose differences are their own noise, about two in a hundred are told to differ."""
    rng = np.random.default_rng(31)
    runs = rng.normal(100, 5, (2000, 3))
    flagged = [spread_of(list(run), list(run - 9.8), list(run + 9.8)) for run in runs]
    assert np.mean([one is not None and hysteresis(one) for one in flagged]) <= 0.03


def test_every_start_of_a_run_warns_of_the_others() -> None:
    """The reason stands with each repetition, the spreads are facts, and the pooled interval is the one over starts."""
    trials = [trial_of(noisy(seed, 300, slower=by)) for seed, by in enumerate((1.0, 1.2, 1.0))]
    for number, trial in enumerate(trials, 1):
        trial.cell = cell_entry(id=f"00{number}", repetition=number, trials=[trial.trial])
    results = derive(Manifest(cells=[trial.cell for trial in trials], status="complete"), trials)
    assert len(results.validity) == 3
    for key, validity in results.validity.items():
        assert "hysteresis" in {reason.code for reason in validity.reasons}
        assert results.facts[key]["repetitions"]["ttft_ms p50"]["hysteresis"]
    row = results.summary.query("repetition == 'pooled' and metric == 'ttft_ms' and statistic == 'p50'").iloc[0]
    assert row["high"] - row["low"] > 20
