"""Tables of the scorecard in Markdown: counts with their 95 % bounds, the noise, others beside it, and the targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from benchmarks.scorecard.arms import ARMS, EMBEDDED_SAME, EMBEDDED_SLOWER, HOGS_SAME, SERVED_SAME, SERVED_SLOWER, Arm
from benchmarks.scorecard.outcome import CANNOT_TELL, E2E, REGRESSED, TPOT, TTFT, Outcome
from benchmarks.scorecard.theirs import THRESHOLDS, rule_of_one_says, rule_says

DOCTOR_WORDS = ("FAIL", "PASS", "INCONCLUSIVE")
ALPHA = 0.05
UNKNOWN = "-"
FALSE_ALARMS = 1 / 20
FOUND = 18 / 20


def bounds(hits: int, of: int) -> tuple[float, float]:
    """Return the two-sided 95 % bounds of a true rate (Clopper and Pearson, 1934)."""
    from scipy.special import betaincinv

    low = float(betaincinv(hits, of - hits + 1, ALPHA / 2)) if hits else 0.0
    high = float(betaincinv(hits + 1, of - hits, 1 - ALPHA / 2)) if hits < of else 1.0
    return low, high


def counted(hits: int, of: int) -> str:
    """Return a count, and in brackets the bounds of the true rate."""
    if not of:
        return UNKNOWN
    low, high = bounds(hits, of)
    return f"{hits} ({100 * low:.0f} to {100 * high:.0f} %)"


def by_arm(outcomes: Sequence[Outcome]) -> dict[Arm, list[Outcome]]:
    """Return the outcomes of each arm that has any."""
    found = {arm: [one for one in outcomes if one.arm == arm.name] for arm in ARMS}
    return {arm: each for arm, each in found.items() if each}


def regressed(outcomes: Sequence[Outcome]) -> int:
    """Return how many gates ended with `regressed`."""
    return sum(one.word == REGRESSED for one in outcomes)


def verdicts(outcomes: Sequence[Outcome]) -> str:
    """Return the table of our own verdicts."""
    lines = ["| gates | number | regressed | passed | cannot tell | of these rightly | poor data |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for arm, each in by_arm(outcomes).items():
        n, slower = len(each), regressed(each)
        unsure = [one for one in each if one.word == CANNOT_TELL]
        counts = [counted(hits, n) for hits in (slower, n - slower - len(unsure), len(unsure))]
        rightly, poor = sum(one.rightly_open for one in unsure), sum(one.poor for one in each)
        lines.append(f"| {arm.name} | {n} | {' | '.join(counts)} | {rightly} | {poor} |")
    return "\n".join(lines)


def noise(outcomes: Sequence[Outcome]) -> str:
    """Return the table of the noise between pairs: the root of the mean variance within a gate."""
    lines = [
        "| gates | s.d. of a pair: TPOT p50 | TTFT p50 | E2E mean | change of TPOT p50 | pairs | pairs that settle it |"
    ]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for arm, each in by_arm(outcomes).items():
        sizes = [percent(deviation([one.numbers[name].deviation for one in each])) for name in (TPOT, TTFT, E2E)]
        changes = [one.numbers[TPOT].change for one in each]
        logs = [math.log(change) for change in changes if change]
        change = percent(math.exp(fmean(logs)) - 1, sign="+") if logs else UNKNOWN
        needed = sorted(one.pairs_needed for one in each if one.pairs_needed)
        most = f" to {needed[-1]}" if len({*needed}) > 1 else ""
        more = f"{needed[0]}{most} ({len(needed)} open)" if needed else UNKNOWN
        pairs = f"{fmean(one.pairs for one in each):.1f}"
        lines.append(f"| {arm.name} | {' | '.join(sizes)} | {change} | {pairs} | {more} |")
    return "\n".join(lines)


def deviation(each: Sequence[float]) -> float:
    """Return the common standard deviation of several gates; NaN if none is known."""
    known = [one for one in each if not math.isnan(one)]
    return math.sqrt(fmean(one * one for one in known)) if known else math.nan


def percent(share: float, sign: str = "") -> str:
    """Return a share in percent."""
    return UNKNOWN if math.isnan(share) else f"{100 * share:{sign}.1f} %"


def others(outcomes: Sequence[Outcome], doctor: Mapping[str, Sequence[str]], version: str) -> str:
    """Return the table of what others say of the same starts.

    Args:
        doctor: By gate: the results at each of THRESHOLDS.
    """
    names = [f"inference-doctor {version} at {limit:g} %" for limit in THRESHOLDS]
    head = ["gates", "harness: regressed", *names, "more than 10 % above, all starts", "the first start alone"]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for arm, each in by_arm(outcomes).items():
        results = [[doctor[one.key][number] for one in each] for number in range(len(THRESHOLDS))]
        said = [" / ".join(str(found.count(word)) for word in DOCTOR_WORDS) for found in results]
        rules = [sum(map(rule, each)) for rule in (rule_says, rule_of_one_says)]
        cells = [f"{regressed(each)} of {len(each)}", *said, *map(str, rules)]
        lines.append(f"| {arm.name} | {' | '.join(cells)} |")
    return f"{chr(10).join(lines)}\n\ninference-doctor: {' / '.join(DOCTOR_WORDS)}."


@dataclass(frozen=True)
class Target:
    """Count that must not be on the wrong side.

    Attributes:
        met: None where no gate was made.
    """

    what: str
    met: bool | None

    def __str__(self) -> str:
        return f"{self.what}: {'not measured' if self.met is None else 'met' if self.met else '**missed**'}"


def targets(outcomes: Sequence[Outcome]) -> list[Target]:
    """Return the targets: shares of the gates that were made."""
    arms = by_arm(outcomes)
    found = []
    for arm in (SERVED_SAME, EMBEDDED_SAME):
        met = regressed(arms[arm]) <= max(1, FALSE_ALARMS * len(arms[arm])) if arm in arms else None
        found.append(Target(f"{arm.name}: at most 1 regressed", met))
    for arm in (SERVED_SLOWER, EMBEDDED_SLOWER):
        met = regressed(arms[arm]) >= math.ceil(round(FOUND * len(arms[arm]), 9)) if arm in arms else None
        found.append(Target(f"{arm.name}: at least 9 of 10 regressed", met))
    met = None
    if HOGS_SAME in arms and SERVED_SAME in arms:
        met = regressed(arms[HOGS_SAME]) <= regressed(arms[SERVED_SAME])
    return [*found, Target(f"{HOGS_SAME.name}: no more regressed than without", met)]


def seconds(outcomes: Sequence[Outcome]) -> str:
    """Return how long the gates took."""
    each = sorted(one.seconds for one in outcomes)
    if not each:
        return "No gate was made."
    return f"A gate took {each[0]:.0f} to {each[-1]:.0f} s, {median(each):.0f} s in the middle."
