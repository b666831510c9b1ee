"""What two scenarios say must match is checked before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from harness.comparison.planned import PlannedSide, check_planned
from harness.errors import UsageError
from harness.scenario.model import Scenario
from harness.schedule.matrix import expand

LOAD = {"kind": "sustained", "rate": 20, "duration": "10s"}


def side(
    name: str, engine: dict[str, Any] | None = None, load: dict[str, Any] | None = None, **keys: Any
) -> PlannedSide:
    """A side that is to be measured; keys replace those of its engine and its load."""
    block = {"engine": "simulated", **(engine or {})}
    scenario = Scenario.model_validate({"engines": [block], "load": [{**LOAD, **(load or {})}], **keys})
    return PlannedSide(name, scenario, expand(scenario, env={}))


def served(model: str | None) -> dict[str, Any]:
    """An engine that is asked for a model by this name, or for the one that it has."""
    named = {} if model is None else {"served_model": model}
    return {"engine": "http", "url": "http://127.0.0.1:8000", "dialect": "openai-chat", **named}


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (side("head", load={"rate": 10}), "load"),
        (side("head", load={"slo": {"ttft": "1s"}}, workload={"prompt_tokens": 9}), "load"),
        (side("head", {"quantization": ["q8_0"]}), "quantization"),
        (side("head", served(None)), "engine"),
        (side("head", model="tiny"), "model"),
    ],
    ids=["rate", "requests", "level", "engine", "model"],
)
def test_what_must_match_is_refused_unless_it_is_meant(head: PlannedSide, kind: str) -> None:
    """With both values, and the option that allows it."""
    with pytest.raises(UsageError, match=f"base and head are not comparable: .* If that is meant, add --across {kind}"):
        check_planned(side("base"), head, ())
    check_planned(side("base"), head, (kind,))


def test_options_and_equal_sides_are_under_test() -> None:
    """They need no word."""
    check_planned(side("base"), side("head"), ())
    check_planned(side("base"), side("head", {"options": {"ttft_ms": 5}}), ())


def test_a_model_that_a_server_will_name_is_not_known_yet() -> None:
    """It differs only if both are asked for one by its name."""
    check_planned(side("base", served(None)), side("head", served("b")), ())
    check_planned(side("base", served("b")), side("head", served("b")), ())
    with pytest.raises(UsageError, match=r"model \(sustained\): a and b"):
        check_planned(side("base", served("a")), side("head", served("b")), ())


def test_sides_without_a_common_load_are_refused() -> None:
    """Both are named with what they have."""
    with pytest.raises(
        UsageError, match="base and head have no load in common: simulated sustained; and simulated other"
    ):
        check_planned(side("base"), side("head", load={"name": "other"}), ())
