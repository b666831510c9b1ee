"""State of a series on a night, and what there is to tell of it; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from harness.history.detector.nights import NIGHTLY, Nights, Schedule, nights_of, usable
from harness.history.detector.noise import NoiseClass
from harness.history.detector.steps import NEAR, POLICY, Course, Policy, Shape, Step, course_of
from harness.history.series import Event, Series

OPEN_NIGHTS = 30
"""Nights for which a change that nobody acknowledged determines the state; afterwards it is the usual level."""
LEARNING_NIGHTS = 10
"""Nights after a reset in which the state says so."""
RECENT_GAPS = 7
"""Nights since which a gap that ended is told, if it was not while it lasted."""
TAILS = ("p99", "p99.9", "p999", "max")
"""Statistics that are judged and not told: single requests move them."""


class State(StrEnum):
    """State of a series; the first ones are looked at first."""

    REGRESSED = "regressed"
    NO_DATA = "no data"
    MACHINE = "machine changed"
    METHOD = "method changed"
    NOISY = "noisy"
    IMPROVED = "improved"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """What there is to tell of a series.

    Attributes:
        since: First night of it; for a creeping change the night that it is measured from.
        first, last: Nights between which it began, with 95 %.
        step: Change of the level, None for other findings.
        lacks: What keeps it from being told, "" if nothing does.
        current: Whether it is so on the last night.
    """

    state: State
    since: datetime
    why: str
    first: datetime
    last: datetime
    step: Step | None = None
    lacks: str = ""
    current: bool = True

    @property
    def shape(self) -> Shape | None:
        """Course of the change."""
        return None if self.step is None else self.step.shape


@dataclass(frozen=True, slots=True)
class Judged:
    """Series with its state.

    Attributes:
        findings: Everything to tell, oldest first, those that lack something included.
        wants_run: Whether another run of the same night would decide about a large change.
    """

    series: Series
    state: State
    why: str
    course: Course
    findings: tuple[Finding, ...] = ()
    wants_run: bool = False

    @property
    def noise(self) -> NoiseClass:
        """Class of its noise."""
        return self.course.noise.word

    @property
    def tells(self) -> bool:
        """Whether its changes are told by default."""
        return self.series.key.statistic not in TAILS


def judge(series: Series, now: datetime, schedule: Schedule | None = None, policy: Policy = POLICY) -> Judged:
    """Return the state of a series at a time. Without a schedule no night is missing."""
    nights = nights_of(series, schedule or NIGHTLY)
    course = course_of(nights, policy, _at_nights(series, nights, "release"), _at_nights(series, nights, "note"))
    findings = [
        *_resets(series, nights),
        *_steps(series, course),
        *_bursts(series, course),
        *(_missing(series, now, schedule) if schedule is not None else ()),
    ]
    found = tuple(sorted((_acknowledged(series, one, nights) for one in findings), key=lambda one: one.since))
    state, why = _state(course, found)
    wants = course.jump is not None and bool(course.jump.lacks)
    return Judged(series, state, why, course, found, wants)


def restated(judged: Judged, findings: Sequence[Finding]) -> Judged:
    """Return a series with other findings, and the state that follows from them."""
    state, why = _state(judged.course, findings)
    return replace(judged, state=state, why=why, findings=tuple(findings))


def _state(course: Course, findings: Sequence[Finding]) -> tuple[State, str]:
    """Return the state with its reason: missing nights first, then what was found last."""
    current = [one for one in findings if one.current and not one.lacks]
    for one in current:
        if one.state is State.NO_DATA:
            return one.state, one.why
    if current:
        latest = max(current, key=lambda one: one.last)
        return latest.state, latest.why
    if course.noise.word is NoiseClass.NOISY:
        return State.NOISY, _noise_text(course)
    known = [one for one in findings if one.current and one.lacks.startswith("known")]
    return State.OK, known[-1].lacks if known else ""


def _noise_text(course: Course) -> str:
    if course.noise.dependent:
        return f"nights follow each other (autocorrelation {course.noise.correlation:.2f}); changes need a confirmation"
    return f"nights differ by {100 * course.noise.sigma:.0f} % (standard deviation); small changes cannot be seen"


def _steps(series: Series, course: Course) -> list[Finding]:
    """Return the changes of the level since the last reset, in the last OPEN_NIGHTS nights."""
    nights = course.nights
    n = len(nights.values)
    changes = [one for one in course.steps if one.night > nights.start and n - one.night <= OPEN_NIGHTS]
    if course.jump is not None and not any(n - one.night <= NEAR and not one.lacks for one in changes):
        changes.append(course.jump)
    if course.creep is not None:
        changes.append(course.creep)
    told = [one.night for one in changes if not one.lacks and one.shape is Shape.STEP]
    found = []
    for step in changes:
        current = step.shape is not Shape.STEP or step.night == max(told, default=step.night)
        found.append(_finding(series, course, step, current=current))
    return found


def _finding(series: Series, course: Course, step: Step, *, current: bool) -> Finding:
    at = [series.points[place].at for place in course.nights.places]
    up = step.change.at > 0
    worse = up == (series.better == "lower")
    state = State.REGRESSED if worse else State.IMPROVED
    first, last = (at[one] for one in (step.first, step.last))
    how = "little by little" if step.shape is Shape.CREEP else f"on {at[step.night]:%Y-%m-%d}"
    word = "worse" if worse else "better"
    since = f" since {at[step.night]:%Y-%m-%d}" if step.shape is Shape.CREEP else ""
    return Finding(state, at[step.night], f"{word} {how}{since}", first, last, step, step.lacks, current)


def _resets(series: Series, nights: Nights) -> list[Finding]:
    """Return the recent nights from which on earlier ones are no measure."""
    found = []
    for night in nights.resets:
        if len(nights.values) - night > OPEN_NIGHTS:
            continue
        place = nights.places[night]
        at, before = series.points[place].at, series.points[nights.places[night - 1]].at
        events = [one for one in series.events if before < one.at <= at and one.kind in ("plan", "method", "machine")]
        machine = any(one.kind == "machine" for one in events)
        why = "; ".join(one.text for one in events) or "earlier nights are no measure any more"
        current = night == nights.start and len(nights.values) - night <= LEARNING_NIGHTS
        found.append(Finding(State.MACHINE if machine else State.METHOD, at, why, at, at, current=current))
    return found


def _bursts(series: Series, course: Course) -> list[Finding]:
    """Return the noisy nights at the end of a series, if there are any."""
    if not course.bursts:
        return []
    first, last = course.bursts[-1]
    if len(course.nights.values) - last > NEAR + 1:
        return []
    at = series.points[course.nights.places[first]].at
    return [Finding(State.NOISY, at, f"nights differ far more than before since {at:%Y-%m-%d}", at, at)]


def _missing(series: Series, now: datetime, schedule: Schedule) -> list[Finding]:
    """Return the nights missing now, and recent gaps that ended."""
    there = [point for point in series.points if usable(point)]
    if not there:
        return []
    found = []
    recent = [point.at for point in there[-RECENT_GAPS - 1 :]]
    for last, until in zip(recent, [*recent[1:], now], strict=True):
        due = schedule.missing(last, until)
        if due:
            poor = [point for point in series.points if last < point.at < until and not usable(point)]
            current = until is now
            found.append(
                Finding(State.NO_DATA, due[0], _missing_text(len(due), due[0], poor), due[0], due[-1], current=current)
            )
    return found


def _missing_text(number: int, since: datetime, poor: Sequence[object]) -> str:
    nights = f"{number} night{'s' * (number != 1)}"
    doubt = next((one.doubt for one in poor if getattr(one, "doubt", "")), "")  # type: ignore[attr-defined]
    return f"no usable number for {nights} since {since:%Y-%m-%d}" + (f": {doubt}" if doubt else "")


def _at_nights(series: Series, nights: Nights, kind: str) -> list[int]:
    """Return the night of each event of a kind: the first one at or after it."""
    at = [series.points[place].at for place in nights.places]
    times = [event.at for event in series.events if event.kind == kind]
    return [night for time in times if (night := next((n for n, one in enumerate(at) if one >= time), -1)) >= 0]


def _acknowledged(series: Series, finding: Finding, nights: Nights) -> Finding:
    """Return a finding as known if a note is about its night."""
    if finding.lacks:
        return finding
    note = next((event for event in series.events if event.kind == "note" and _about(event, finding, series)), None)
    return finding if note is None else replace(finding, lacks=f"known: {note.text}")


def _about(note: Event, finding: Finding, series: Series) -> bool:
    """Return whether a note is about a finding. A creeping change is one since the last note, so none is about it."""
    if finding.shape is Shape.CREEP:
        return False
    at = sorted(point.at for point in series.points)
    if finding.state is State.NO_DATA and finding.current:
        return note.at >= max((one for one in at if one < finding.since), default=finding.since)
    early, late = (_night_of(at, one) for one in (finding.first, finding.last))
    return early - NEAR <= _night_of(at, note.at) <= late + NEAR


def _night_of(at: Sequence[datetime], time: datetime) -> int:
    return sum(one <= time for one in at)
