"""How often a gate is right: simulated pairs of starts, whose truth is known.

The standard deviation of a pair is 2 %, the margin 3 %.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from harness.comparison.change import of_pairs, unpaired
from harness.comparison.judgement import Word, judge
from harness.comparison.rounds import BASE, starts
from harness.metrics import SCALAR
from harness.scenario.compare import Pairs
from harness.scenario.margins import Margin, Scale

MARGIN = Margin("tpot_ms", "p50", 0.03)
DEVIATION = 0.02
GATES = 2000
PASSES = (Word.UNCHANGED, Word.NO_WORSE, Word.IMPROVED)


def word_of(values: list[tuple[float, float]], pairs: Pairs) -> tuple[Word, int]:
    """The word of a gate, and the pairs that it took."""
    for look in pairs.looks:
        (word,) = judge([(of_pairs(Scale.RATIO, values[:look]), MARGIN)], alpha=pairs.alpha)
        if word is not Word.CANNOT_TELL:
            return word, look
    return Word.CANNOT_TELL, pairs.most


def words(true_ratio: float, pairs: Pairs, seed: int, drift: float = 0.0) -> tuple[Counter[Word], float]:
    """The words of many gates, and the mean number of pairs. `drift`: per start, steady."""
    random = np.random.default_rng(seed)
    found: Counter[Word] = Counter()
    taken = 0
    for gate in range(GATES):
        values: dict[int, dict[str, float]] = {}
        for place, start in enumerate(starts(pairs.most, gate)):
            noise = random.normal(0, DEVIATION / math.sqrt(2)) + drift * place
            true = 0.0 if start.side == BASE else math.log(true_ratio)
            values.setdefault(start.pair, {})[start.side] = math.exp(true + noise)
        word, used = word_of([(one["base"], one["head"]) for one in values.values()], pairs)
        found[word] += 1
        taken += used
    return found, taken / GATES


def share(found: Counter[Word], *which: Word) -> float:
    """The share of gates with one of these words."""
    return sum(found[word] for word in which) / GATES


@pytest.mark.parametrize(
    ("true_ratio", "regressed", "passed"),
    [(1.0, (0.0, 0.001), (0.89, 0.95)), (1.03, (0.03, 0.07), (0.03, 0.07)), (1.06, (0.89, 0.95), (0.0, 0.001))],
)
def test_six_pairs(true_ratio: float, regressed: tuple[float, float], passed: tuple[float, float]) -> None:
    """Known answer 17: no change fails in at most 0.1 %, 6 % in 92 %, and a change of the margin itself in 5 %."""
    found, _ = words(true_ratio, Pairs(6, 6), 17)
    assert regressed[0] <= share(found, Word.REGRESSED) <= regressed[1], found
    assert passed[0] <= share(found, *PASSES) <= passed[1], found


@pytest.mark.parametrize(
    ("true_ratio", "wrong", "least_right"),
    [
        (1.0, (Word.REGRESSED,), 0.9),
        (1.03, (), 0.0),
        (1.06, PASSES, 0.9),
        (1.10, PASSES, 0.99),
        (0.9, (Word.REGRESSED,), 0.99),
    ],
)
def test_four_to_twelve_pairs_with_looks(true_ratio: float, wrong: tuple[Word, ...], least_right: float) -> None:
    """Looking often costs no certainty: false words stay as rare, and clear cases end early."""
    found, taken = words(true_ratio, Pairs(4, 12), 18)
    right = (Word.REGRESSED,) if true_ratio > 1.03 else PASSES
    assert share(found, *wrong) <= 0.001
    assert share(found, *right) >= least_right, found
    if true_ratio == 1.03:
        assert share(found, Word.REGRESSED) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / GATES)
    else:
        assert taken < 9


def test_a_steady_drift_cancels() -> None:
    """The machine gets slower by half a per cent with each start, 6 % over six pairs: no gate is wrong."""
    found, _ = words(1.0, Pairs(6, 6), 19, drift=0.005)
    assert share(found, Word.REGRESSED) <= 0.001
    assert share(found, *PASSES) >= 0.85


def test_blocks_instead_of_turns_would_be_wrong_in_most_cases() -> None:
    """Known answer 17: with 6 % of drift between two blocks of starts, taken for pairs, 94 %. So they are refused."""
    random = np.random.default_rng(20)
    wrong = 0
    for _ in range(GATES):
        noise = random.normal(0, DEVIATION / math.sqrt(2), (6, 2))
        pairs = [(math.exp(one), math.exp(0.06 + other)) for one, other in noise]
        wrong += word_of(pairs, Pairs(6, 6))[0] is Word.REGRESSED
    assert wrong / GATES > 0.9


def decided(true: float, shared: float, k: int, *, paired: bool, trials: int = 1500) -> tuple[float, float]:
    """Shares of comparisons of k starts a side that fail and that pass, against a margin of 10 %.

    A start has 4 % of noise, whose variance it shares in part with its neighbour. `true`: loss of the rate.
    """
    random, margin = np.random.default_rng(21), Margin("output_tokens_per_s", SCALAR, 0.1)
    found: Counter[Word] = Counter()
    for _ in range(trials):
        own, common = random.normal(0, 0.04, (k, 2)), random.normal(0, 0.04, (k, 1))
        noise = math.sqrt(1 - shared) * own + math.sqrt(shared) * common
        base, head = np.exp(noise + np.array([0.0, math.log1p(-true)])).T
        pairs = [*zip(base, head, strict=True)]
        change = of_pairs(Scale.RATIO, pairs) if paired else unpaired(Scale.RATIO, base, head)
        found[judge([(change, margin)])[0]] += 1
    return found[Word.REGRESSED] / trials, sum(found[word] for word in PASSES) / trials


def test_pairs_of_independent_starts_decide_nearly_as_often_as_starts_that_are_no_pairs() -> None:
    """Five a side: the price of pairs where neighbours share nothing; a wrong verdict at the margin stays rare."""
    (apart, _), (paired, _) = (decided(0.15, 0.0, 5, paired=paired) for paired in (False, True))
    assert apart == pytest.approx(0.65, abs=0.04)
    assert paired > apart - 0.06
    assert decided(0.0, 0.0, 5, paired=True)[1] > 0.95
    assert max(decided(0.1, 0.0, 5, paired=True)) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)


def test_pairs_whose_starts_share_their_noise_decide_more_often() -> None:
    """A machine that is slow for minutes is slow for both sides of a pair."""
    (apart, _), (paired, _) = (decided(0.15, 0.8, 5, paired=paired) for paired in (False, True))
    assert paired > 0.95
    assert apart < 0.8
    assert max(decided(0.1, 0.8, 5, paired=True)) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
