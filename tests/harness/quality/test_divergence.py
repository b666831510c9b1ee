"""Divergence of distributions: known answers, and what must hold of any."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.quality.divergence import Distributions, compare, lower_bound, normalised

UNKNOWN = np.full(1, np.nan, dtype=np.float32)


def whole(*shares: float) -> Distributions:
    """One position with these probabilities."""
    with np.errstate(divide="ignore"):
        return Distributions(np.log(np.array([shares], dtype=np.float32)), None, UNKNOWN)


def likeliest(shares: np.ndarray, k: int, true: int | None = None) -> Distributions:
    """One position of which the k likeliest tokens are told, and perhaps the true one."""
    order = np.argsort(-shares)[:k].astype(np.int32)
    told = UNKNOWN if true is None else np.log(shares[[true]]).astype(np.float32)
    return Distributions(np.log(shares[order]).astype(np.float32)[None], order[None], told)


def at(token: int) -> np.ndarray:
    """The true token of one position."""
    return np.array([token], dtype=np.int32)


def drawn(seed: int, size: int, spread: float) -> np.ndarray:
    """A distribution over so many tokens."""
    weights = np.exp(np.random.default_rng(seed).normal(size=size) * spread)
    return np.asarray(weights / weights.sum())


def test_the_divergence_of_a_coin_from_a_loaded_one() -> None:
    """Known answer 20: KL((.5, .5) || (.9, .1)) = .5 ln(.5/.9) + .5 ln(.5/.1) = .5108."""
    found = compare(whole(0.5, 0.5), whole(0.9, 0.1), at(0))
    assert found.kl[0] == pytest.approx(0.5108, abs=5e-5)
    assert (found.reference_top1[0], found.top1[0], found.top1_same[0]) == (0, 0, True)  # of a tie the lowest token
    assert found.nll[0] == pytest.approx(-math.log(0.9), rel=1e-6)
    assert found.delta_p[0] == pytest.approx(0.4, rel=1e-6)
    assert np.isnan(found.kl_lower_bound[0])
    assert not compare(whole(0.5, 0.5), whole(0.1, 0.9), at(0)).top1_same[0]


def test_a_distribution_does_not_diverge_from_itself() -> None:
    """Known answer 20: the same gives 0 and full agreement."""
    one = whole(*drawn(3, 500, 2.0))
    found = compare(one, one, at(7))
    assert found.kl[0] < 1e-12
    assert found.top1_same.all()
    assert found.gap[0] == 0


def test_of_equally_likely_tokens_the_lowest_counts() -> None:
    """Ties are broken the same way for both."""
    found = compare(whole(0.3, 0.3, 0.4), whole(0.4, 0.4, 0.2), at(0))
    assert (found.reference_top1[0], found.top1[0]) == (2, 0)
    assert found.gap[0] == pytest.approx(math.log(2), rel=1e-6)


def test_what_the_reference_rules_out_costs_nothing_and_the_other_way_everything() -> None:
    """0 ln 0 is 0; a candidate that rules out a possible token diverges without bound."""
    assert compare(whole(1.0, 0.0), whole(0.5, 0.5), at(0)).kl[0] == pytest.approx(math.log(2), rel=1e-6)
    assert math.isinf(compare(whole(0.5, 0.5), whole(1.0, 0.0), at(0)).kl[0])


def test_a_padded_vocabulary_is_compared_by_what_both_have() -> None:
    """Further columns of one of them are left out."""
    padded = whole(0.5, 0.25, 0.25 - 1e-9, 1e-9)
    assert compare(whole(0.5, 0.25, 0.25), padded, at(0)).kl[0] < 1e-6


@given(st.integers(0, 10_000), st.integers(2, 60), st.floats(0.0, 8.0))
def test_divergence_is_never_negative(seed: int, size: int, spread: float) -> None:
    """Whatever the two distributions are."""
    found = compare(whole(*drawn(seed, size, spread)), whole(*drawn(seed + 1, size, spread)), at(seed % size))
    assert found.kl[0] >= 0


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 20), st.floats(0.1, 5.0), st.booleans())
@example(seed=20, size=21, k=20, spread=2.0, tells_true=False)  # one unlikely token is left, a rest lost in rounding
def test_the_lower_bound_is_never_above_the_divergence(
    seed: int, size: int, k: int, spread: float, tells_true: bool
) -> None:
    """Whichever of the two tells of its likeliest tokens only, or both; top tokens and the true one's are the same."""
    p, q, true = drawn(seed, size, spread), drawn(seed + 1, size, spread), seed % size
    exact = compare(whole(*p), whole(*q), at(true))
    told = true if tells_true else None
    pairs = [
        (whole(*p), likeliest(q, k, told)),
        (likeliest(p, k, told), whole(*q)),
        (likeliest(p, k, told), likeliest(q, k, told)),
    ]
    for reference, candidate in pairs:
        found = compare(reference, candidate, at(true))
        assert 0 <= found.kl_lower_bound[0] <= exact.kl[0] + 1e-5
        assert np.isnan(found.kl[0])
        assert found.top1[0] == exact.top1[0]
        if tells_true:
            assert found.nll[0] == pytest.approx(exact.nll[0], abs=1e-5)


def test_knowing_every_token_the_bound_is_the_divergence() -> None:
    """Nothing is left for the bucket."""
    p, q = np.log(drawn(1, 30, 1.0))[None], np.log(drawn(2, 30, 1.0))[None]
    exact = float((np.exp(p) * (p - q)).sum())
    assert lower_bound(p, q)[0] == pytest.approx(exact, abs=1e-5)


def test_a_constant_added_to_all_log_probabilities_changes_nothing() -> None:
    """They are normalised again."""
    row = np.log(drawn(5, 40, 1.0)).astype(np.float32)[None]
    assert np.allclose(normalised(row), normalised(row + 3))
    assert np.exp(normalised(row)).sum() == pytest.approx(1.0, abs=1e-12)


def test_where_neither_tells_of_any_token_they_do_not_agree() -> None:
    """Nothing known is not the same token."""
    nothing = np.full((1, 2), np.nan, dtype=np.float32)
    silent = Distributions(nothing, np.array([[0, 1]], dtype=np.int32), np.array([np.nan], dtype=np.float32))
    assert not compare(silent, silent, np.array([0], dtype=np.int32)).top1_same.any()
