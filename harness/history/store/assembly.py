"""Assembly of the series from nights, notes and settings; pure, and the same in whatever order they were stored."""

from __future__ import annotations

from collections.abc import Sequence

from harness.history.series import Key, Point, Series
from harness.history.store.events import events_of
from harness.history.store.night import Night, Row, What, newest
from harness.history.store.notes import Note, key_facts
from harness.history.store.settings import Settings
from harness.metrics import METRICS, Direction

_Group = tuple[str, str, str, What]


def assembled(nights: Sequence[Night], notes: Sequence[Note], settings: Settings) -> list[Series]:
    """Return all series, by their names. Only those of the settings' metrics, if these name some."""
    groups: dict[_Group, list[tuple[Night, Row]]] = {}
    for night in newest(nights):
        for row in night.rows:
            groups.setdefault((night.scenario, night.machine, night.tool, row.what), []).append((night, row))
    wanted = settings.selection
    found = [
        _series(group, own, notes, settings)
        for group, own in groups.items()
        if not wanted or (group[3].metric, group[3].statistic) in wanted
    ]
    return sorted(found, key=lambda one: _order(one.key))


def _series(group: _Group, nights: Sequence[tuple[Night, Row]], notes: Sequence[Note], settings: Settings) -> Series:
    scenario, machine, tool, what = group
    key = Key(scenario=scenario, machine=machine, tool=tool, **what._asdict())
    facts = key_facts(key)
    control = any(one.fits(facts) for one in settings.controls)
    events, resets, plans = events_of(nights, settings.release, control=control)
    points = tuple(_point(night, row, plan) for (night, row), plan in zip(nights, plans, strict=True))
    events += [note.event(points) for note in notes if note.is_about(facts)]
    return Series(
        key=key,
        better=better(what.metric),
        points=points,
        events=tuple(sorted(events, key=lambda one: (one.at, one.kind, one.text))),
        control=control,
        resets=tuple(resets),
    )


def better(metric: str) -> str:
    """Return which way a metric improves: "lower" or "higher"; "lower" for one that this version does not know."""
    known = METRICS.get(metric)
    return "higher" if known is not None and known.direction is Direction.HIGHER else "lower"


def _point(night: Night, row: Row, plan: str) -> Point:
    return Point(
        at=night.at,
        value=row.value,
        low=row.low,
        high=row.high,
        starts=row.starts,
        labels=night.labels,
        run=night.run,
        plan=plan,
        method=night.method,
        doubt=row.doubt,
    )


def _order(key: Key) -> tuple[str, ...]:
    """Return the order of the list: by configuration and load, then by metric as a report lists them."""
    names = [*METRICS]
    place = names.index(key.metric) if key.metric in METRICS else len(names)
    where = (key.scenario, key.tool, key.machine, key.model, key.engine, key.level, key.variant, key.load)
    return (*where, key.class_name, f"{place:04}", key.metric, key.statistic)
