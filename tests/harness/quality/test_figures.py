"""Figures of quality, their intervals and their words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.stats import Bound
from harness.quality import figures
from harness.quality.figures import estimates, means

PAGE = Path(__file__).parents[3] / "docs" / "quality.md"


def columns(chunks: int, per_chunk: int, seed: int = 0, **given: np.ndarray) -> dict[str, np.ndarray]:
    """Positions that differ by chunk as well as within it."""
    random = np.random.default_rng(seed)
    n = chunks * per_chunk
    chunk = np.repeat(np.arange(chunks), per_chunk)
    kl = random.gamma(0.5, 0.01, n) * np.exp(random.normal(size=chunks) * 0.5)[chunk]
    nll = random.gamma(1.0, 2.0, n)
    drawn = {"chunk": chunk, "kl": kl, "kl_lower_bound": np.full(n, np.nan), "top1_same": random.random(n) < 0.95}
    return drawn | {"nll_reference": nll, "nll": nll + random.normal(0.01, 0.05, n)} | given


def test_a_uniform_distribution_has_its_vocabulary_as_perplexity() -> None:
    """Known answer 20: V = 32,000 gives 32,000.0."""
    nll = np.full(200, math.log(32_000))
    found = estimates(columns(4, 50, nll=nll, nll_reference=nll))
    assert found["ppl"].value == pytest.approx(32_000.0, rel=1e-12)
    assert found["ppl_ratio"].value == 1.0


def test_the_figures_of_positions() -> None:
    """Means, quantiles that occurred, the largest; each within its interval."""
    given = columns(40, 64)
    found = estimates(given)
    assert list(found) == ["kl_mean", "kl_median", "kl_p99", "kl_max", "top1_agreement", "ppl_ratio", "ppl"]
    assert found["kl_mean"].value == pytest.approx(given["kl"].mean())
    assert found["kl_p99"].value == np.sort(given["kl"])[math.ceil(0.99 * 2560) - 1]
    assert found["kl_max"].value == given["kl"].max()
    ratio = math.exp((given["nll"] - given["nll_reference"]).mean())
    assert found["ppl_ratio"].value == pytest.approx(ratio)
    for name, one in found.items():
        assert name == "kl_max" or one.low <= one.value <= one.high
        assert (one.n, one.n_eff) == (2560, 40)


def test_the_means_alone_are_the_same() -> None:
    """Without the draws of the quantiles; also where a bound is known only."""
    given = columns(10, 8)
    bounded = given | {"kl": np.full(80, np.nan), "kl_lower_bound": given["kl"]}
    for one in (given, bounded):
        found = estimates(one)
        assert repr(means(one)) == repr({name: found[name] for name in ("kl_mean", "top1_agreement")})


def test_the_same_positions_give_the_same_intervals() -> None:
    """The draws are seeded."""
    assert repr(estimates(columns(10, 8))) == repr(estimates(columns(10, 8)))  # nan equals itself


def skewed(chunks: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Chunks of 64 positions that differ from each other, most of the divergence at a few positions; its mean is 0.01.
    The share that differs varies with it, and is 2 % on average.
    """
    chunk = np.repeat(np.arange(chunks), 64)
    of_chunk = np.exp(random.normal(size=chunks) * 0.5 - 0.125)[chunk]
    kl = 0.01 * of_chunk * np.exp(random.normal(size=len(chunk)) * 1.5 - 1.125)
    return {
        "chunk": chunk,
        "kl": kl,
        "kl_lower_bound": np.full(len(chunk), np.nan),
        "top1_same": random.random(len(chunk)) >= 0.02 * of_chunk,
        "nll_reference": np.full(len(chunk), 1.0),
        "nll": 1.0 + kl,
    }


TRUE = {"kl_mean": 0.01, "top1_agreement": 0.98, "ppl_ratio": math.exp(0.01)}


