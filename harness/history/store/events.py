"""Events of a series: what is known to have changed between two nights, and from which night on numbers compare."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.history.series import Event
from harness.history.store.night import Night, Row, Setup, digest

PLAN, METHOD, MACHINE, VERSION, RELEASE, NOTE = "plan", "method", "machine", "version", "release", "note"
NO_RESET = ("kernel",)
"""Facts of the machine whose change is told, but after which earlier nights still count: systems are updated often."""
_MOST_TOLD = 4


@dataclass(slots=True)
class _Known:
    """Last known facts: what one night does not say has not changed."""

    plans: dict[str, str] = field(default_factory=dict)
    setup: dict[str, str] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    method: int | None = None
    release: str = ""


def events_of(
    nights: Sequence[tuple[Night, Row]], release: str, *, control: bool = False
) -> tuple[list[Event], list[int], list[str]]:
    """Return the events, the resets, and the plan of each night.

    Args:
        nights: Nights of a series, oldest first.
        release: Key of the label that names a release.
        control: Whether the series is of something that never changes. If its version or options change, it did.

    The plan of a night is that of the night before if they share one: a repetition that failed changes no plan.
    """
    known, events, resets, plans = _Known(), list[Event](), list[int](), list[str]()
    before: tuple[Night, Row] | None = None
    for place, (night, row) in enumerate(nights):
        if before is not None and _alike(before, (night, row)):
            plans.append(plans[-1])
        else:
            same_plan = _same_plan(known, row.setup.plan)
            found = [] if same_plan else [(Event(night.at, PLAN, "the requests changed"), True)]
            found += [*_changes(known, night, row.setup)]
            events += [event for event, _ in found]
            if place and any(resets_it or (control and event.kind == VERSION) for event, resets_it in found):
                resets.append(place)
            plans.append(plans[-1] if same_plan and any(plans[-1:]) else _plan_id(row.setup.plan))
        events += _release(known, night, release)
        before = night, row
    return events, resets, plans


def _alike(one: tuple[Night, Row], other: tuple[Night, Row]) -> bool:
    """Return whether nothing that is compared differs: the usual case, found out quickly."""
    (night, row), (later, row_later) = one, other
    return row.setup == row_later.setup and night.method == later.method and night.state == later.state


def _same_plan(known: _Known, text: str) -> bool:
    """Return whether a plan is the known one in every repetition that both have; remember it."""
    plans = dict(part.split(":", 1) for part in text.split() if ":" in part)
    shared = [repetition for repetition in plans if repetition in known.plans]
    same = all(plans[one] == known.plans[one] for one in shared) and (bool(shared) or not (plans and known.plans))
    known.plans = {**known.plans, **plans} if same else plans
    return same


def _plan_id(text: str) -> str:
    """Return one name for the plans of all repetitions; "" if they are unknown."""
    return digest(text)[:12] if text else ""


def _changes(known: _Known, night: Night, setup: Setup) -> Iterator[tuple[Event, bool]]:
    """Yield what changed since the last night that says so, and whether earlier nights are no measure any more."""
    if known.method not in (None, night.method):
        yield Event(night.at, METHOD, f"method {known.method} → {night.method}"), True
    known.method = night.method
    for name, kind, what in (
        ("slo", METHOD, "SLO"),
        ("clock", METHOD, "clock"),
        ("driver", METHOD, "driver of the load"),
    ):
        if told := _told(known.setup, name, getattr(setup, name), what):
            yield Event(night.at, kind, told), True
    if told := _told(known.setup, "weights", setup.weights, "weights"):
        yield Event(night.at, PLAN, told), True
    states = [(name, _told(known.state, name, value, name)) for name, value in night.state.items()]
    if changed := [(name, told) for name, told in states if told]:
        yield (
            Event(night.at, MACHINE, _listed([told for _, told in changed])),
            any(n not in NO_RESET for n, _ in changed),
        )
    under_test = [_told(known.setup, "version", setup.version, ""), _told(known.setup, "options", setup.options, "")]
    if any(under_test):
        yield Event(night.at, VERSION, _listed([told for told in under_test if told])), False


def _told(known: dict[str, str], name: str, now: str, what: str) -> str:
    """Return how a fact changed, "" if it did not or one side is unknown; remember it."""
    before = known.get(name, "")
    if not now or now == before:
        return ""
    known[name] = now
    if not before:
        return ""
    if now[:1] in "{[" and before[:1] in "{[":
        return _listed(_inner(_plain(before), _plain(now), what))
    return f"{what} {before} → {now}".strip()


def _plain(text: str) -> Any:
    return json.loads(text)


def _inner(before: Any, now: Any, what: str) -> list[str]:
    """Return which values differ inside of stored options or of an SLO."""
    one, other = (_flat(value) for value in (before, now))
    names = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    return [f"{what} {name} {_value(one.get(name))} → {_value(other.get(name))}".strip() for name in names]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for key, one in value.items() for k, v in _flat(one, f"{name}.{key}".strip(".")).items()}
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return {k: v for one in value for k, v in _flat(one, name).items()}
    return {name: value}


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _MOST_TOLD
    return ", ".join(texts[:_MOST_TOLD]) + (f" and {more} more" if more > 0 else "")


def _release(known: _Known, night: Night, release: str) -> Iterator[Event]:
    name = night.labels.get(release, "")
    if name and name != known.release:
        yield Event(night.at, RELEASE, name)
        known.release = name
