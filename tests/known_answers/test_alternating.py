"""What blocks in turns are good for: simulated gates on a machine whose speed wanders, with a known truth.

The logarithm of the machine's speed is a random walk over seconds, common to both sides. Each start of a side differs
by itself, and each block has the noise of its requests.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.analysis.stats import Floats
from harness.comparison.change import of_pairs
from harness.comparison.judgement import Word, judge
from harness.run.turns import FIRST_BLOCK, in_order
from harness.scenario.compare import Pairs
from harness.scenario.margins import Margin, Scale

MARGIN = Margin("tpot_ms", "p50", 0.03)
GATES = 1000
PAIRS = Pairs(6, 6)
BLOCKS, BLOCK_S, START_S = 8, 5.0, 10.0
WALK = 0.01  # s.d. of a step of one second: 6 % in 40 s
OF_A_START, OF_A_BLOCK = 0.01, 0.01
PASSES = (Word.UNCHANGED, Word.NO_WORSE, Word.IMPROVED)


def neighbours(walk: Floats) -> Floats:
    """The log-ratio of pairs whose sides run one after the other: the mean speed of each one's own window."""
    window, start = round(BLOCKS * BLOCK_S), round(START_S)
    first = walk[:, start : start + window].mean(axis=1)
    second = walk[:, 2 * start + window : 2 * (start + window)].mean(axis=1)
    return second - first


def in_turns(walk: Floats) -> Floats:
    """The log-ratio of pairs whose sides take turns block by block, in the order of the program."""
    second, length, at = np.zeros(len(walk)), round(BLOCK_S), 2 * round(START_S)
    for block in range(BLOCKS):
        order = (-1, 1) if in_order(FIRST_BLOCK + block) else (1, -1)
        for side in order:
            second += side * walk[:, at : at + length].mean(axis=1) / BLOCKS
            at += length
    return second


def pairs(random: np.random.Generator, *, alternate: bool, drift: float = 0.0) -> Floats:
    """The log-ratios of the pairs of many gates without a change; `drift`: of the machine, in a second."""
    count, seconds = GATES * PAIRS.most, round(2 * (START_S + BLOCKS * BLOCK_S))
    walk = random.normal(drift, WALK, (count, seconds)).cumsum(axis=1)
    own = random.normal(0, math.sqrt(2 * (OF_A_START**2 + OF_A_BLOCK**2 / BLOCKS)), count)
    found = (in_turns if alternate else neighbours)(walk) + own
    return found.reshape(GATES, PAIRS.most)


def words(steps: Floats, true_ratio: float = 1.0) -> list[Word]:
    """The word of each gate."""
    found = []
    for gate in steps:
        values = [(1.0, true_ratio * math.exp(step)) for step in gate]
        found += judge([(of_pairs(Scale.RATIO, values), MARGIN)], alpha=PAIRS.alpha)
    return found


def share(found: list[Word], *which: Word) -> float:
    """The share of gates with one of these words."""
    return sum(word in which for word in found) / len(found)


def test_what_wanders_over_seconds_cancels() -> None:
    """The standard deviation of a pair is 6.2 % for neighbouring starts, and 1.6 % in turns: what starts add alone is
    1.5 %.
    """
    random = np.random.default_rng(31)
    apart, together = (float(pairs(random, alternate=one).std()) for one in (False, True))
    assert apart == pytest.approx(0.062, abs=0.004)
    assert together == pytest.approx(0.0164, abs=0.001)


def test_the_same_gate_is_decided_in_turns_only() -> None:
    """Without a change it passes, with 6 % it regresses; neighbouring starts mostly cannot tell."""
    random = np.random.default_rng(32)
    steps, apart = pairs(random, alternate=True), pairs(random, alternate=False)
    assert share(words(steps), Word.REGRESSED) <= 0.001
    assert share(words(steps), *PASSES) >= 0.93
    assert share(words(steps, 1.06), Word.REGRESSED) >= 0.93
    assert share(words(steps, 1.06), *PASSES) <= 0.001
    assert share(words(apart), *PASSES) <= 0.3
    assert share(words(apart, 1.06), Word.REGRESSED) <= 0.3


def test_a_change_of_the_margin_itself_regresses_in_one_of_twenty() -> None:
    """What starts differ by is in the interval: blocks alone would make it too short."""
    steps = pairs(np.random.default_rng(33), alternate=True)
    found = share(words(steps, 1.03), Word.REGRESSED)
    assert found <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / GATES)


def test_a_steady_drift_cancels_within_a_pair() -> None:
    """By one per cent in ten seconds: ABBA leaves nothing of it."""
    with_drift, without = (pairs(np.random.default_rng(34), alternate=True, drift=drift) for drift in (0.001, 0.0))
    assert np.abs(with_drift - without).max() < 1e-9
