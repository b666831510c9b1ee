"""Figures of quality, their intervals and their words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from harness.quality import GRADES, estimates, grades_as_markdown, indistinguishable, word

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"


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


def test_the_same_positions_give_the_same_intervals() -> None:
    """The draws are seeded."""
    assert estimates(columns(10, 8)) == estimates(columns(10, 8))


@pytest.mark.slow
def test_the_interval_of_the_mean_covers_it() -> None:
    """Of 60 samples of 40 chunks about 95 % of the intervals hold the mean that they were drawn around."""
    chunks, per_chunk = 40, 16
    of_chunk, within = 0.01 * math.exp(0.5**2 / 2), 0.5
    covered = 0
    for seed in range(60):
        one = estimates(columns(chunks, per_chunk, seed))["kl_mean"]
        covered += one.low <= of_chunk * within <= one.high
    assert covered >= 51


def test_paired_perplexity_is_known_better_than_either() -> None:
    """What both share cancels: the ratio's interval is far narrower than the perplexity's."""
    found = estimates(columns(40, 64))
    ratio, alone = found["ppl_ratio"], found["ppl"]
    assert (ratio.high - ratio.low) / ratio.value < 0.2 * (alone.high - alone.low) / alone.value


def test_only_bounds_where_only_the_likeliest_are_known() -> None:
    """There is no mean divergence then, but a bound on it."""
    n = 320
    found = estimates(columns(10, 32, kl=np.full(n, np.nan), kl_lower_bound=np.full(n, 0.25)))
    assert "kl_mean" not in found
    assert found["kl_bound"].value == 0.25


def test_full_agreement_is_not_certainty() -> None:
    """No difference among n positions leaves room for 12 / n: the rule of three, with a design effect of 4."""
    found = estimates(columns(10, 100, top1_same=np.ones(1000)))["top1_agreement"]
    assert (found.value, found.low, found.high) == (1.0, pytest.approx(0.988), 1.0)


def test_one_chunk_has_no_interval() -> None:
    """Nothing is known of how chunks differ."""
    assert math.isnan(estimates(columns(1, 50))["kl_mean"].low)


@pytest.mark.parametrize(
    ("kl", "top1", "said"),
    [
        (0.0002, 0.992, "near-lossless"),
        (0.001, 0.985, "near-lossless"),
        (0.0002, 0.98, "good"),
        (0.0047, 0.965, "good"),
        (0.02, 0.90, "degraded"),
        (0.009, 0.90, "degraded"),
        (0.066, 0.887, "poor"),
        (math.nan, 1.0, "poor"),
    ],
)
def test_words(kl: float, top1: float, said: str) -> None:
    """Both bounds must hold; what is not known holds none."""
    assert word(kl, top1) == said


def test_words_stand_in_the_page() -> None:
    """docs/quality.md has the table as the code has it."""
    assert grades_as_markdown() in PAGE.read_text(encoding="utf-8")
    assert [grade.kl for grade in GRADES] == sorted(grade.kl for grade in GRADES)


def test_what_noise_explains() -> None:
    """Up to three times the floor nothing can be told apart; without a floor nothing is said."""
    assert indistinguishable(0.003, 0.001)
    assert not indistinguishable(0.0031, 0.001)
    assert not indistinguishable(0.0, None)
