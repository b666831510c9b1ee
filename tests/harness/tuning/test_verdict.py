"""The verdict on a tuning: what outweighs a gain, and what is said without one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from harness.analysis.stats import Measured
from harness.comparison.change import Change
from harness.comparison.comparison import Comparison, Row
from harness.comparison.gate import Look
from harness.comparison.judgement import Word
from harness.comparison.rounds import BASE, HEAD
from harness.metrics import SCALAR
from harness.scenario.compare import MOST_PAIRS
from harness.scenario.margins import Margin, Scale, default_margin
from harness.tuning.race import Standing
from harness.tuning.reading import Broken, Observed, Record
from harness.tuning.run import Fate, Outcome, Race
from harness.tuning.verdict import Found, verdict

RATE = Margin("output_tokens_per_s", SCALAR, 0.03)
TTFT = Margin("ttft_ms", "p95", 0.08)
LIMIT = Broken("ttft_ms p95 <= 500", "TTFT p95 is 600 ms.", sure=True)


def row(margin: Margin, change: float, error: float = 0.001, word: Word = Word.UNCHANGED, doubt: str = "") -> Row:
    """A row of eight pairs with this change."""
    known = Change(margin.scale, math.log1p(change) if margin.scale is Scale.RATIO else change, error, error, 7.0, 8)
    return Row(("m", "e", "", "", "load"), "all", margin, Measured(1.0), Measured(1.0), known, True, doubt, word)


def outcome(*rows: Row, base: Record | None = None, head: Record | None = None) -> Outcome:
    """A tuning whose best candidate has these rows against the defaults."""
    compared: Any = Comparison(None, None, [*rows], [], (8, 8))  # type: ignore[arg-type]
    race = Race(RATE, {0: Record(), 1: Record((Observed(1.0),))}, {}, Standing(2, (1, 0), ended="one is left"))
    limits = {BASE: base or Record(), HEAD: head or Record()}
    return Outcome(race, 1, Look(compared, 8, "decided"), limits, "one is left")


ERRORS = row(default_margin("error_rate", SCALAR), 0.0)


@pytest.mark.parametrize(
    ("margin", "change", "error", "found", "code"),
    [
        (RATE, 0.15, 0.01, Found.BETTER, 0),
        (TTFT, -0.15, 0.01, Found.BETTER, 0),
        (RATE, 0.01, 0.001, Found.TIE, 0),
        (TTFT, 0.01, 0.001, Found.TIE, 0),
        (RATE, -0.15, 0.01, Found.WORSE, 0),
        (RATE, -0.02, 0.001, Found.TIE, 0),
        (RATE, 0.02, 0.02, Found.CANNOT_TELL, 6),
        (RATE, 0.05, 0.02, Found.CANNOT_TELL, 6),
        (RATE, 0.05, math.nan, Found.CANNOT_TELL, 6),
    ],
)
def test_the_interval_of_the_pairs_decides(
    margin: Margin, change: float, error: float, found: Found, code: int
) -> None:
    """More or less being better."""
    told = verdict(outcome(row(margin, change, error), ERRORS))
    assert (told.found, told.exit_code, told.found.uses) == (found, code, found is Found.BETTER)


def test_what_would_settle_it_is_told_in_pairs() -> None:
    """Fewer for a change that is farther from the margin; none if it is settled, or for more than may be asked for."""
    far, near = (verdict(outcome(row(RATE, change, 0.015), ERRORS)).pairs_needed for change in (0.05, 0.048))
    assert far is not None
    assert near is not None
    assert 8 < far < near <= MOST_PAIRS
    assert verdict(outcome(row(RATE, 0.15), ERRORS)).pairs_needed is None
    assert verdict(outcome(row(RATE, 0.05, 0.03), ERRORS)).pairs_needed is None


@pytest.mark.parametrize(
    ("against", "why"),
    [
        (row(default_margin("error_rate", SCALAR), 0.02, word=Word.REGRESSED), "more requests fail"),
        (row(default_margin("attainment", SCALAR), -0.05, word=Word.REGRESSED), "fewer requests meet the SLO"),
        (row(default_margin("kl_mean", SCALAR), 0.05, word=Word.WORSE), "its answers are farther from the reference"),
    ],
)
def test_no_gain_outweighs_errors_missed_slos_or_worse_answers(against: Row, why: str) -> None:
    """The defaults are kept, and the sentence says why."""
    told = verdict(outcome(row(RATE, 0.5), against))
    assert (told.found, told.why) == (Found.WORSE, why)


@pytest.mark.parametrize(("error", "found"), [(0.024, Found.BETTER), (0.001, Found.WORSE)])
def test_a_number_that_does_not_gate_counts_only_if_it_is_worse_for_sure(error: float, found: Found) -> None:
    """Its word alone allows a wrong one in ten. p is 0.07 and less than 0.001."""
    attained = row(default_margin("attainment", SCALAR), -0.05, error, Word.REGRESSED)
    assert verdict(outcome(row(RATE, 0.5), replace(attained, gates=False))).found is found


def test_limits_outweigh_the_gain_on_either_side() -> None:
    """What breaks one is not used; what keeps one that the defaults break is, unless it is worse."""
    breaks = Record((Observed(broken=(LIMIT,)),) * 3 + (Observed(),))
    told = verdict(outcome(row(RATE, 0.5), ERRORS, head=breaks))
    assert (told.found, "it breaks `ttft_ms p95 <= 500`" in told.why) == (Found.WORSE, True)
    told = verdict(outcome(row(RATE, -0.2), ERRORS, base=breaks))
    assert (told.found, told.found.uses) == (Found.KEEPS_LIMITS, True)
    assert told.why == "the defaults break `ttft_ms p95 <= 500`"
    assert verdict(outcome(row(RATE, 0.5), ERRORS, base=breaks)).found is Found.BETTER
    half = Record((Observed(broken=(LIMIT,)), Observed()))
    assert verdict(outcome(row(RATE, 0.5), ERRORS, head=half)).found is Found.BETTER


def test_a_limit_that_is_broken_by_the_value_alone_counts_against_the_candidate_only() -> None:
    """The interval reaches over the bound: a tie with such defaults stays one."""
    breaks = Record((Observed(broken=(replace(LIMIT, sure=False),)),) * 4)
    assert verdict(outcome(row(RATE, 0.01), ERRORS, base=breaks)).found is Found.TIE
    assert verdict(outcome(row(RATE, 0.5), ERRORS, head=breaks)).found is Found.WORSE


def test_poor_data_gives_no_word() -> None:
    """Exit code 4, with the reason."""
    told = verdict(outcome(row(RATE, 0.5, doubt="The client was slow."), ERRORS))
    assert (told.found, told.why, told.exit_code) == (Found.POOR_DATA, "The client was slow.", 4)


def test_without_pairs_a_tuning_is_unfinished_or_has_nobody_left() -> None:
    """Which of both, the race says."""
    started = {0: Record((Observed(1.0),)), 1: Record((Observed(failure="no room"),))}
    race = Race(RATE, started, {1: Fate("failed", "no room")}, Standing(1, (0,), ended="one is left"))
    assert verdict(Outcome(race, ended="one is left")).found is Found.NONE_LEFT
    assert verdict(Outcome(race)).found is Found.UNFINISHED
    spent = Race(RATE, {0: Record((Observed(1.0),)), 1: Record()}, {}, Standing(0, (0, 1)))
    told = verdict(Outcome(spent, ended="the budget is spent"))
    assert (told.found, told.why, told.exit_code) == (
        Found.UNFINISHED, "the budget is spent; 1 candidate was not tried", 6
    )  # fmt: skip
    poor = Race(RATE, started, {0: Fate("poor data", "The client was slow.")}, Standing(2, (), ended="none is left"))
    told = verdict(Outcome(poor, ended="none is left"))
    assert (told.found, told.why, told.exit_code) == (Found.POOR_DATA, "The client was slow.", 4)
