"""Repetitions together: as many observations as they have in all, in buckets of equal ratio."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.reading import read
from harness.analysis.series.pooled import MOST_BUCKETS, histogram_of, pooled
from harness.analysis.stats import Ordered, quantile
from harness.analysis.summary import measure
from tests.fabricated import FabricatedTrial, cell_entry, failed, noisy, trial_entry, trial_of


def test_repetitions_are_one_distribution() -> None:
    """Its median is that of all requests, and it counts them all."""
    trials = [
        FabricatedTrial(cell_entry(id=str(i), repetition=i), trial_entry(), noisy(i, slower=float(i))) for i in (1, 2)
    ]
    measures = [found for one in trials for found in measure(one, read(one), one.samples())]
    ((keys, frames),) = pooled(measures).items()
    assert keys == ("tiny", "simulated", "f16", "", "sustained")
    curve = frames["distribution"].query("metric == 'ttft_ms'")
    ttft = np.concatenate([one.distributions["ttft_ms"].ordered.values for one in measures])
    assert set(curve["n"]) == {1200}
    assert curve[curve["share"] == 0.5]["ms"].tolist() == [quantile(ttft, 0.5)]
    assert frames["histogram"].query("metric == 'ttft_ms'")["n"].sum() == 1200


def test_buckets_are_round_and_of_equal_ratio() -> None:
    """Known answers: five to a factor of ten for two such factors."""
    begins, ends, n = histogram_of(Ordered.of(np.array([1.0, 1.5, 1.7, 99.0])))
    assert begins.tolist() == pytest.approx([10 ** (i / 5) for i in range(10)])
    assert n.tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert ends[:-1].tolist() == begins[1:].tolist()


def test_requests_that_never_ended_are_counted_last() -> None:
    """Until infinity, also where no request ended."""
    one = trial_of([*noisy(1, 50), *(failed(50 + i, 5000.0 + i, "timeout", 900) for i in range(7))])
    frames = pooled(measure(one, read(one), one.samples()))
    last = next(iter(frames.values()))["histogram"].query("metric == 'e2e_ms'").iloc[-1]
    assert (last["until_ms"], last["n"]) == (np.inf, 7)
    begins, ends, n = histogram_of(Ordered.of(np.array([np.inf, np.inf])))
    assert (begins.tolist(), ends.tolist(), n.tolist()) == ([0.0], [np.inf], [2])


@given(st.lists(st.floats(1e-3, 1e7) | st.just(np.inf), min_size=1, max_size=300))
def test_every_observation_is_in_one_bucket(values: list[float]) -> None:
    """Few buckets, side by side, that hold all: each its own number of them."""
    begins, ends, n = histogram_of(Ordered.of(np.array(values)))
    assert n.sum() == len(values)
    assert len(n) <= MOST_BUCKETS + 1
    ratios = ends[np.isfinite(ends)] / begins[np.isfinite(ends)]
    assert ratios == pytest.approx(np.full(len(ratios), ratios[0] if len(ratios) else 1.0))
    finite = np.array(values)[np.isfinite(values)]
    if len(finite):
        assert begins[0] <= finite.min() * (1 + 1e-6)
        assert finite.max() <= ends[np.isfinite(ends)][-1] * (1 + 1e-6)
