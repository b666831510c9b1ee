"""Held-out points: what `--validate` may name, and the scenario that measures one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.capacity.held_out import ALL, HeldOut, Kind, is_point, points_of, scenario_of
from harness.capacity.measured import Candidate
from harness.errors import UsageError
from harness.scenario.model import Scenario
from harness.store.manifest import Manifest
from tests.fabricated import cell_entry, trial_entry
from tests.planned import candidate

LENGTHS = {"dist": "fixed", "value": 20, "min": 1, "exact": True}
GIVEN: dict[str, Any] = {
    "name": "chat",
    "engines": [{"engine": "simulated"}],
    "workload": {"prompt_tokens": 32, "output_tokens": LENGTHS},
    "load": [
        {"kind": "sustained", "rate": 4.0, "duration": "60s", "name": "low"},
        {"kind": "sustained", "rate": 5.5, "duration": "60s", "warmup": "5s", "timeout": "30s"},
    ],
    "slo": {"ttft": "500ms"},
    "seed": 7,
}


def measured(**scenario: Any) -> Candidate:
    """A candidate that holds 5.5 requests/s by the second load of its scenario."""
    cell = cell_entry(trials=[trial_entry(index=1, load="rate-5.5")])
    made = Manifest.model_validate({"scenario": GIVEN | scenario, "name": "chat", "cells": [cell]})
    return replace(candidate(), manifest=made)


def changed(text: str, rate_rps: float | None = 6.0, **scenario: Any) -> dict[str, Any]:
    """The scenario of a point."""
    (point,) = points_of(text)
    return scenario_of(point, measured(**scenario), rate_rps)


def test_a_point_says_what_differs_from_the_measurement() -> None:
    """Each key once, in any order; what is not said stays as measured."""
    assert points_of("rate=1.15") == [HeldOut("rate=1.15", 1.15)]
    assert points_of("rate=search, for=10m")[0] == HeldOut("rate=search, for=10m", None, seconds=600.0)
    kinds = [points_of(text)[0].kind for text in ("rate=2", "cv=2", "output=0.8", "replicas=2,url=http://a:1,cv=2")]
    assert kinds == [Kind.RATE, Kind.BURSTINESS, Kind.MIX, Kind.REPLICAS]
    assert [point.text for point in points_of("all")] == [*ALL]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate=fast", "`rate` is a number from 0.05 to 2, or `search`, such as `rate=1.15`"),
        ("rate=1,rate=2", "write KEY=VALUE once for each of rate, cv, output, replicas, url and for"),
        ("rate=1,users=4", "write KEY=VALUE once for each of"),
        ("output=0", "`output` is a number from 0.5 to 2, such as"),
        ("cv=inf", "`cv` is a number from 0.05 to 20"),
        ("replicas=two,url=http://a:1", "`replicas` is a whole number"),
        ("replicas=2", "several replicas have a balancer; add its address"),
        ("rate=search,cv=2", "the largest rate of burstier arrivals is not predicted; leave `cv` or `rate=search` out"),
        ("rate=1,for=5", "`for`: 5 has no unit"),
    ],
)
def test_what_is_no_point_is_refused_in_a_sentence(text: str, message: str) -> None:
    """With what to write instead."""
    with pytest.raises(UsageError, match="--validate") as refused:
        points_of(text)
    assert message in str(refused.value)


def test_runs_and_points_are_told_apart() -> None:
    """RUN=N stays what it was."""
    assert [is_point(text) for text in ("all", "rate=2", "replicas=2,url=x", "pair=2", "runs/rate=2")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_a_point_is_measured_by_the_same_scenario_with_another_load_and_seed() -> None:
    """A scenario that is valid, with the SLO, the warm-up and the time-out as they were."""
    found = changed("rate=1.15")
    (load,) = found["load"]
    assert load == {"kind": "sustained", "rate": 6.0, "duration": "60s", "warmup": "5s", "timeout": "30s"}
    assert (found["slo"], found["name"]) == ({"ttft": "500ms"}, "chat-held-out")
    assert len({GIVEN["seed"], *(changed(text)["seed"] for text in ("rate=1.15", "rate=0.85", "cv=2"))}) == 4
    for text in ("rate=1", "cv=2", "output=1.2", "rate=search", "replicas=2,url=http://127.0.0.1:9,for=10s"):
        Scenario.model_validate(changed(text, None if "search" in text else 6.0))


def test_a_point_that_is_measured_again_has_other_arrivals() -> None:
    """The same ones would tell nothing new."""
    (point,), one = points_of("rate=1.15"), measured()
    seeds = {scenario_of(point, one, 6.0, earlier)["seed"] for earlier in range(3)}
    assert len(seeds | {GIVEN["seed"]}) == 4
    assert scenario_of(point, one, 6.0)["seed"] in seeds


def test_what_the_point_asks_for_is_in_its_load() -> None:
    """Burstiness, its own length, a search."""
    (bursty,) = changed("cv=2,for=10s")["load"]
    assert (bursty["arrivals"], bursty["cv"], bursty["duration"]) == ("gamma", 2.0, "10s")
    (search,) = changed("rate=search,for=10m", None)["load"]
    assert search == {"kind": "saturate", "within": "600s", "timeout": "30s"}


def test_the_lengths_of_the_load_are_those_of_the_point() -> None:
    """They stand in the workload, where a search has them, too; longer replies are longer than these."""
    prompts, replies = {"dist": "fixed", "value": 512}, {"dist": "fixed", "value": 100}
    loads = [{**one, "prompt_tokens": prompts, "output_tokens": replies} for one in GIVEN["load"]]
    own: dict[str, Any] = {"prompt_tokens": prompts, "output_tokens": {**replies, "exact": True}}
    trial = trial_entry(index=1, load="rate-5.5", workload=own)
    made = Manifest.model_validate({"scenario": GIVEN | {"load": loads}, "cells": [cell_entry(trials=[trial])]})
    one = replace(candidate(), manifest=made)
    for text, tokens in (("rate=search", 100), ("output=1.2", 120)):
        (point,) = points_of(text)
        found = scenario_of(point, one, None if text == "rate=search" else 6.0)
        assert found["workload"]["prompt_tokens"] == prompts
        assert found["workload"]["output_tokens"] == own["output_tokens"] | {"value": tokens}
        assert not {"prompt_tokens", "output_tokens"} & found["load"][0].keys()
        Scenario.model_validate(found)


def test_a_search_is_checked_by_a_constant_rate() -> None:
    """As long as its own measurement."""
    load = {"kind": "saturate", "within": "15m", "measure": "90s", "first_rate": 1, "arrivals": "poisson"}
    (found,) = changed("rate=0.85", load=[load, load])["load"]
    assert found == {"kind": "sustained", "rate": 6.0, "duration": "90s", "warmup": "10s", "arrivals": "poisson"}


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (LENGTHS, LENGTHS | {"value": 24}),
        ({"dist": "lognormal", "mean": 100, "sigma": 0.5, "min": 1}, {"mean": 120, "sigma": 0.5, "min": 1}),
        ({"dist": "uniform", "min": 10, "max": 20}, {"min": 12, "max": 24}),
        ({"dist": "empirical", "values": [10, 20], "weights": [1, 2]}, {"values": [12, 24], "weights": [1, 2]}),
    ],
)
def test_longer_replies_have_the_same_shape(lengths: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every length is multiplied, spread and weights stay."""
    found = changed("output=1.2", workload={"output_tokens": lengths})["workload"]["output_tokens"]
    assert {key: found[key] for key in expected} == expected


def test_replicas_are_reached_by_their_address() -> None:
    """A measured server keeps its dialect; another engine is replaced."""
    text = "replicas=2,url=http://127.0.0.1:9"
    assert changed(text)["engines"] == [{"engine": "http", "url": "http://127.0.0.1:9"}]
    server = {"engine": "http", "url": "http://127.0.0.1:1", "dialect": "tgi"}
    assert changed(text, engines=[server])["engines"] == [server | {"url": "http://127.0.0.1:9"}]


def test_scenarios_that_cannot_be_changed_are_refused() -> None:
    """Lengths of classes, loads of an engine, and a load without a length in time."""
    with pytest.raises(UsageError, match="`output` needs a single"):
        changed("output=1.2", classes={"chat": {"output_tokens": 10}})
    with pytest.raises(UsageError, match="has loads of its own"):
        changed("rate=1", load=[])
    with pytest.raises(UsageError, match="has no `duration`; add one, such as `for=5m`"):
        changed("rate=1", load=[{}, {"kind": "sustained", "rate": 5.5, "requests": 100}])
