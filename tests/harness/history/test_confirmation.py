"""Confirmation: the gate that measures the builds on both sides of a change, from the scenario of a night."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from harness.comparison.change import Change
from harness.history.board import Alert
from harness.history.confirmation import gate_options, scenario_text
from harness.history.detector.states import State
from harness.scenario.margins import Scale
from harness.scenario.model import Scenario
from harness.scenario.reader import load_text
from tests.histories import KEY, night, series

LEAD = series([20.0, 22.0], engine="http", model="", level="", metric="tpot_ms", statistic="p50")
ALERT = Alert(
    State.REGRESSED,
    "step",
    night(1),
    (night(1), night(1)),
    (),
    "slower",
    change=Change(Scale.RATIO, 0.0953, 0.01, 0.01),
    suspects=(("commit", "old", "1e3"), ("release", "1.0", "1.1")),
)
COMMAND = "out/{label.commit}/serve {port}"


def scenario(**engine: Any) -> Scenario:
    """A scenario with two loads of one engine."""
    block = "".join(f", {name}: {value!r}" for name, value in engine.items())
    loads = "[{kind: single_user, requests: 9, name: chat}, {kind: single_user, requests: 5, name: other}]"
    text = f"labels: {{commit: new}}\nengines: [{{engine: http{block}}}]\nload: {loads}\n"
    return load_text(text, "night.yaml")


def test_both_builds_are_started_by_the_label_in_the_command() -> None:
    """With half of the least change as margin; a label that the command does not name stays as it is."""
    options = gate_options(ALERT, LEAD, scenario(command=COMMAND))
    assert options == [
        *("--base-set", 'labels.commit="old"', "--set", 'labels.commit="1e3"', "--only", "engine=http"),
        *("--fail-on", "tpot_ms p50 +3.86%"),
    ]


def test_an_improvement_is_confirmed_the_other_way_around() -> None:
    """So that the gate fails where it is there."""
    change = Change(Scale.RATIO, -0.105, 0.01, 0.01)
    options = gate_options(replace(ALERT, state=State.IMPROVED, change=change), LEAD, scenario(command=COMMAND))
    assert options[:4] == ["--base-set", 'labels.commit="1e3"', "--set", 'labels.commit="old"']


def test_a_large_improvement_is_within_reach_of_its_gate() -> None:
    """Three times as many is a third seen from the other side: the margin is a share below 100 %."""
    lead = series([20.0, 60.0], engine="http", metric="output_tokens_per_s", statistic="value", better="higher")
    change = Change(Scale.RATIO, math.log(3), 0.01, 0.01)
    options = gate_options(replace(ALERT, state=State.IMPROVED, change=change), lead, scenario(command=COMMAND))
    name, size = options[-1].split(" -")
    assert name == "output_tokens_per_s"
    assert float(size.removesuffix("%")) == pytest.approx(100 * (1 - 3**-0.5), abs=1.0)


def test_variants_named_as_the_labels_are_builds() -> None:
    """Then the older one is the baseline."""
    variants = {"1.0": {"url": "http://127.0.0.1:1"}, "1.1": {"url": "http://127.0.0.1:2"}}
    options = gate_options(ALERT, LEAD, scenario(variants=variants))
    assert options[:4] == ["--against", "1.0", "--only", "engine=http,variant=1.1"]


@pytest.mark.parametrize(
    ("alert", "command"),
    [
        (ALERT, "serve {port}"),
        (replace(ALERT, suspects=(("commit", "", "new"),)), COMMAND),
        (replace(ALERT, change=None), COMMAND),
        (replace(ALERT, change=Change(Scale.DIFFERENCE, 0.1, 0.01, 0.01)), COMMAND),
    ],
)
def test_without_both_builds_there_is_no_gate(alert: Alert, command: str) -> None:
    """Nor where one has no label, or the change cannot be said as a margin."""
    assert gate_options(alert, LEAD, scenario(command=command)) == []


def test_the_scenario_of_a_gate_has_the_load_of_the_series() -> None:
    """It can be read again."""
    text = scenario_text(scenario(command="sh -c 'echo $${HOME}; out/{label.commit} {port}'"), LEAD.key)
    again = load_text(text, "night.yaml")
    assert [load.name for load in again.load] == ["chat"]
    assert again.engines[0].command == "sh -c 'echo ${HOME}; out/{label.commit} {port}'"
    every = load_text(scenario_text(scenario(command=COMMAND), replace(KEY, load="gone")), "night.yaml")
    assert len(every.load) == 2