@pytest.mark.parametrize("chunks", [2, 4, 8, 20, 64])
def test_intervals_hold_the_truth_however_few_chunks_there_are(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    """Of 200 texts at least nine in ten; by drawing chunks with replacement it was 0.43 of two, 0.77 of four."""
    monkeypatch.setattr(figures, "DRAWS", figures._DRAWS_AT_ONCE)  # of quantiles, which are not looked at here
    random = np.random.default_rng(chunks)
    found = [estimates(skewed(chunks, random)) for _ in range(200)]
    for name, truth in TRUE.items():
        held = [one[name].low <= truth <= one[name].high for one in found]
        assert np.mean(held) >= 0.87, name


def test_quantiles_of_few_chunks_have_no_interval() -> None:
    """Chunks drawn with replacement know too little of it; the value is told."""
    few, enough = (estimates(columns(chunks, 16))["kl_p99"] for chunks in (19, 20))
    assert math.isnan(few.low)
    assert enough.low <= enough.value <= enough.high


def test_paired_perplexity_is_known_better_than_either() -> None:
    """What both share cancels: the ratio's interval is far narrower than the perplexity's."""
    found = estimates(columns(40, 64))
    ratio, alone = found["ppl_ratio"], found["ppl"]
    assert (ratio.high - ratio.low) / ratio.value < 0.2 * (alone.high - alone.low) / alone.value


def test_only_bounds_where_only_the_likeliest_are_known() -> None:
    """The mean divergence is known from below then: by the lower end of its bound's interval."""
    n = 320
    bound = np.random.default_rng(1).gamma(1.0, 0.25, n)
    found = estimates(columns(10, 32, kl=np.full(n, np.nan), kl_lower_bound=bound), 512)
    assert found["kl_bound"].value == pytest.approx(bound.mean())
    assert (found["kl_mean"].bound, found["kl_mean"].low) == (Bound.LOWER, found["kl_bound"].low)
    assert math.isnan(found["kl_mean"].value)
    assert not {"kl_median", "kl_p99", "kl_max"} & found.keys()


def test_a_bound_at_some_positions_leaves_none_out() -> None:
    """Where the divergence is known at the others, these count too."""
    n = 320
    some = np.arange(n) % 4 == 0
    kl, bound = np.where(some, np.nan, 0.1), np.where(some, 0.5, np.nan)
    assert estimates(columns(10, 32, kl=kl, kl_lower_bound=bound))["kl_bound"].value == pytest.approx(0.2)


def test_perplexity_without_the_worst_positions_is_a_lower_bound() -> None:
    """A vocabulary of 32,000 of which 512 tokens are told: the true perplexity is above what is said, which is above
    that of the known positions alone; no ratio is told.
    """
    random = np.random.default_rng(7)
    nll = random.gamma(1.5, 2.0, 4096)
    lost = nll > 9
    seen = columns(16, 256, nll=np.where(lost, np.nan, nll), nll_reference=nll)
    found = estimates(seen, 512)
    assert 0.005 < lost.mean() < 0.05
    assert "ppl_ratio" not in found
    ppl = found["ppl"]
    assert (ppl.bound, ppl.high, ppl.n) == (Bound.LOWER, math.inf, 4096)
    assert ppl.low < math.exp(nll.mean())
    at_most = estimates(columns(16, 256, nll=np.where(lost, math.log(513), nll), nll_reference=nll))["ppl"]
    assert ppl.low == at_most.low


def test_full_agreement_is_not_certainty() -> None:
    """No difference among n positions leaves room for 12 / n: the rule of three, with a design effect of 4."""
    found = estimates(columns(10, 100, top1_same=np.ones(1000)))["top1_agreement"]
    assert (found.value, found.low, found.high) == (1.0, pytest.approx(0.988), 1.0)


def test_one_chunk_has_no_interval() -> None:
    """Nothing is known of how chunks differ."""
    assert math.isnan(estimates(columns(1, 50))["kl_mean"].low)
