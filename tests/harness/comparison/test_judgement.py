"""Margins as people write them, and the word for a change."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness.comparison.change import Change, of_pairs, unknown
from harness.comparison.judgement import Word, discoveries, holm, judge
from harness.scenario.margins import Margin, Scale, default_margin, margin_by_default, parse_margin

P_VALUES = some.lists(some.floats(0, 1), max_size=30)
TTFT = default_margin("ttft_ms", "p50")


def near_to(ratio: float, error: float = 0.01) -> Change:
    """A ratio with the standard error of its logarithm."""
    return Change(Scale.RATIO, math.log(ratio), error, error)


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("ttft p95 +10%", Margin("ttft_ms", "p95", 0.1, text="ttft p95 +10%")),
        ("ttft_ms p50+5 %", Margin("ttft_ms", "p50", 0.05, text="ttft_ms p50+5 %")),
        ("output_tokens_per_s -3%", Margin("output_tokens_per_s", "value", 0.03, text="output_tokens_per_s -3%")),
        ("error_rate +0.5pp", Margin("error_rate", "value", 0.005, text="error_rate +0.5pp")),
        ("kl +0.01", Margin("kl_mean", "value", 0.01, text="kl +0.01")),
        ("top1 -0.5pp", Margin("top1_agreement", "value", 0.005, text="top1 -0.5pp")),
        ("chat.e2e p99 +20%", Margin("e2e_ms", "p99", 0.2, "chat", "chat.e2e p99 +20%")),
    ],
)
def test_a_margin_is_read(text: str, margin: Margin) -> None:
    """With the short names of latencies, spaces as one likes, and classes."""
    found = parse_margin(text)
    assert found == margin or (found.size == pytest.approx(margin.size) and found.metric == margin.metric)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("ttft p95", "ttft p95 +8%"),
        ("chat.tpot p50", "chat.tpot p50 +3%"),
        ("output_tokens_per_s", "output_tokens_per_s -3%"),
        ("attainment", "attainment -1pp"),
        ("kl", "kl +0.001"),
    ],
)
def test_a_number_alone_has_its_default_margin(number: str, text: str) -> None:
    """Written as with a size of its own."""
    margin = margin_by_default(number)
    assert (margin.text, margin.size) == (text, default_margin(margin.metric, margin.statistic).size)
    assert parse_margin(margin.text) == margin


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("ttft p95", "write `metric statistic +size`"),
        ("tftt p95 +10%", "did you mean `ttft_ms`"),
        ("ttft +10%", "write for example `ttft_ms p95 +10%`"),
        ("ttft p95 -10%", "is worse when it is more; write `ttft_ms p95 +10%`"),
        ("output_tokens_per_s +3%", "is worse when it is less; write `output_tokens_per_s -3%`"),
        ("output_tokens_per_s p50 -3%", "has a single value; leave out `p50`"),
        ("error_rate +1%", "changes by percentage points; write `error_rate +1pp`"),
        ("ttft p95 +10pp", "write `ttft_ms p95 +10%`"),
        ("ttft q95 +10%", "unknown statistic `q95`"),
        ("mean_concurrency +3%", "neither better nor worse"),
        ("goodput_rps -100%", "write less than 100 %"),
        ("kl +1%", "write `kl +0.01`, in nats"),
        ("kl -0.01", "is worse when it is more; write `kl_mean +0.01`"),
        ("top1 +1pp", "is worse when it is less; write `top1_agreement -1pp`"),
        ("ttft p50 +10", "write `metric statistic +size`"),
        ("ppl_ratio +1%", "does not gate; write `kl +0.01` (nats) or `top1 -0.5pp`"),
    ],
)
def test_a_margin_that_is_none_is_told_with_the_fix(text: str, fix: str) -> None:
    """In one sentence."""
    with pytest.raises(ValueError, match=re.escape(fix)):
        parse_margin(text)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (near_to(1.2), Word.REGRESSED),
        (near_to(0.8), Word.IMPROVED),
        (near_to(1.0), Word.UNCHANGED),
        (near_to(1.03), Word.UNCHANGED),
        (near_to(1.05), Word.CANNOT_TELL),
        (near_to(0.95), Word.NO_WORSE),
        (near_to(1.2, 0.2), Word.CANNOT_TELL),
        (unknown(Scale.RATIO, "nothing", math.log(2)), Word.CANNOT_TELL),
    ],
)
def test_the_interval_against_the_margin_decides(change: Change, word: Word) -> None:
    """Here +5 %: beyond it for sure, within it for sure, better for sure, or none of these."""
    assert judge([(change, TTFT)]) == [word]


@given(some.floats(0.5, 2.0), some.floats(0.001, 0.3))
def test_a_rate_is_judged_as_a_time_upside_down(ratio: float, error: float) -> None:
    """A rate that falls regresses; with the margin turned round, the words are the same."""
    rate = Margin("output_tokens_per_s", "value", 1 - 1 / 1.05)
    change = near_to(ratio, error)
    assert judge([(change, TTFT)]) == judge([(change.inverse(), rate)])


def test_shares_are_judged_by_their_difference() -> None:
    """0 to 2 % of errors is worse by two points, and no ratio."""
    pairs = [(0.0, 0.02), (0.0, 0.021), (0.0, 0.019), (0.0, 0.02)]
    assert judge([(of_pairs(Scale.DIFFERENCE, pairs), default_margin("error_rate", "value"))]) == [Word.REGRESSED]
    met = [(0.99, 0.95), (0.99, 0.951), (0.99, 0.949), (0.99, 0.95)]
    assert judge([(of_pairs(Scale.DIFFERENCE, met), default_margin("attainment", "value"))]) == [Word.REGRESSED]


@given(P_VALUES)
def test_holm_is_between_one_test_and_bonferroni(p_values: list[float]) -> None:
    """It rejects what Bonferroni does, nothing that a single test would not, and the smallest first."""
    found = holm(p_values)
    assert all(one for one, p in zip(found, p_values, strict=True) if p <= 0.05 / max(1, len(p_values)))
    assert not any(one for one, p in zip(found, p_values, strict=True) if p > 0.05)
    rejected = [p for one, p in zip(found, p_values, strict=True) if one]
    kept = [p for one, p in zip(found, p_values, strict=True) if not one]
    assert max(rejected, default=0.0) <= min(kept, default=1.0)


@given(P_VALUES)
def test_discoveries_agree_with_scipy(p_values: list[float]) -> None:
    """Benjamini and Hochberg's adjusted values, held against the rate."""
    from scipy.stats import false_discovery_control

    if not p_values:
        assert discoveries(p_values) == []
        return
    adjusted = false_discovery_control(p_values)
    near_the_rate = np.abs(adjusted - 0.1) < 1e-9
    agree = np.asarray(discoveries(p_values)) == (adjusted <= 0.1)
    assert (agree | near_the_rate).all()


def test_one_of_many_equal_numbers_seems_worse_rarely() -> None:
    """Twenty gating numbers without any change: one is called regressed in at most 5 % of the comparisons."""
    random = np.random.default_rng(8)
    none = Margin("ttft_ms", "p50", 1e-9)
    wrong = 0
    for _ in range(400):
        drawn = np.exp(random.normal(0, 0.02, (20, 6, 2)))
        changes = [(of_pairs(Scale.RATIO, [*map(tuple, table)]), none) for table in drawn]
        wrong += Word.REGRESSED in judge(changes)
    assert wrong / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
