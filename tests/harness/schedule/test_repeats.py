"""Requests that repeat earlier ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scenario.workload import TrafficClass, Workload
from harness.schedule.requests import Schedule, build
from tests.plans import load_of, workload_of


def plan(repeat: float | None, seed: int = 1, *, classes: Any = None, **keys: Any) -> Schedule:
    """A closed loop over varying lengths, unless a rate is given."""
    load = {"kind": "mixed" if classes else "sustained", **({} if "rate" in keys else {"users": 2})}
    load |= keys or {"requests": 3000}
    return build(load_of(**load), workload_of(repeat=repeat), seed, classes=classes)


def asked(schedule: Schedule, count: int) -> list[tuple[Any, int]]:
    """Return the contents of the first requests."""
    requests = (schedule.request(i) for i in range(count))
    return [(request.prompt, request.max_tokens) for request in requests]


def test_the_share_of_repeats_is_kept() -> None:
    """30 % of 3000 requests have occurred before, with the same length of the reply; the others have not."""
    requests = asked(plan(0.3), 3000)
    repeats = [request in set(requests[:i]) for i, request in enumerate(requests[:600])]
    assert not repeats[0]
    assert np.mean(repeats) == pytest.approx(0.3, abs=0.06)
    assert len(set(requests)) == pytest.approx(2100, abs=80)


def test_originals_are_those_of_the_plan_without_repeats() -> None:
    """Originals stay as they were, so that two plans can be compared."""
    plain, repeated = asked(plan(None), 500), asked(plan(0.3), 500)
    first = {request: i for i, request in reversed(list(enumerate(repeated)))}
    assert all(repeated[i] == plain[i] for i in first.values())
    assert {request: first[request] for request in first}.keys() <= set(plain)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    repeat=st.sampled_from([0.05, 0.5, 0.95, 1.0]),
    weights=st.lists(st.integers(1, 40), min_size=2, max_size=4),
)
def test_a_class_repeats_itself_alone(seed: int, repeat: float, weights: list[int]) -> None:
    """Every repeat is an earlier row of its own class, and an original; the first of a class is none."""
    classes = {f"c{i}": TrafficClass.model_validate({"weight": weight}) for i, weight in enumerate(weights)}
    schedule = plan(repeat, seed, classes=classes, rate=10, requests=3000, timeout="1h")
    columns = schedule._traffic.columns()
    assert columns.origin is not None
    rows = np.arange(6000)
    assert np.all(columns.origin <= rows)
    assert np.array_equal(columns.stream[columns.origin], columns.stream)
    assert np.array_equal(columns.origin[columns.origin], columns.origin)
    assert np.array_equal(columns.prompt_tokens[columns.origin], columns.prompt_tokens)
    assert np.mean(columns.origin < rows) == pytest.approx(repeat, abs=0.05)


def test_old_and_new_prompts_come_back_alike() -> None:
    """Repeats reach back over the whole plan: half of them to its first half or further."""
    columns = plan(0.5, rate=1000, requests=30_000)._traffic.columns()
    assert columns.origin is not None
    rows = np.flatnonzero(columns.origin < np.arange(60_000))
    assert np.median(columns.origin[rows] / rows) == pytest.approx(0.5, abs=0.02)


def test_a_loop_without_end_repeats_as_one_that_has_an_end() -> None:
    """Rows are the same in any order and over the borders of blocks."""
    endless, finite = plan(0.5, duration="60s"), plan(0.5, rate=1000, requests=10_000)
    assert (endless.count, finite.count) == (None, 20_000)
    for i in (19_999, 3, 4096, 4095, 12_000, 12_001, 12_002, 12_003):
        assert endless.row(i).repeats == finite.row(i).repeats
        assert endless.request(i) == finite.request(i)


def test_only_repeats_change_the_hash() -> None:
    """The share is part of the plan."""
    assert len({plan(share).plan_hash for share in (None, 0.1, 0.2)}) == 3


def test_lines_of_a_file_are_repeated_too(tmp_path: Path) -> None:
    """With the length of the reply that the line states."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "P{i}", "output_tokens": {i + 1}}}\n' for i in range(500)))
    workload = Workload.model_validate({"prompts": path, "repeat": 0.5})
    schedule = build(load_of(kind="single_user", requests=400), workload, 1)
    requests = asked(schedule, 400)
    assert len(set(requests)) == pytest.approx(200, abs=40)
    assert all(prompt == f"P{tokens - 1}" for prompt, tokens in requests)
