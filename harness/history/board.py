"""Board: all series of a history judged, and one alert for each cause; pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from harness.comparison.change import Change
from harness.history.detector import bursts
from harness.history.detector.changes import LEAST
from harness.history.detector.nights import NIGHTLY, Calendar, Schedule, usable
from harness.history.detector.states import Finding, Judged, State, judge, restated
from harness.history.detector.steps import BOTH_ENDS, NEAR, NEEDS_CONFIRMATION, POLICY, Policy, Shape, shift
from harness.history.names import short_names
from harness.history.series import Key, Point, Series
from harness.scenario.margins import Margin, Scale

CONTROL_P, CONTROL_CREEP_P = 0.01, 0.001
"""Largest p-values, shared by the controls of a machine, at which one of them moved with the others."""
CONTROL_SHARE = 0.25
"""Least part of a change that a control must share."""
CONTROL_NIGHTS = 30
JOINS_NIGHTS = 30
"""Nights after which another series that creeps from the same night is told again."""
LEVEL, CREEP = "level", "creep"
"""Kinds of changes of the level: from one night to the next, or little by little."""
LEVELS = (State.REGRESSED, State.IMPROVED)
PER_MACHINE = (State.MACHINE, State.METHOD)

Confirm = Callable[["Alert"], bool | None]
"""Measures both builds of an alert in turns: whether the change is there, None if they cannot be started."""


@dataclass(frozen=True, slots=True)
class Told:
    """Alert that was told.

    Attributes:
        since: First night of the alert.
        at: When it was told.
        confirmed: What the measurement of both builds said; None without one.
        failed: Whether a number that gates had regressed.
    """

    state: State
    shape: str
    since: datetime
    series: frozenset[str]
    at: datetime
    confirmed: bool | None = None
    failed: bool = True

    @property
    def kind(self) -> str:
        """Kind of the findings that it told."""
        return self.state if not self.shape else CREEP if self.shape == Shape.CREEP else LEVEL

    @property
    def text(self) -> str:
        """JSON that `parse_told` reads."""
        times, names = {"since": self.since.isoformat(), "at": self.at.isoformat()}, sorted(self.series)
        found = {"confirmed": self.confirmed, "failed": self.failed}
        return json.dumps({"state": self.state, "shape": self.shape, **times, "series": names, **found})


def parse_told(text: str) -> Told | None:
    """Return an alert that was told from its text; None for one that is damaged or of a newer version."""
    try:
        entry = json.loads(text)
        since, at = (datetime.fromisoformat(entry[name]) for name in ("since", "at"))
        series = frozenset(map(str, entry["series"]))
        since, at, confirmed = since.astimezone(UTC), at.astimezone(UTC), entry.get("confirmed")
        known, failed = confirmed if isinstance(confirmed, bool) else None, entry.get("failed") is not False
        return Told(State(entry["state"]), str(entry["shape"]), since, series, at, known, failed)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Alert:
    """One cause, with all series that it changed.

    Attributes:
        shape: "step", "creep" or "jump" for a change of the level, else "".
        since: Night on which its state began in most series; for a creeping change the night that it is measured from.
        between: Nights between which it began in the series that changed most.
        change: Largest change, with its interval; None for other alerts.
        suspects: For each label that differs: its name, and its values on the last night before and the first after.
        cause: The cause, as far as it is known.
        confirmed: Whether both builds measured in turns differ; None if nobody measured them.
        told: Whether it was told before.
        fails: Whether a number that gates regressed.
        lead: Series that changed most.
        machine: Machine of which it is; "" for a change that several may share.
    """

    state: State
    shape: str
    since: datetime
    between: tuple[datetime, datetime]
    series: tuple[str, ...]
    title: str
    cause: str = ""
    change: Change | None = None
    suspects: tuple[tuple[str, str, str], ...] = ()
    confirmed: bool | None = None
    told: bool = False
    fails: bool = False
    lead: str = ""
    machine: str = ""

    @property
    def identity(self) -> str:
        """Name that stays the same while nights are added, unless its place moves."""
        of = f"-{hashlib.sha256(self.machine.encode()).hexdigest()[:6]}" if self.machine else ""
        return f"{self.state}-{self.shape or 'event'}-{self.since:%Y%m%d}{of}".replace(" ", "-")

    def as_told(self, at: datetime) -> Told:
        """Return what to remember."""
        return Told(self.state, self.shape, self.since, frozenset(self.series), at, self.confirmed, self.fails)


@dataclass(frozen=True, slots=True)
class Board:
    """All series and alerts of a night, the worst first.

    Attributes:
        made: Time at which it holds.
    """

    made: datetime
    series: tuple[Judged, ...]
    alerts: tuple[Alert, ...]

    @property
    def new(self) -> list[Alert]:
        """Alerts to tell now."""
        return [alert for alert in self.alerts if not alert.told and alert.confirmed is not False]

    def counts(self) -> dict[State, int]:
        """Return the number of series in each state."""
        states = [one.state for one in self.series]
        return {state: states.count(state) for state in State}


def identity(key: Key) -> str:
    """Return the identity of a series: all parts of its key, "/" between them."""
    return "/".join(
        str(part).replace("/", "%2F") for part in (getattr(key, name) for name in Key.__dataclass_fields__)
    ).rstrip("/")


def make_board(
    series: Iterable[Series],
    now: datetime,
    schedule: Schedule | None = None,
    told: Sequence[Told] = (),
    margins: Sequence[Margin] = (),
    confirm: Confirm | None = None,
    policy: Policy = POLICY,
) -> Board:
    """Return all series judged, the worst first, with one alert for each cause.

    Args:
        now: Time at which nights are missing.
        told: Alerts that were told before.
        margins: Numbers whose regression fails; every alerting one without them.
        confirm: Measures both builds in turns. Without it alerts are unconfirmed.
    """
    ordered = sorted(series, key=lambda one: identity(one.key))
    judged = [judge(one, now, schedule, policy) for one in ordered]
    calendar = Calendar.of(ordered, schedule or NIGHTLY)
    names = short_names([one.series.key for one in judged])
    judged = _with_controls(judged, _groups(judged, margins, calendar), names)
    alerts, sure, disproved = [], set[_Member](), set[_Member]()
    for group in _groups(judged, margins, calendar, uncertain=confirm is not None or bool(told)):
        alert = _settled(group, _alert(group, judged, names), judged, told, margins, confirm, calendar)
        if alert is not None:
            alerts.append(alert)
            sure |= {*group} if alert.confirmed else set()
            disproved |= {*group} if alert.confirmed is False else set()
    confirmed = (_with_certain(one, _of(sure, number)) for number, one in enumerate(judged))
    settled = [_with_confirmation(one, _of(disproved, number)) for number, one in enumerate(confirmed)]
    order = list(State)
    states = sorted(settled, key=lambda one: (order.index(one.state), identity(one.series.key)))
    alerts.sort(key=lambda one: (one.told, order.index(one.state), -one.since.timestamp()))
    return Board(now, tuple(states), tuple(alerts))


_Member = tuple[int, Finding]


def _of(members: Collection[_Member], number: int) -> list[Finding]:
    """Return the findings of a series."""
    return [finding for place, finding in members if place == number]


def _groups(
    judged: Sequence[Judged], margins: Sequence[Margin], calendar: Calendar, *, uncertain: bool = False
) -> list[list[_Member]]:
    """Return the findings to tell that have one cause: of one kind, at most NEAR nights from where most began.

    The first of a group began on that night. uncertain: Also those that need a confirmation.
    """
    every_one = [
        (number, finding)
        for number, one in enumerate(judged)
        if one.tells or _gates(one, margins)
        for finding in one.findings
        if not finding.lacks or (uncertain and finding.lacks == NEEDS_CONFIRMATION)
    ]
    waiting = sorted(every_one, key=lambda one: (one[1].since, one[0]))
    groups: list[list[_Member]] = []
    while waiting:
        anchors = dict.fromkeys((_cause_kind(member, judged), member[1].since) for member in waiting)
        found = [
            ([one for one in waiting if _belongs(one, *anchor, judged, calendar)], anchor[1]) for anchor in anchors
        ]
        group, since = max(found, key=lambda one: (len(one[0]), -one[1].timestamp()))
        groups.append(sorted(group, key=lambda one: one[1].since != since))
        taken = {id(one) for one in group}
        waiting = [one for one in waiting if id(one) not in taken]
    return sorted(groups, key=lambda group: group[0][1].since)


def _cause_kind(member: _Member, judged: Sequence[Judged]) -> tuple[str, bool, str]:
    """Return what findings of one cause share: kind, whether the machine did it, and that machine."""
    number, finding = member
    of_machine = finding.state in PER_MACHINE
    machine = judged[number].series.key.machine if of_machine else ""
    return _kind(finding), finding.state is State.MACHINE, machine


def _belongs(
    member: _Member, kind: tuple[str, bool, str], since: datetime, judged: Sequence[Judged], calendar: Calendar
) -> bool:
    """Return whether a finding is of a kind and may have begun within its reach of a night."""
    if _cause_kind(member, judged) != kind:
        return False
    return _is_near(member[1], since, _reach(kind[0]), calendar)


def _is_near(finding: Finding, since: datetime, reach: float, calendar: Calendar) -> bool:
    """Return whether a finding may have begun within so many nights of a time; a creeping one began on its night."""
    number = calendar.number
    if finding.shape is Shape.CREEP:
        return abs(number(finding.since) - number(since)) <= reach
    return number(finding.first) - reach <= number(since) <= number(finding.last) + reach


def _reach(kind: str) -> float:
    """Return by how many nights findings with one cause differ: noisy nights are noticed late."""
    return bursts.NIGHTS if kind == State.NOISY else NEAR + 0.5


def _kind(finding: Finding) -> str:
    return finding.state if finding.step is None else CREEP if finding.shape is Shape.CREEP else LEVEL


def _with_controls(judged: Sequence[Judged], groups: Sequence[Sequence[_Member]], names: Sequence[str]) -> list[Judged]:
    """Return the series with the changes that their machine's controls share marked as the machine's."""
    causes: dict[tuple[int, Finding], str] = {}
    for group in groups:
        why: dict[str, str] = {}
        for number, finding in group:
            one = judged[number].series
            if finding.state not in LEVELS:
                continue
            if one.key.machine not in why:
                why[one.key.machine] = _moved_controls(one.key.machine, finding, judged, names)
            if text := why[one.key.machine] or (f"{names[number]} never changes" if one.control else ""):
                causes[number, finding] = text
    found = []
    for number, each in enumerate(judged):
        marked = [_of_machine(finding, causes.get((number, finding))) for finding in each.findings]
        found.append(each if marked == [*each.findings] else restated(each, marked))
    return found


def _of_machine(finding: Finding, why: str | None) -> Finding:
    return finding if why is None else replace(finding, state=State.MACHINE, why=why)


def _moved_controls(machine: str, finding: Finding, judged: Sequence[Judged], names: Sequence[str]) -> str:
    """Return which controls of a machine changed in the same nights, "" if none did."""
    controls = [
        (one, name)
        for one, name in zip(judged, names, strict=True)
        if one.series.control and one.series.key.machine == machine
    ]
    p = (CONTROL_CREEP_P if finding.shape is Shape.CREEP else CONTROL_P) / max(len(controls), 1)
    for one, name in controls:
        if (change := moved_at(one, finding, p)) is not None:
            return f"a control moved, too: {name} {ratio_text(change)}"
    return ""


def moved_at(control: Judged, finding: Finding, p: float) -> Change | None:
    """Return the change of a control at the nights of a finding; None if it did not move.

    Its nights are compared at a known place, so a p-value of a per cent is enough. It moves in the same direction, by
    at least half of the least change that is told.
    """
    nights, noise = control.course.nights, control.course.noise
    at = [control.series.points[place].at for place in nights.places]
    cut = sum(one < finding.since for one in at)
    edges = [nights.start, *(step.night for step in control.course.told if step.night > nights.start), len(at)]
    begin = max((one for one in edges if one < cut - NEAR), default=nights.start)
    end = min((one for one in edges if one > cut + NEAR), default=len(at))
    left, right = (
        nights.values[max(begin, cut - CONTROL_NIGHTS) : cut],
        nights.values[cut : min(end, cut + CONTROL_NIGHTS)],
    )
    if finding.shape is Shape.CREEP:
        left, right = nights.values[cut : cut + 2 * POLICY.window], nights.values[-POLICY.window :]
    if len(left) < LEAST or len(right) < 1 or nights.start > cut:
        return None
    change, chance = shift(left, right, nights.scale, noise.inflation)
    size = POLICY.least(nights.scale) / 2
    if finding.step is not None and finding.step.change.scale is nights.scale:
        size = max(size, CONTROL_SHARE * abs(finding.step.change.at))
    worse = (change.at > 0) == (control.series.better == "lower")
    same = worse == (finding.state is State.REGRESSED)
    return change if chance <= p and abs(change.at) >= size and same else None


def _alert(members: Sequence[_Member], judged: Sequence[Judged], names: Sequence[str]) -> Alert:
    """Return the alert of findings with one cause: of the worst state among them, led by its largest change."""
    state = min((finding.state for _, finding in members), key=list(State).index)
    number, lead = max((one for one in members if one[1].state is state), key=lambda one: _weight(one[1]))
    one = judged[number].series
    series = tuple(dict.fromkeys(identity(judged[place].series.key) for place, _ in members))
    same = [one for one in members if one[1].state is state]
    return Alert(
        state,
        lead.shape.value if lead.shape is not None else "",
        same[0][1].since,
        (lead.first, lead.last),
        series,
        _title(lead, names[number], len({place for place, _ in same}), len(series)),
        _cause(lead, one),
        None if lead.step is None else lead.step.change,
        suspects(one, lead) if lead.state in LEVELS else (),
        lead=identity(one.key),
        machine=one.key.machine if state in PER_MACHINE else "",
    )


def _weight(finding: Finding) -> float:
    return abs(finding.step.change.at) if finding.step is not None else 0.0


def _title(lead: Finding, name: str, same: int, number: int) -> str:
    """Return what changed how. same: Number of series in the state of the first, of `number` in all."""
    more = f" and {same - 1} more" if same > 1 else ""
    others = f"; {number - same} changed otherwise" if number > same else ""
    size = f" {ratio_text(lead.step.change)}" if lead.step is not None else ""
    how = " little by little" if lead.shape is Shape.CREEP else ""
    return f"{name}{more}: {lead.state}{size}{how}{others}"


def _cause(lead: Finding, series: Series) -> str:
    """Return what is known to have changed between the nights of a change, or what a finding itself says."""
    if lead.step is None or lead.state is State.MACHINE:
        return lead.why
    if lead.shape is Shape.CREEP:
        return "many small changes, each too small to be told"
    before = max((point.at for point in series.points if usable(point) and point.at < lead.first), default=lead.first)
    events = [one for one in series.events if before < one.at <= lead.last and one.kind not in ("note", "release")]
    return "; ".join(f"{one.kind}: {one.text}" for one in events)


def suspects(series: Series, finding: Finding) -> tuple[tuple[str, str, str], ...]:
    """Return the labels that differ from the last night before a change to the first night after it could begin.

    Nights without a usable number are neither: the change may lie in their versions.
    """
    points = [point for point in series.points if usable(point)]
    before = [point for point in points if point.at < finding.first]
    after = [point for point in points if point.at >= finding.last]
    if not before or not after:
        return ()
    good, bad = before[-1], after[0]
    if finding.shape is Shape.CREEP:
        good, bad = next((p for p in points if p.at >= finding.since), good), points[-1]
    names = dict.fromkeys([*bad.labels, *good.labels])
    order = sorted(names, key=lambda name: name != "commit")
    return tuple(
        (name, good.labels.get(name, ""), bad.labels.get(name, "")) for name in order if _differ(good, bad, name)
    )


def _differ(one: Point, other: Point, name: str) -> bool:
    return one.labels.get(name) != other.labels.get(name)


def _settled(
    group: Sequence[_Member],
    alert: Alert,
    judged: Sequence[Judged],
    told: Sequence[Told],
    margins: Sequence[Margin],
    confirm: Confirm | None,
    calendar: Calendar,
) -> Alert | None:
    """Return an alert with: was it told, is it confirmed, does it fail. None if it is not certain enough to be told.

    A finding that needs a confirmation, and has none, is not told. An alert that fails is told again if what was told
    before did not: a number that gates may be certain later than another one.
    """
    before = [
        [one for one in told if knows(one, finding, identity(judged[number].series.key), calendar)]
        for number, finding in group
    ]
    if all(before):
        known = (one.confirmed for found in before for one in found if one.confirmed is not None)
        confirmed = next(known, None)
    else:
        confirmed = confirm(alert) if confirm is not None and alert.state in LEVELS else None
    if all(finding.lacks for _, finding in group) and not confirmed:
        return None
    fails = alert.state is State.REGRESSED and any(_beyond(judged[one], finding, margins) for one, finding in group)
    was_told = all(before) and (not fails or any(one.failed for found in before for one in found))
    return replace(alert, told=was_told, confirmed=confirmed, fails=fails)


def knows(told: Told, finding: Finding, name: str, calendar: Calendar) -> bool:
    """Return whether a finding of a series was told before.

    A change of the level was if any was told near where it may lie, of any series. A regression is told even if an
    improvement of the same nights was, or another machine changed. A step within a creeping change of the series that
    was told belongs to it, and the other way around.
    """
    kind, number = _kind(finding), calendar.number
    near = _is_near(finding, told.since, _reach(kind), calendar)
    if told.kind == LEVEL and kind == LEVEL:
        elsewhere = told.state is State.MACHINE and finding.state is not State.MACHINE and name not in told.series
        return near and not elsewhere and not (finding.state is State.REGRESSED and told.state is State.IMPROVED)
    if told.kind == CREEP and kind == LEVEL:
        return name in told.series and told.since <= finding.since <= told.at
    if told.kind == LEVEL and kind == CREEP:
        return name in told.series and number(told.since) > number(finding.since) + NEAR + 0.5
    if told.kind == CREEP and kind == CREEP:
        joins = near and number(finding.last) - number(told.at) <= JOINS_NIGHTS
        return joins or (name in told.series and finding.since <= told.at)
    return near and told.state is finding.state and (name in told.series or finding.state not in PER_MACHINE)


def _gates(one: Judged, margins: Sequence[Margin]) -> bool:
    return any(_names(margin, one.series.key) for margin in margins)


def _names(margin: Margin, key: Key) -> bool:
    same = (margin.metric, margin.statistic) == (key.metric, key.statistic)
    return same and margin.class_name in (key.class_name or "all",)


def _beyond(one: Judged, finding: Finding, margins: Sequence[Margin]) -> bool:
    """Return whether a finding is a regression to tell, beyond a margin that names its series if there are margins."""
    if finding.state is not State.REGRESSED or finding.lacks not in ("", NEEDS_CONFIRMATION):
        return False
    step = finding.step
    return not margins or any(
        step is not None and (step.change.value - margin.worse) * (1 if margin.more_is_worse else -1) > 0
        for margin in margins
        if _names(margin, one.series.key)
    )


def _with_certain(one: Judged, findings: Sequence[Finding]) -> Judged:
    """Return a series whose confirmed findings lack nothing."""
    lacking = [finding for finding in findings if finding.lacks]
    if not lacking:
        return one
    return restated(one, [replace(each, lacks="") if each in lacking else each for each in one.findings])


def _with_confirmation(one: Judged, disproved: Sequence[Finding]) -> Judged:
    """Return a series as noisy if its state tells of changes that all were disproved."""
    current = [finding for finding in one.findings if finding.current and not finding.lacks and finding.state in LEVELS]
    if one.state not in LEVELS or not all(finding in disproved for finding in current):
        return one
    return replace(one, state=State.NOISY, why="both builds measured in turns do not differ")


def ratio_text(change: Change) -> str:
    """Return a change with its 95 % interval, as "+5.2 % [+4.0, +6.4]"."""
    share = change.scale is Scale.DIFFERENCE
    ends = (change.value, *change.interval(BOTH_ENDS))
    texts = ["?" if not math.isfinite(one) else f"{100 * (one if share else one - 1):+.1f}" for one in ends]
    return f"{texts[0]} {'points' if share else '%'} [{texts[1]}, {texts[2]}]"
