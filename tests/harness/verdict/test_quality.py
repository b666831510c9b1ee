"""Words for quality, and what noise alone explains."""

from __future__ import annotations

import math

import pytest

from harness.verdict.quality import indistinguishable, word


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
    assert word((kl, kl), (top1, top1)) == said


@pytest.mark.parametrize(
    ("kl", "top1", "said"),
    [
        ((0.0004, 0.004), (0.99, 0.995), "near-lossless to good"),
        ((0.0004, 0.0009), (0.97, 0.99), "near-lossless to good"),
        ((0.0004, 0.0009), (0.99, 0.995), "near-lossless"),
        ((0.002, math.inf), (0.96, 0.97), "good at best"),
        ((0.0, math.inf), (0.90, 0.91), "degraded at best"),
        ((0.06, math.inf), (0.99, 1.0), "poor"),
    ],
)
def test_words_say_what_an_interval_or_a_bound_leaves_open(
    kl: tuple[float, float], top1: tuple[float, float], said: str
) -> None:
    """A bound rules out the grades that it excludes."""
    assert word(kl, top1) == said


def test_what_noise_explains() -> None:
    """Up to three times the floor nothing can be told apart; without a floor nothing is said."""
    assert indistinguishable(0.003, 0.001)
    assert not indistinguishable(0.0031, 0.001)
    assert not indistinguishable(0.0, None)
