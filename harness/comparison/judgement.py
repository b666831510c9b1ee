"""Words for changes: regressed, improved, unchanged, or cannot tell; pure.

A number regressed if its change is beyond the margin for sure (one-sided 5 %). Of several gating numbers the smallest
p-values count more (Holm, 1979), so that all together are wrong in 5 % at most. Those that do not gate are marked with
a false discovery rate of 10 % (Benjamini and Hochberg, 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from harness.comparison.change import Change
from harness.scenario.compare import ALPHA
from harness.scenario.margins import Margin

DISCOVERY_RATE = 0.1


class Word(StrEnum):
    """Judgement of a change."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    NO_WORSE = "no worse"
    WORSE = "worse"  # quality, by more than the margin for sure; the whole regressed
    CANNOT_TELL = "cannot tell"


def judge(changes: Sequence[tuple[Change, Margin]], *, gating: bool = True, alpha: float = ALPHA) -> list[Word]:
    """Return the word for each change. alpha: chance of any false one among those that gate."""
    worse = [_p_worse(change, margin) for change, margin in changes]
    better = [_p_better(change, margin) for change, margin in changes]
    sure = [holm(values, alpha) if gating else discoveries(values) for values in (worse, better)]
    found = zip(changes, *sure, strict=True)
    return [_word(change, margin, alpha, is_worse=bad, is_better=good) for (change, margin), bad, good in found]


def _word(change: Change, margin: Margin, alpha: float, *, is_worse: bool, is_better: bool) -> Word:
    if margin.guards and change.at <= 0:
        return Word.UNCHANGED
    if not change.known:
        return Word.CANNOT_TELL
    if is_worse:
        return Word.REGRESSED
    if is_better:
        return Word.IMPROVED
    if _p_not(change, margin.worse, margin) > alpha:
        return Word.CANNOT_TELL
    return Word.UNCHANGED if _p_not_better(change, margin) <= alpha else Word.NO_WORSE


def _p_worse(change: Change, margin: Margin) -> float:
    """Return the p-value against a change that is within the margin."""
    return change.p_above(margin.worse) if margin.more_is_worse else change.p_below(margin.worse)


def _p_better(change: Change, margin: Margin) -> float:
    return change.p_below(margin.better) if margin.more_is_worse else change.p_above(margin.better)


def _p_not(change: Change, limit: float, margin: Margin) -> float:
    """Return the p-value against a change that is beyond the limit on the worse side."""
    return change.p_below(limit) if margin.more_is_worse else change.p_above(limit)


def _p_not_better(change: Change, margin: Margin) -> float:
    return change.p_above(margin.better) if margin.more_is_worse else change.p_below(margin.better)


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Return which hypotheses are rejected, the chance of any wrong one being at most `alpha`."""
    order = np.argsort(p_values, kind="stable")
    rejected = [False] * len(p_values)
    for done, place in enumerate(order):
        if p_values[place] > alpha / (len(p_values) - done):
            break
        rejected[place] = True
    return rejected


def discoveries(p_values: Sequence[float], rate: float = DISCOVERY_RATE) -> list[bool]:
    """Return which hypotheses are rejected, the expected share of wrong ones among them being at most `rate`."""
    order = np.argsort(p_values, kind="stable")
    allowed = rate * (np.arange(len(order)) + 1) / max(1, len(order))
    below = np.flatnonzero(np.asarray(p_values)[order] <= allowed)
    last = below[-1] + 1 if len(below) else 0
    rejected = [False] * len(p_values)
    for place in order[:last]:
        rejected[place] = True
    return rejected
