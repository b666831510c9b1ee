"""Prompts that an engine knew: counted where a file is too short, warned of where a cache held what it should not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plans import load_of

from harness.analysis.prompt_reuse import SentLines
from harness.scenario.workload import TrafficClass, Workload
from harness.schedule.requests import Schedule, build
from harness.verdict.reason import Level
from tests.fabricated import streamed, trial_of
from tests.judged import judged


def plan_of(folder: Path, lines: int, seed: int = 1, **classes: Any) -> Schedule:
    """A load over a file of prompts."""
    path = folder / f"{lines}.jsonl"
    path.write_text("".join(f'{{"prompt": "P{i}"}}\n' for i in range(lines)))
    workload = Workload.model_validate({"prompts": path, "output_tokens": 5})
    mixed = {name: TrafficClass.model_validate(one) for name, one in classes.items()}
    load = load_of(kind="mixed" if mixed else "sustained", rate=10, requests=60)
    return build(load, workload, seed, classes=mixed)


def really_asked(plan: Schedule, requests: int) -> list[Any]:
    """The prompts that its first requests have."""
    return [plan.request(i).prompt for i in range(requests)]


@pytest.mark.parametrize("seeds", [(1, 2), (3, 3), (4, 9)])
@pytest.mark.parametrize("lines", [7, 60, 97, 1000])
def test_what_was_asked_before_is_counted(tmp_path: Path, lines: int, seeds: tuple[int, int]) -> None:
    """Two loads on one start: every request whose very text went out before, in this load or the one before it."""
    asked, seen = SentLines(), set()
    for seed in seeds:
        plan = plan_of(tmp_path, lines, seed)
        again = 0
        for prompt in really_asked(plan, 60):
            again += prompt in seen
            seen.add(prompt)
        assert asked.add(plan, 60) == {"default": {"requests": 60, "again": again}}


def test_a_cache_that_was_dropped_knows_nothing(tmp_path: Path) -> None:
    """After it only what one load repeats itself counts."""
    asked, plan = SentLines(), plan_of(tmp_path, 1000)
    asked.add(plan, 60)
    asked.forget()
    assert asked.add(plan, 60)["default"]["again"] == 0
    assert asked.add(plan, 60)["default"]["again"] == 60


def test_only_classes_that_read_a_file_are_counted(tmp_path: Path) -> None:
    """Each by its share of the requests, give or take a hand."""
    (tmp_path / "few.jsonl").write_text('{"prompt": "A"}\n{"prompt": "B"}\n')
    made = {"prompts": None, "prompt_tokens": 8}
    plan = build(
        load_of(kind="mixed", rate=10, requests=100),
        Workload.model_validate({"output_tokens": 5}),
        1,
        classes={
            "read": TrafficClass.model_validate({"weight": 1, "workload": {"prompts": tmp_path / "few.jsonl"}}),
            "made": TrafficClass.model_validate({"weight": 3, "workload": made}),
        },
    )
    found = SentLines().add(plan, 100)
    assert found == {"read": {"requests": 25, "again": 23}}


def reasons(cached: int | None, **trial: Any) -> dict[str, tuple[Level, str]]:
    """The reasons of a trial of 200-token prompts of which so many tokens came from a cache."""
    rows = [
        streamed(i, i * 100.0, prompt_tokens=200, requested_prompt_tokens=200, cached_tokens=cached) for i in range(100)
    ]
    entry = trial_of(rows, **trial)
    found = judged(entry)
    return {one.code: (one.level, one.sentence) for one in (*found.reasons, *found.notes) if "prompts" in one.code}


def test_a_cache_that_held_what_no_two_prompts_share_is_told() -> None:
    """Beyond the template of a chat, and only where nothing was to be shared."""
    assert reasons(70, shares_prompts=False) == {
        "prompts": (
            Level.WARN,
            "The server took 15% of the prompt tokens from its cache, though no two prompts begin alike.",
        )
    }
    assert reasons(60, shares_prompts=True) == {}
    assert reasons(59, shares_prompts=False) == {}
    assert reasons(None, shares_prompts=False) == {}
    assert reasons(150) == {}, "runs of old formats do not say"


def test_a_file_shorter_than_the_loads_is_told() -> None:
    """Where the server does not say that it took next to nothing from its cache."""
    asked = {"a": {"requests": 100, "again": 30}, "b": {"requests": 47, "again": 57}}
    told = "87 of 147 prompts from the file had been sent to this engine before."
    assert reasons(None, shares_prompts=True, prompts_asked=asked) == {"prompts_again": (Level.VALID, told)}
    assert reasons(150, shares_prompts=True, prompts_asked=asked) == {"prompts_again": (Level.VALID, told)}
    assert reasons(40, shares_prompts=True, prompts_asked=asked) == {}


def test_a_server_that_stays_up_may_know_the_file() -> None:
    """What earlier runs asked nobody knows, unless its cache was dropped."""
    trial = {"prompts_asked": {"a": {"requests": 100, "again": 0}}, "shares_prompts": True}
    told = "The server ran before this run, and its cache may hold the prompts of the file."
    assert reasons(None, **trial, salt=5) == {"prompts_known": (Level.VALID, told)}
    assert reasons(None, **trial, salt=5, cache_reset=True) == {}
    assert reasons(None, **trial, salt=None) == {}
