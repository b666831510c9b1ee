"""What is known to have changed between two nights, and from which night on numbers compare."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from harness.history.series import Series
from harness.history.store.assembly import assembled
from harness.history.store.night import Night, Setup
from harness.history.store.settings import Settings
from tests.nights import SETUP, night, row, what

USUAL = Settings.model_validate({})
STATE = {"GPU driver": "550", "GPU 0 power_limit_w": "700", "governor": "performance", "kernel": "6.1"}


def series_of(*nights: Night) -> Series:
    """The only series of these nights."""
    (found,) = assembled(nights, [], USUAL)
    return found


def told(series: Series) -> list[tuple[str, str]]:
    """Kind and text of each event."""
    return [(event.kind, event.text) for event in series.events]


@pytest.mark.parametrize(
    ("changed", "kind", "text", "resets"),
    [
        ({"plan": "1:xx 2:bb"}, "plan", "the requests changed", (1,)),
        ({"weights": "w2"}, "plan", "weights w1 → w2", (1,)),
        ({"clock": "loop"}, "method", "clock kernel → loop", (1,)),
        ({"driver": "locust"}, "method", "driver of the load inprocess → locust", (1,)),
        ({"version": "llama-server 2"}, "version", "llama-server 1 → llama-server 2", ()),
        ({"options": '{"n_ctx": 2048, "mmap": true}'}, "version", "n_ctx 1024 → 2048, mmap none → True", ()),
    ],
)
def test_a_change_of_how_it_was_measured_is_an_event(
    changed: dict[str, str], kind: str, text: str, resets: tuple[int, ...]
) -> None:
    """What is measured otherwise is no measure any more; another version of the engine is under test, and is."""
    found = series_of(night(0, 1.0), night(1, row(1.0, setup=SETUP._replace(**changed))))
    assert told(found) == [(kind, text)]
    assert found.events[0].at == found.points[1].at
    assert found.resets == resets


@pytest.mark.parametrize(
    ("state", "text", "resets"),
    [
        ({"GPU driver": "560"}, "GPU driver 550 → 560", (1,)),
        ({"GPU 0 power_limit_w": "500"}, "GPU 0 power_limit_w 700 → 500", (1,)),
        ({"governor": "powersave", "kernel": "6.2"}, "governor performance → powersave, kernel 6.1 → 6.2", (1,)),
        ({"kernel": "6.2"}, "kernel 6.1 → 6.2", ()),
    ],
)
def test_a_change_of_the_machine_is_an_event(state: dict[str, str], text: str, resets: tuple[int, ...]) -> None:
    """Driver, clocks and governor reset a series; a kernel is told, for it may explain a change."""
    found = series_of(night(0, 1.0, state=STATE), night(1, 1.0, state=STATE | state))
    assert told(found) == [("machine", text)]
    assert found.resets == resets


def test_a_new_method_resets_a_series() -> None:
    """Numbers of two definitions do not compare."""
    found = series_of(night(0, 1.0), night(1, 1.0), night(2, 1.0, method=3), night(3, 1.0, method=3))
    assert told(found) == [("method", "method 2 → 3")]
    assert found.resets == (2,)


def test_an_slo_is_the_definition_of_the_numbers_that_count_good_requests() -> None:
    """Another SLO resets these; limits are no part of a series at all."""
    goodput = what("goodput_rps", "value")
    slos = [json.dumps([{"ttft_ms": limit}, {}]) for limit in (500, 400)]
    nights = [night(day, row(1.0, goodput, SETUP._replace(slo=slo))) for day, slo in enumerate(slos)]
    assert told(series_of(*nights)) == [("method", "SLO ttft_ms 500 → 400")]
    assert series_of(*nights).resets == (1,)


def test_what_a_night_does_not_say_has_not_changed() -> None:
    """A reading that failed once is no change there, and none back again."""
    silent = night(1, row(1.0, setup=Setup(plan=SETUP.plan)), state={})
    assert told(series_of(night(0, 1.0), silent, night(2, 1.0))) == []
    other = night(2, row(1.0, setup=SETUP._replace(weights="w2")))
    assert told(series_of(night(0, 1.0), silent, other)) == [("plan", "weights w1 → w2")]


@pytest.mark.parametrize(
    ("plans", "changes"),
    [
        (["1:aa 2:bb", "2:bb", "1:aa 2:bb"], 0),
        (["1:aa", "1:aa 2:bb", "2:bb"], 0),
        (["1:aa", "2:bb"], 1),
        (["1:aa 2:bb", "1:aa 2:cc"], 1),
        (["1:aa", "1:bb", "1:aa"], 2),
        (["", "1:aa", ""], 0),
    ],
)
def test_a_repetition_that_failed_changes_no_plan(plans: list[str], changes: int) -> None:
    """Plans are compared repetition by repetition, and points of equal plans say so."""
    nights = [night(day, row(1.0, setup=SETUP._replace(plan=plan))) for day, plan in enumerate(plans)]
    found = series_of(*nights)
    assert len(found.events) == len(found.resets) == changes
    named = [point.plan for point in found.points]
    assert sum(one != other for one, other in pairwise(named) if one) == changes


def test_a_control_that_changed_is_none_since_the_night_before() -> None:
    """Its version and options are no subject of a test: a step there is not the machine's."""
    nights = [night(0, 1.0), night(1, row(1.0, setup=SETUP._replace(version="llama-server 2")))]
    (found,) = assembled(nights, [], Settings.model_validate({"controls": [{"engine": "llama-server"}]}))
    assert told(found) == [("version", "llama-server 1 → llama-server 2")]
    assert (found.control, found.resets) == (True, (1,))


def test_a_release_is_an_event_where_its_label_changes() -> None:
    """The label's key is the store's."""
    labels: list[dict[str, Any]] = [{"release": "1.0"}, {}, {"release": "1.0"}, {"release": "1.1", "tag": "x"}]
    nights = [night(day, 1.0, labels=one) for day, one in enumerate(labels)]
    found = series_of(*nights)
    assert told(found) == [("release", "1.0"), ("release", "1.1")]
    assert found.resets == ()
    (by_tag,) = assembled(nights, [], Settings.model_validate({"release": "tag"}))
    assert told(by_tag) == [("release", "x")]


def test_many_options_are_told_in_a_line() -> None:
    """The first four, and the number of the others."""
    options = [json.dumps({f"o{number}": value for number in range(9)}) for value in (1, 2)]
    nights = [night(day, row(1.0, setup=SETUP._replace(options=one))) for day, one in enumerate(options)]
    assert told(series_of(*nights)) == [("version", "o0 1 → 2, o1 1 → 2, o2 1 → 2, o3 1 → 2 and 5 more")]


def test_a_change_of_several_things_resets_once() -> None:
    """At the night from which on they hold."""
    changed = replace(night(2, row(1.0, setup=SETUP._replace(plan="1:xx", clock="loop"))), method=3)
    found = series_of(night(0, 1.0), night(1, 1.0), changed)
    assert [kind for kind, _ in told(found)] == ["method", "method", "plan"]
    assert found.resets == (2,)
