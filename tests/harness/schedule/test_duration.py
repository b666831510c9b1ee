"""Expected time of a run: within a factor of two of what it takes, on an engine whose speed is known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from engines.base import EngineSpec, ModelReference
from engines.simulated import SimulatedEngine
from harness.cli.commands.listing import rounded_time
from harness.scenario.model import Scenario
from harness.schedule.cells import Cell
from harness.schedule.duration import likely_requests, run_time_s, trial_time_s
from harness.schedule.matrix import expand
from harness.schedule.requests import build
from harness.schedule.speed import parameters, speed_of, typical
from tests.driven import driven_on
from tests.plans import SPREAD

LENGTHS = {"prompt_tokens": 16, "output_tokens": SPREAD}
LOADS: list[dict[str, Any]] = [
    {"kind": "single_user", "requests": 12, "warmup": "10s"},
    {"kind": "single_user", "requests": 12, "think_time": "3s"},
    {"kind": "single_user", "duration": "30s"},
    {"kind": "sustained", "users": 6, "requests": 60},
    {"kind": "sustained", "users": 6, "duration": "40s", "think_time": "1s"},
    {"kind": "sustained", "rate": 2, "duration": "60s", "warmup": "5s"},
    {"kind": "sustained", "rate": 2, "requests": 90},
    {"kind": "sustained", "rate": 40, "duration": "10s"},
    {"kind": "burst", "rate": 1, "burst_rate": 8, "burst_for": "2s", "every": "10s", "duration": "40s"},
    {"kind": "burst", "spike": {"requests": 30, "within": "1s"}},
    {"kind": "steps", "steps": [{"rate": 1, "for": "20s"}, {"rate": 4, "for": "20s"}]},
    {"kind": "sessions", "rate": 0.5, "sessions": 12, "turns": 4, "think_time": "2s"},
    {"kind": "sessions", "rate": 0.5, "duration": "60s", "turns": 3},
]


def cell_of(load: dict[str, Any], **options: Any) -> Cell:
    """The cell of one load on an engine with these speeds."""
    engines = [{"engine": "simulated", "options": options}]
    scenario = Scenario.model_validate({"engines": engines, "load": [load], "workload": LENGTHS})
    (cell,) = expand(scenario)
    assert isinstance(cell, Cell)
    return cell


def driven(cell: Cell) -> tuple[float, int]:
    """Seconds from the start of the load to the last reply, and requests, in virtual time."""
    (plan,) = cell.trials
    engine = SimulatedEngine(EngineSpec("simulated", options=cell.spec.options))
    records, _ = driven_on(engine, build(plan.load, plan.workload, plan.seed), round(plan.timeout_s))
    return max(record.done_ns or 0 for record in records) / 1e9, len(records)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load['kind']}-{len(load)}-{load.get('rate')}")
@pytest.mark.parametrize("max_batch", [None, 3])
def test_the_expected_time_is_within_a_factor_of_two(load: dict[str, Any], max_batch: int | None) -> None:
    """Loads by time and by number, open, closed and in turns, with and without a queue."""
    cell = cell_of(load, ttft_ms=200, tpot_ms=10, max_batch=max_batch)
    took_s, sent = driven(cell)
    speed = speed_of(cell)
    assert took_s / 2 <= trial_time_s(cell.trials[0], speed) <= took_s * 2
    assert sent / 2 <= likely_requests(cell.trials[0], speed) <= sent * 2


@settings(max_examples=20, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.integers(1, 20), st.integers(1, 8), st.integers(10, 400), st.integers(1, 40), st.integers(1, 20))
def test_a_closed_loop_takes_its_rounds(users: int, rounds: int, ttft_ms: int, tpot_ms: int, slots: int) -> None:
    """Whatever the speed and the number of slots."""
    load = {"kind": "sustained", "users": users, "requests": users * (rounds + 2)}
    cell = cell_of(load, ttft_ms=ttft_ms, tpot_ms=tpot_ms, max_batch=slots)
    took_s, _ = driven(cell)
    assert took_s / 2 <= trial_time_s(cell.trials[0], speed_of(cell)) <= took_s * 2


def test_starts_repetitions_and_scoring_count() -> None:
    """A start is made twice, each trial has one of its own with `restart: per_trial`, and scoring reads the text."""
    keys: dict[str, Any] = {
        "engines": [{"engine": "simulated", "options": {"load_s": 10, "ttft_ms": 0, "tpot_ms": 0}}],
        "load": [{"kind": "sustained", "rate": 1, "duration": "60s"}] * 2,
    }
    one, each, three = (
        run_time_s(scenario, expand(scenario))
        for scenario in (
            Scenario.model_validate(keys | more) for more in ({}, {"restart": "per_trial"}, {"repetitions": 3})
        )
    )
    assert one == pytest.approx(4 + 3 + 2 * 10 + 2 * 60.2)
    assert each - one == pytest.approx(3 + 20)
    assert three - 4 == pytest.approx(3 * (one - 4))


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8e9),
        ("Qwen/Qwen2.5-0.5B", 0.5e9),
        ("llama-160m", 162e6),
        ("tiny", 3.2e6),
        ("org/unknown", 1e9),
    ],
)
def test_the_size_of_a_model_is_read_off_its_name(model: str, number: float) -> None:
    """Without a look at its files, which may not be here yet; a name without a size counts as a billion."""
    assert parameters(model) == number


def test_an_engine_without_a_stated_speed_has_a_typical_one() -> None:
    """Fewer bits and fewer weights are faster; a server elsewhere has no start."""

    def speed(name: str, level: str) -> Any:
        keys = {"model": name, "engines": [{"engine": "llama-server", "quantization": level}]}
        (cell,) = expand(Scenario.model_validate(keys | {"load": [{"kind": "single_user", "requests": 1}]}))
        assert isinstance(cell, Cell)
        assert cell.spec.model == ModelReference(name)
        assert speed_of(cell) == typical(cell)
        return typical(cell)

    assert speed("tiny", "q8_0").token_s < speed("llama-160m", "q4_0").token_s < speed("llama-160m", "f16").token_s
    keys = {"engines": [{"engine": "http", "url": "http://h"}], "load": [{"kind": "single_user", "requests": 1}]}
    (server,) = expand(Scenario.model_validate(keys))
    assert isinstance(server, Cell)
    assert speed_of(server).start_s == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1s"), (45, "45s"), (59, "59s"), (59.2, "1m"), (104, "1m45s"), (119, "2m"), (3600, "1h"), (7790, "2h9m")],
)
def test_a_time_is_shown_as_a_scenario_writes_it(seconds: float, text: str) -> None:
    """Rounded to five seconds above a minute, to minutes above an hour."""
    assert rounded_time(seconds) == text
