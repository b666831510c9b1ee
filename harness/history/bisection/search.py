"""Probabilistic bisection: which of several steps made a number change, where each answer is noisy; pure.

Steps are numbered from 1; 0 is the good version. An answer is the change of a number in one pair of starts, one of the
good version and one of a step: a logarithm of a ratio, or a difference. The model: before the guilty step the change is
zero, from it on it is the same unknown size; the noise of a pair is normal with one unknown s.d. Both unknowns are
integrated out, the size with a flat prior and the s.d. with Jeffreys' (Gelman et al., Bayesian Data Analysis, 3.2):

    P(step c is guilty | answers) ~ n_c^(-1/2) S_c^(-(n - 1)/2)

with n answers, n_c of them from step c on, and S_c the sum of squares about the two means. So few answers make nothing
certain. The next answer is asked of the step that halves the posterior (Horstein, 1963; Waeber et al., 2013).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.analysis.stats import Floats

CERTAINTY = 0.95
"""Posterior probability at which a step is named."""
LEAST_ANSWERS = 4
"""Answers about the last step before any other is asked: fewer give no useful s.d."""
STRAY = 4.0
"""Standard errors by which the mean of a step may miss both levels before it is remarked."""

Answers = Mapping[int, Sequence[float]]
"""Answers by step."""


def posterior(steps: int, answers: Answers) -> Floats:
    """Return the probability that each step, from 1 on, is the first with the change; all steps are equal beforehand.

    Raises ValueError without an answer about the last step, which is known to have the change.
    """
    if not answers.get(steps):
        raise ValueError(f"step {steps} has no answer")
    values = {step: np.asarray(found, dtype=np.float64) for step, found in answers.items() if len(found)}
    total = sum(len(found) for found in values.values())
    logs = np.empty(steps)
    for guilty in range(1, steps + 1):
        after = np.concatenate([found for step, found in values.items() if step >= guilty])
        before = [float((found**2).sum()) for step, found in values.items() if step < guilty]
        squares = sum(before) + float(((after - after.mean()) ** 2).sum())
        logs[guilty - 1] = -0.5 * math.log(len(after)) - 0.5 * (total - 1) * math.log(max(squares, 1e-300))
    weights = np.exp(logs - logs.max())
    chances: Floats = weights / weights.sum()
    return chances


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a bisection so far.

    Attributes:
        chances: Posterior probability of each step, from 1 on.
        guilty: Steps of which one is guilty with CERTAINTY, in their order: one step if it is named.
        ask: Step to ask next; None if there is nothing left to ask.
    """

    chances: tuple[float, ...]
    guilty: tuple[int, ...]
    ask: int | None

    @property
    def named(self) -> bool:
        """Whether one step is named."""
        return len(self.guilty) == 1


def judge(steps: int, answers: Answers, left_out: Collection[int] = (), certainty: float = CERTAINTY) -> Found:
    """Return what the answers say, and which step to ask next.

    Args:
        left_out: Steps that cannot be measured.
    """
    if len(answers.get(steps, ())) < LEAST_ANSWERS:
        return Found((), tuple(range(1, steps + 1)), steps)
    chances = posterior(steps, answers)
    guilty = _smallest(chances, certainty)
    return Found(
        tuple(map(float, chances)), guilty, None if len(guilty) == 1 else _halving(chances, left_out, certainty)
    )


def _smallest(chances: Floats, certainty: float) -> tuple[int, ...]:
    """Return the most probable steps that together reach a certainty."""
    order = np.argsort(-chances, kind="stable")
    number = int(np.searchsorted(np.cumsum(chances[order]), certainty)) + 1
    return tuple(sorted(int(step) + 1 for step in order[:number]))


def _halving(chances: Floats, left_out: Collection[int], certainty: float) -> int | None:
    """Return the step whose answer halves the posterior: the change came by it with a probability next to a half.

    None if every step that can be asked is decided already: what is left cannot be told apart.
    """
    before = np.cumsum(chances)
    can = [step for step in range(1, len(chances)) if step not in left_out]
    best = min(can, key=lambda step: abs(before[step - 1] - 0.5), default=None)
    undecided = (1 - certainty) / 2
    return best if best is not None and undecided < before[best - 1] < 1 - undecided else None


@dataclass(frozen=True, slots=True)
class Level:
    """Mean of a step's answers.

    Attributes:
        low, high: 95 % interval with the s.d. of all answers about their steps' means; NaN if that is unknown.
        stray: Whether it fits neither the good version nor the last step.
    """

    step: int
    answers: int
    mean: float
    low: float
    high: float
    stray: bool = False


def levels(steps: int, answers: Answers) -> list[Level]:
    """Return the mean change of each step that was asked, with its interval."""
    found = {step: np.asarray(values, dtype=np.float64) for step, values in sorted(answers.items()) if len(values)}
    free = sum(len(values) - 1 for values in found.values())
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in found.values())
    spread = math.sqrt(squares / free) if free else math.nan
    factor = student(free) if free else math.nan
    last = float(found[steps].mean()) if steps in found else math.nan
    made = []
    for step, values in found.items():
        mean, error = float(values.mean()), spread / math.sqrt(len(values))
        apart = min(abs(mean), abs(mean - last)) if len(values) > 1 else 0.0
        reach = factor * error
        made.append(Level(step, len(values), mean, mean - reach, mean + reach, bool(apart > STRAY * error)))
    return made


@lru_cache
def student(degrees: int) -> float:
    """Return the factor of a two-sided 95 % interval of Student."""
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))
