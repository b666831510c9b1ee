"""Limits that nobody could check are told when the scenario is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import ScenarioError
from harness.scenario.reader import load

MIXED = {"kind": "mixed", "users": 2, "requests": 10}
ALONE = {"kind": "single_user", "requests": 10}
CLASSES = {"chat": {"weight": 1}, "long": {"weight": 1}}
NO_SLO = "`attainment` needs an `slo`; write for example `slo: {ttft: 500ms}`"


def told(tmp_path: Path, **keys: Any) -> list[str]:
    """The problems of a scenario, without its path."""
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"engines": [{"engine": "simulated"}], "load": [ALONE], **keys}))
    try:
        load(path)
    except ScenarioError as error:
        return [f"{one.key}: {one.message}" for one in error.problems]
    return []


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"limits": ["attainment >= 95%"]}, f"limits.0: {NO_SLO}"),
        ({"limits": ["ttft_ms p95 <= 1s", "attainment >= 1%"]}, f"limits.1: {NO_SLO}"),
        ({"load": [ALONE | {"limits": ["attainment >= 95%"]}]}, f"load.0.limits.0: {NO_SLO}"),
        (
            {"classes": CLASSES, "load": [MIXED], "limits": ["chat.attainment >= 95%"]},
            f"limits.0: {NO_SLO}",
        ),
        (
            {"classes": CLASSES, "limits": ["chat.ttft_ms p95 <= 1s"]},
            "limits.0: no load here has the class `chat`; write `kind: mixed`, or leave `chat.` out",
        ),
        (
            {"classes": CLASSES, "load": [MIXED, ALONE | {"limits": ["chat.ttft_ms p95 <= 1s"]}]},
            "load.1.limits.0: no load here has the class `chat`; write `kind: mixed`, or leave `chat.` out",
        ),
        (
            {"limits": ["kl_mean <= 0.1"]},
            "limits.0: `kl_mean` needs `quality`; write `quality: {}`",
        ),
        (
            {"limits": ["ttft_ms p95 <= 1.1 * base"]},
            "limits.0: `simulated` has no `variants`, and so no `base`; add them, or write a number",
        ),
        (
            {
                "engines": [{"engine": "simulated", "variants": {"base": {}, "head": {"ttft_ms": 60}}}],
                "limits": ["ttft_ms p95 <= 1.1 * bse"],
            },
            "limits.0: `simulated` has no variant `bse`; did you mean `base`?",
        ),
    ],
)  # fmt: skip
def test_what_could_never_be_known_is_refused(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    """At the limit's place, with the fix."""
    assert told(tmp_path, **keys) == [problem]


@pytest.mark.parametrize(
    "keys",
    [
        {"limits": ["attainment >= 95%"], "slo": {"ttft": "500ms"}},
        {"limits": ["attainment >= 95%"], "load": [ALONE | {"slo": {"ttft": "500ms"}}]},
        {"classes": CLASSES, "load": [MIXED, ALONE], "limits": ["chat.ttft_ms p95 <= 1s"]},
        {
            "classes": {"chat": {"weight": 1, "slo": {"ttft": "500ms"}}, "long": {"weight": 1}},
            "load": [MIXED],
            "limits": ["chat.attainment >= 95%", "attainment >= 50%"],
        },
        {
            "engines": [{"engine": "simulated", "variants": {"base": {}, "head": {"ttft_ms": 60}}}],
            "limits": ["ttft_ms p95 <= 1.1 * base", "output_tokens_per_s >= 0.9 * base"],
            "limits_confidence": "95%",
        },
        {"limits": ["kl_mean <= 0.1"], "quality": {}},
    ],
)
def test_what_can_be_known_is_allowed(tmp_path: Path, keys: dict[str, Any]) -> None:
    """A class, an SLO or a variant that the trials have."""
    assert told(tmp_path, **keys) == []


def test_confidence_is_that_of_the_intervals(tmp_path: Path) -> None:
    """No other share has an interval."""
    (problem,) = told(tmp_path, limits_confidence="90%")
    assert problem.startswith("limits_confidence: must be `95%`, found '90%'")


def test_a_search_needs_an_slo_of_the_scenario_or_of_a_class(tmp_path: Path) -> None:
    """It sends the classes, and a limit on one of them is judged on its measurement."""
    search = [{"kind": "saturate"}]
    assert told(tmp_path, load=search, classes=CLASSES) == [
        "load.0: `kind: saturate` needs an `slo` to keep; write for example `slo: {ttft: 500ms}`"
    ]
    slo = {"chat": {"slo": {"ttft": "200ms"}}, "long": {}}
    assert told(tmp_path, load=search, classes=slo, limits=["chat.ttft_ms p95 <= 1s"]) == []


def test_a_search_is_not_asked_for_all_requests_or_none(tmp_path: Path) -> None:
    """It has no requirement then. A limit of its own replaces the scenario's; other loads may be asked for all."""
    search, slo, every = {"kind": "saturate"}, {"ttft": "500ms"}, "attainment >= 100%"
    message = "no number of requests shows 100 %; write `attainment >= 99.9%`"
    assert told(tmp_path, load=[search], slo=slo, limits=[every]) == [f"limits.0: {message}"]
    assert told(tmp_path, load=[search | {"limits": [every]}], slo=slo) == [f"load.0.limits.0: {message}"]
    assert told(tmp_path, load=[search], slo=slo, limits=["attainment >= 0"]) == [
        "limits.0: every rate keeps it; write `attainment >= 95%`"
    ]
    assert told(tmp_path, load=[search | {"limits": ["attainment >= 99%"]}], slo=slo, limits=[every]) == []
    assert told(tmp_path, load=[ALONE], slo=slo, limits=[every]) == []


def test_a_search_sends_no_requests_that_are_cancelled(tmp_path: Path) -> None:
    """They are neither good nor bad. Other loads may have them."""
    keys = {"slo": {"ttft": "500ms"}, "workload": {"cancel": {"share": 0.1, "after": "2s"}}}
    message = "a search cannot judge requests that are cancelled; leave `cancel` out"
    search = [{"kind": "saturate"}]
    assert told(tmp_path, load=search, **keys) == [f"workload.cancel: {message}"]
    classes = {"chat": {"workload": keys["workload"]}, "long": {}}
    found = told(tmp_path, load=[ALONE, *search], slo=keys["slo"], classes=classes)
    assert found == [f"classes.chat.workload.cancel: {message}"]
    assert told(tmp_path, load=[ALONE], **keys) == []
