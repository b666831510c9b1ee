"""Results of requests with and without help of a cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis import reading
from harness.analysis.summary import measure, summarise, tidy
from harness.scenario.reader import load
from tests.fabricated import streamed, trial_of, value


def test_what_came_from_a_cache_has_results_of_its_own() -> None:
    """By the server's word: a result cache, or at least half of the prompt; errors and rates are split, too."""
    kinds: list[dict[str, Any]] = [  # in turns: in blocks they would look like a queue that builds up
        {"ttft_ms": 20, "cached": True},
        {"ttft_ms": 90, "prompt_tokens": 100, "cached_tokens": 49},
        {"ttft_ms": 20, "prompt_tokens": 100, "cached_tokens": 50},
        {"ttft_ms": 90, "prompt_tokens": 100, "cached_tokens": 0},
    ]
    records = [streamed(n, 1000 + 10 * n, **kinds[n % 4]) for n in range(80)]
    trial = trial_of([streamed(80, 0, phase="warmup"), *records], start_s=1.0, end_s=2.0)
    found = summarise([trial])
    assert set(found["class"]) == {"all", "cached", "uncached"}
    assert value(found, "ttft_ms", "p50", **{"class": "cached"})["value"] == 20
    assert value(found, "ttft_ms", "p50", **{"class": "uncached"})["value"] == 90
    assert value(found, "offered_rps", **{"class": "cached"})["value"] == 40
    assert value(found, "offered_rps", **{"class": "uncached"})["value"] == 40
    counted = tidy(measure(trial, reading.read(trial, most_kept=3), trial.samples()))
    assert value(counted, "ttft_ms", "p50", **{"class": "cached"})["value"] == 20
    assert set(counted["class"]) == {"all", "cached", "uncached"}


def test_what_the_plan_repeats_has_results_of_its_own() -> None:
    """Whatever the server says; each is held to its own class's limits."""
    records = [
        replace(streamed(n, 10 * n, ttft_ms=20 if n % 2 else 80), repeats=0 if n % 2 else None) for n in range(16)
    ]
    found = summarise([trial_of(records, end_s=1.0, class_slo={"default": {"ttft_ms": 50.0}})])
    assert value(found, "ttft_ms", "p50", **{"class": "repeated"})["value"] == 20
    assert value(found, "ttft_ms", "p50", **{"class": "original"})["value"] == 80
    assert value(found, "attainment", **{"class": "repeated"})["value"] == 1
    assert value(found, "attainment", **{"class": "original"})["value"] == 0


@pytest.mark.parametrize("cached_tokens", [0, 80, None])
def test_without_both_kinds_nothing_is_split(cached_tokens: int | None) -> None:
    """All cached, none cached, or nothing said: one row each, as ever."""
    records = [replace(streamed(n, 10 * n), prompt_tokens=100, cached_tokens=cached_tokens) for n in range(4)]
    assert set(summarise([trial_of(records, end_s=1.0)])["class"]) == {"all"}


def test_limits_may_name_them(tmp_path: Path) -> None:
    """They are no classes of the scenario, and still known."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "engines: [{engine: simulated}]\nload: [{kind: single_user, requests: 3}]\n"
        'workload: {repeat: 0.5}\nlimits: ["uncached.ttft_ms p50 <= 500", "repeated.ttft_ms p50 <= 100"]\n'
    )
    assert len(load(path, env={}).limits) == 2
