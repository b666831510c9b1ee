"""Rates of the battery: counts, their 95 % bounds, and the targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.battery.cases import IDENTICAL
from benchmarks.battery.outcome import INVALID, NONE, P95, VALID, Outcome

AT_MOST, AT_LEAST = "<=", ">="
ALPHA = 0.05


@dataclass(frozen=True)
class Rate:
    """How often something happened, and the share of which it must not be on the wrong side."""

    what: str
    hits: int
    of: int
    side: str = ""  # "" without a target
    target: float = 0.0

    @property
    def share(self) -> float:
        """Hits among all."""
        return self.hits / self.of

    @property
    def missed(self) -> bool:
        """Whether the target was missed."""
        if not self.of or not self.side:
            return False
        return self.share > self.target if self.side == AT_MOST else self.share < self.target

    @property
    def bound(self) -> float:
        """One-sided 95 % bound of the true rate (Clopper and Pearson, 1934), on the side that the target asks about."""
        from scipy.special import betaincinv

        if self.side == AT_LEAST:
            return float(betaincinv(self.hits, self.of - self.hits + 1, ALPHA)) if self.hits else 0.0
        return float(betaincinv(self.hits + 1, self.of - self.hits, 1 - ALPHA)) if self.hits < self.of else 1.0

    def __str__(self) -> str:
        if not self.of:
            return "not measurable here"
        side = AT_LEAST if self.side == AT_LEAST else AT_MOST
        return f"{self.hits} of {self.of}, {self.share:.0%} ({side} {self.bound:.0%})"


def rates_of(outcomes: Sequence[Outcome]) -> list[Rate]:
    """Return the rates of some outcomes, in the order of the table."""
    known = [one for one in outcomes if one.verdict != NONE]
    healthy = [one for one in known if not one.sick and one.case != IDENTICAL.name]
    right = [one for one in healthy if one.has_truth and not one.wrong]
    wrong = [one for one in known if one.wrong]
    numbers = [one for each in wrong for one in each.wrong]
    unnamed = [one for each in wrong for one in each.unnamed()]
    effects = [within for one in known for within in one.effects.values()]
    quiet = [one for one in healthy if one.quiet]
    sick = [one for one in outcomes if one.sick and not one.harmless]
    p95 = [one.numbers[P95] for one in healthy if P95 in one.numbers]
    shown = [one for one in p95 if one.shown == one.shown]
    return [
        _rate("doubted though every shown number is right", (one.verdict != VALID for one in right), AT_MOST, 0.05),
        _rate("void though right", (one.verdict == INVALID for one in right), AT_MOST, 0.005),
        _rate("not doubted though a shown number is wrong", (one.verdict == VALID for one in wrong), AT_MOST, 0.05),
        Rate("wrong numbers that no doubt names", len(unnamed), len(numbers)),
        _rate("VALID on a quiet machine", (one.verdict == VALID for one in quiet), AT_LEAST, 0.95),
        _rate("sick: right doubt first", (one.right_first for one in sick), AT_LEAST, 0.95),
        _rate("truth within the stated effect", effects, AT_LEAST, 0.95),
        Rate("healthy: TTFT p95 shown", len(shown), len(healthy), AT_LEAST, 1.0),
        _rate("healthy: interval of TTFT p95 open", (one.interval_open for one in p95), AT_MOST, 0.25),
        _identical(outcomes),
    ]


def _rate(what: str, happened: Iterable[bool], side: str, target: float) -> Rate:
    found = list(happened)
    return Rate(what, sum(found), len(found), side, target)


def _identical(outcomes: Sequence[Outcome]) -> Rate:
    """Return how many runs of the repeated case ended with another exit code than most of them."""
    codes = Counter(one.exit_code for one in outcomes if one.case == IDENTICAL.name)
    most = max(codes.values(), default=0)
    return Rate("identical runs: another exit code", codes.total() - most, codes.total(), AT_MOST, 0.0)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the rates as a Markdown table, in sample and held out apart."""
    lines = ["| rate | target | in sample | held out |", "|---|--:|--:|--:|"]
    for inside, outside in zip(*_halves(outcomes), strict=True):
        target = f"{inside.side} {100 * inside.target:g} %" if inside.side else "-"
        cells = [f"{one}{' **missed**' if one.missed else ''}" for one in (inside, outside)]
        lines.append(f"| {inside.what} | {target} | {' | '.join(cells)} |")
    return "\n".join(lines)


def missed(outcomes: Sequence[Outcome]) -> bool:
    """Return True if a target was missed in sample or held out, as the table says."""
    return any(rate.missed for half in _halves(outcomes) for rate in half)


def _halves(outcomes: Sequence[Outcome]) -> list[list[Rate]]:
    """Return the rates in sample, and those held out."""
    return [rates_of([one for one in outcomes if one.held_out is held_out]) for held_out in (False, True)]
