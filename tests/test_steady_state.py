"""Steady state: a warm-up is cut where theory says, a drift is seen, a flat stream is left alone; in whole trials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis.reading import read
from harness.analysis.steady import drift_of
from harness.records import Record
from harness.verdict.reason import Reason
from harness.verdict.steady import DRIFT, NOT_ENOUGH, STEADY, WARM_UP, cut_of, steady_facts
from tests import many_queues
from tests.fabricated import streamed, trial_of
from tests.judged import judged

Floats = NDArray[np.float64]
N, PER_S, NOISE_MS = 3000, 10, 5.0
AT_S = np.arange(N) / PER_S


def warming(rng: np.random.Generator) -> Floats:
    """100 + 400 exp(-t / 10 s) ms, ten requests a second for 300 s."""
    return 100 + 400 * np.exp(-AT_S / 10) + rng.normal(0, NOISE_MS, N)


def flat(rng: np.random.Generator) -> Floats:
    """The same without the warm-up."""
    return 100 + rng.normal(0, NOISE_MS, N)


def drifting(rng: np.random.Generator) -> Floats:
    """20 % slower at the end than at the begin."""
    return 100 * (1 + 0.2 * AT_S / AT_S[-1]) + rng.normal(0, NOISE_MS, N)


def bins_of(ttft_ms: Floats) -> Floats:
    """Medians of five."""
    medians: Floats = np.median(ttft_ms.reshape(-1, 5), axis=1)
    return medians


def records_of(ttft_ms: Floats) -> list[Record]:
    """A trial of requests with these times to the first token."""
    return [
        streamed(i, i * 1000.0 / PER_S, ttft_ms=float(one), tokens=2, gap_ms=1.0, lag_ms=0)
        for i, one in enumerate(ttft_ms)
    ]


def facts_of_window(ttft_ms: Floats, **changes: Any) -> tuple[dict[str, Any], dict[str, Reason]]:
    """What is found of it: the facts, and the reasons by code."""
    trial = trial_of(records_of(ttft_ms), end_s=300.0, **changes)
    reading = read(trial)
    return steady_facts(reading), {one.code: one for one in judged(trial).reasons}


def test_a_warm_up_is_cut_where_it_ends() -> None:
    """Known answer 16: cut at about 51 s of 300, in the mean of what is left 100.1 +- 0.3 ms, whatever the noise."""
    rng = np.random.default_rng(16)
    runs = [warming(rng) for _ in range(100)]
    cuts = [cut_of(bins_of(run)) for run in runs]
    assert all(cut.clear and cut.converged for cut in cuts)
    cuts_s = [cut.bins * 5 / PER_S for cut in cuts]
    assert 46 <= np.median(cuts_s) <= 59
    assert np.mean([40 <= cut_s <= 65 for cut_s in cuts_s]) >= 0.95
    left = [run[cut.bins * 5 :].mean() for run, cut in zip(runs, cuts, strict=True)]
    assert np.mean(np.abs(np.array(left) - 100.1) <= 0.3) >= 0.95


def test_a_drift_is_seen_and_a_flat_stream_left_alone() -> None:
    """Known answer 16: a fifth over the window always; nothing at all at most twice in a hundred, in both searches
    together.
    """
    rng = np.random.default_rng(17)
    found = [drift_of(drifting(rng)) for _ in range(200)]
    assert np.mean([one is not None and one.p_value < 0.01 and one.change > 0.02 for one in found]) >= 0.99
    level = [(drift_of(run), cut_of(bins_of(run))) for run in (flat(rng) for _ in range(300))]
    flagged = [cut.clear or (drift is not None and drift.p_value < 0.01) for drift, cut in level]
    assert np.mean(flagged) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("utilisation", [0.5, 0.85])
def test_the_turns_of_a_queue_are_hardly_ever_called_unsteady(utilisation: float) -> None:
    """A queue in its steady state makes long excursions, which are neither warm-up nor drift: 19 times in 20."""
    made = many_queues.one_server(np.random.default_rng(18), 200, 3000, utilisation)
    flagged = []
    for latency in made.latency:
        drift, cut = drift_of(latency), cut_of(bins_of(latency))
        flagged.append((drift is not None and drift.p_value < 0.01) or (cut.clear and cut.bins > 0.05 * 600))
    assert np.mean(flagged) <= 0.05


def test_a_trial_that_still_warmed_up_says_how_long() -> None:
    """The reason names the seconds, and the numbers stay those of the whole window."""
    facts, reasons = facts_of_window(warming(np.random.default_rng(19)))
    assert facts["class"] == WARM_UP
    assert 40 <= facts["warmup_s"] <= 65
    assert facts["warming"] in ("ttft_ms", "in_flight")
    assert "were still warm-up: TTFT p9" in reasons["warm_up"].sentence
    assert "Set `warmup` to at least" in reasons["warm_up"].advice
    assert "not_steady" not in reasons


def test_a_trial_that_drifts_is_no_warm_up() -> None:
    """What goes on to the end has no end to cut at."""
    facts, reasons = facts_of_window(drifting(np.random.default_rng(20)))
    assert (facts["class"], facts["warmup_s"]) == (DRIFT, None)
    assert facts["trends"]["ttft_ms"]["change"] == pytest.approx(0.18, abs=0.03)
    assert "warm_up" not in reasons
    assert "drifted by" in reasons["not_steady"].sentence


def test_a_steady_trial_has_no_reason() -> None:
    """Nothing is said of it."""
    facts, reasons = facts_of_window(flat(np.random.default_rng(21)))
    assert facts["class"] == STEADY
    assert not {"warm_up", "not_steady"} & set(reasons)


def test_loads_that_change_by_plan_are_not_looked_at() -> None:
    """A ramp and steps have their trend by plan."""
    for change in ({"kind": "steps"}, {"ramp": True}):
        facts, reasons = facts_of_window(drifting(np.random.default_rng(22)), **change)
        assert (facts["class"], facts["reason"]) == (None, "the load changes by plan")
        assert not {"warm_up", "not_steady"} & set(reasons)


def test_few_requests_cannot_tell() -> None:
    """Below a hundred there is nothing to be seen."""
    trial = trial_of(records_of(flat(np.random.default_rng(23))[:99]), end_s=10.0)
    assert steady_facts(read(trial))["class"] == NOT_ENOUGH
