"""Verdict of a tuning: use the best candidate, or keep the defaults; pure.

The best candidate is better only if the whole interval of its fresh pairs is beyond the margin. Worse answers, more
errors, fewer requests that meet the SLO, or a broken limit outweigh that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from harness.comparison.change import Change, pairs_needed
from harness.comparison.comparison import Row
from harness.comparison.gate import Look
from harness.comparison.judgement import Word, judge
from harness.comparison.rounds import BASE, HEAD
from harness.errors import ExitCode
from harness.scenario.compare import MOST_PAIRS
from harness.scenario.margins import Margin
from harness.tuning.candidates import DEFAULTS
from harness.tuning.reading import Broken, margin_in_gains
from harness.tuning.run import POOR, SPENT, Outcome

GUARDS = {"error_rate": "more requests fail", "attainment": "fewer requests meet the SLO"}
"""Numbers that may not get worse, whatever the gain, with the sentence if they do."""
_NONE_LEFT = "each failed, broke a limit, had poor data, was surely worse in the race, or is the defaults"


class Found(StrEnum):
    """What a tuning found."""

    BETTER = "better"  # by more than the margin, for sure
    KEEPS_LIMITS = "keeps the limits"  # which the defaults break for sure
    TIE = "tie"  # not better by more than the margin, for sure
    WORSE = "worse"  # by more than the margin, or with more errors, or with a broken limit
    CANNOT_TELL = "cannot tell"
    POOR_DATA = "poor data"
    NONE_LEFT = "none left"  # all failed, broke a limit, or were surely worse in the race
    UNFINISHED = "unfinished"

    @property
    def uses(self) -> bool:
        """Whether the best candidate is to be used."""
        return self in (Found.BETTER, Found.KEEPS_LIMITS)


_CODES = {
    Found.POOR_DATA: ExitCode.INVALID,
    Found.CANNOT_TELL: ExitCode.CANNOT_TELL,
    Found.UNFINISHED: ExitCode.CANNOT_TELL,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict of a tuning.

    Attributes:
        why: What outweighs the change, or why there is none; "" if the change says it.
        row: Number that is tuned, of the fresh pairs; None without them.
        pairs_needed: Pairs that would settle it; None if it is settled, or if more than MOST_PAIRS would be needed.
    """

    found: Found
    why: str = ""
    row: Row | None = None
    pairs_needed: int | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Code of the command: a tie is an answer."""
        return _CODES.get(self.found, ExitCode.HOLDS)


def verdict(outcome: Outcome) -> Verdict:
    """Return the verdict on an outcome."""
    if outcome.look is None:
        return _without_pairs(outcome)
    row = tuned(outcome.look)
    if row.doubt:
        return Verdict(Found.POOR_DATA, row.doubt, row)
    if (against := _against(outcome)) is not None:
        return Verdict(Found.WORSE, against, row)
    word = of_change(row.change, row.margin, outcome.look.comparison.alpha)
    broken = _broken(outcome, BASE)
    if broken is not None and broken.sure and word is not Found.BETTER:
        return Verdict(Found.KEEPS_LIMITS, f"the defaults break `{broken.limit}`", row)
    return Verdict(word, "", row, _pairs_needed(row) if word is Found.CANNOT_TELL else None)


def _without_pairs(outcome: Outcome) -> Verdict:
    if outcome.best is not None or not outcome.ended:
        spent = f"{SPENT}; " if outcome.ended == SPENT else ""
        return Verdict(Found.UNFINISHED, f"{spent}the fresh pairs of the best candidate are not measured")
    fate = outcome.race.out.get(DEFAULTS)
    if fate is not None and fate.word == POOR:
        return Verdict(Found.POOR_DATA, fate.why)
    if waiting := [one for one in outcome.race.standing.left if one != DEFAULTS]:
        were = "1 candidate was" if len(waiting) == 1 else f"{len(waiting)} candidates were"
        return Verdict(Found.UNFINISHED, f"{outcome.ended}; {were} not tried")
    return Verdict(Found.NONE_LEFT, _NONE_LEFT)


def tuned(look: Look) -> Row:
    """Return the row of the number that is tuned."""
    return next(row for row in look.comparison.gating if not (row.margin.guards or row.margin.of_quality))


def of_change(change: Change, margin: Margin, alpha: float) -> Found:
    """Return the word for a change alone. alpha: chance of a false one."""
    word = word_of(change, margin, alpha)
    if word is Word.IMPROVED:
        return Found.BETTER
    if word is Word.REGRESSED:
        return Found.WORSE
    p_not_better = change.p_above(margin.better) if margin.more_is_worse else change.p_below(margin.better)
    return Found.TIE if change.known and p_not_better <= alpha else Found.CANNOT_TELL


def word_of(change: Change, margin: Margin, alpha: float) -> Word:
    """Return the word of a comparison for a change alone."""
    (word,) = judge([(change, margin)], alpha=alpha)
    return word


def _against(outcome: Outcome) -> str | None:
    """Return why the best candidate is worse, whatever its gain; None if it is not."""
    assert outcome.look is not None
    broken = _broken(outcome, HEAD)
    if broken is not None:
        return f"it breaks `{broken.limit}`: {broken.sentence}"
    comparison = outcome.look.comparison
    worse = [row.margin for row in comparison.rows if _is_worse(row, comparison.alpha)]
    if any(margin.of_quality for margin in worse):
        return "its answers are farther from the reference"
    return next((why for name, why in GUARDS.items() if any(margin.metric == name for margin in worse)), None)


def _is_worse(row: Row, alpha: float) -> bool:
    """Return whether a number is worse for sure. One that does not gate may be called so by a rate of discoveries."""
    if row.word not in (Word.REGRESSED, Word.WORSE):
        return False
    return row.gates or word_of(row.change, row.margin, alpha) is Word.REGRESSED


def _broken(outcome: Outcome, side: str) -> Broken | None:
    """Return the limit that a side broke in the pairs; None if it kept them."""
    return outcome.limits[side].breaks if side in outcome.limits else None


def _pairs_needed(row: Row) -> int | None:
    """Return how many pairs would tell whether this change is beyond the margin."""
    change = row.change
    if not change.known or not change.pairs:
        return None
    gain = -change.at if row.margin.more_is_worse else change.at
    distance = abs(gain - margin_in_gains(row.margin))
    return pairs_needed(change.below * math.sqrt(change.pairs), distance, MOST_PAIRS) if distance else None
