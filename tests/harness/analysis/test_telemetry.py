"""What readings say of a window is of that window only, and what was not read is not zero."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.facts import facts_of
from harness.analysis.reading import read
from harness.analysis.samples.gauges import Gauge, gauges
from harness.analysis.samples.machine import growth, mean, peaks, telemetry_facts, telemetry_readings
from harness.analysis.summary import measure, tidy
from harness.records import Sample
from harness.verdict.machine import machine_reasons, notes
from tests.fabricated import FabricatedTrial, S, cell_entry, noisy, trial_entry, trial_of, value
from tests.judged import judged

T0 = 1_000 * S
SAMPLER = {"scope": "server", "interval_s": 0.1, "ticks": 700, "late_ticks": 2, "cpu_share": 0.002, "ms_per_tick": 0.2}


def gauge(*readings: tuple[float, float]) -> Gauge:
    """Readings at these seconds."""
    found = trial_of([], [Sample(round(at_s * S), "engine", "x", value) for at_s, value in readings])
    return gauges(found.samples(), "engine", "x")["engine"]


def facts(readings: list[Sample], cell: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The telemetry of a trial whose window is from 10 s to 50 s."""
    made = FabricatedTrial(cell_entry(**({"sampler": SAMPLER, "unread": ["x"]} | (cell or {}))),
                           trial_entry(start_s=10, end_s=50, **changes), noisy(1), readings)  # fmt: skip
    return telemetry_facts(made.cell, made.trial, read(made).window, made.samples())


def every_second(source: str, name: str, values: list[float], scope: str = "server") -> list[Sample]:
    """One reading a second from T0 on."""
    return [Sample(T0 + at * S, source, name, value, scope) for at, value in enumerate(values)]


def test_a_mean_weighs_by_time_and_by_the_window_only() -> None:
    """A reading stands for the time since the one before it; what lies outside does not count."""
    readings = gauge((0, 9.0), (10, 5.0), (11, 1.0), (20, 3.0), (40, 100.0))
    assert mean(readings, 10e9, 20e9) == pytest.approx((1 * 1.0 + 9 * 3.0) / 10)
    assert mean(readings, 30e9, 60e9) is None
    assert mean(readings, 5e9, 5e9) is None
    assert mean(None, 0, 1e9) is None
    assert mean(gauge((1, 2.0)), 0, 1e9) is None


def test_growth_is_of_the_window_and_survives_a_restart() -> None:
    """Between two readings in proportion; a counter that began anew counts from zero."""
    readings = gauge((0, 100.0), (10, 200.0), (20, 20.0), (30, 30.0))
    assert growth(readings, 5e9, 10e9) == pytest.approx(50.0)
    assert growth(readings, 0, 30e9) == pytest.approx(100 + 20 + 10)
    assert growth(readings, 25e9, 100e9) is None
    assert growth(None, 0, 1) is None


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=30), st.integers(1, 20))
def test_growth_over_neighbouring_windows_adds_up(steps: list[float], cut: int) -> None:
    """However a time is divided."""
    values, total = [], 0.0
    for step in steps:
        total += step
        values.append(total)
    readings = gauge(*((float(at), value) for at, value in enumerate(values)))
    end_ns = (len(values) - 1) * 1e9
    cut_ns = end_ns * cut / 21
    parts = [growth(readings, 0, cut_ns), growth(readings, cut_ns, end_ns)]
    assert sum(part or 0.0 for part in parts) == pytest.approx(values[-1] - values[0], abs=1e-3)


def test_what_the_machine_did_in_the_window() -> None:
    """Processor time of the engine, faults, swap and throttling, each of the 40 s that were measured."""
    readings = [
        *every_second("engine", "cpu_share", [0.0] * 11 + [1.5] * 40 + [0.0] * 9),
        *every_second("engine", "major_faults", [*range(60)]),
        *every_second("host", "swap_in_bytes", [at * 2.0**20 for at in range(60)]),
        *every_second("host", "swap_out_bytes", [0.0] * 60),
        *every_second("cgroup", "throttled_periods", [at * 2.0 for at in range(60)]),
        *every_second("cgroup", "throttled_s", [at * 0.1 for at in range(60)]),
        *every_second("sampler", "cpu_share", [0.004] * 60, "client"),
    ]
    told = facts(readings)
    assert told["window"] == {
        "engine_cpu_cores": pytest.approx(1.5),
        "engine_major_faults": pytest.approx(40),
        "swapped_bytes": pytest.approx(40 * 2**20),
        "throttled_periods": pytest.approx(80),
        "throttled_s": pytest.approx(4.0),
        "host_cpu_share": None,
        "sampler_cpu_share": pytest.approx(0.004),
    }
    assert (told["scope"], told["unread"], told["gpus"]) == ("server", ["x"], False)
    assert told["sampler"] == {name: value for name, value in SAMPLER.items() if name != "scope"}
    assert telemetry_readings({"telemetry": told})["engine_cpu_cores"] == pytest.approx(1.5)


def found_in(telemetry: dict[str, Any], seconds: float) -> list[str]:
    """The codes of doubts and notes that the facts about telemetry give."""
    told = {"telemetry": telemetry}
    return [one.code for one in (*machine_reasons(trial_entry(), told, seconds), *notes(told, seconds))]


def test_readings_of_another_machine_are_not_the_servers() -> None:
    """With the server elsewhere nothing is known of it, and the reason names that."""
    readings = every_second("host", "memory_used_share", [0.5] * 60, "client")
    readings += every_second("engine", "cpu_share", [1.0] * 60, "client")
    cell = {"sampler": SAMPLER | {"scope": "client"}}
    told = facts(readings, cell)
    assert set(told["window"].values()) == {None}
    made = FabricatedTrial(cell_entry(**cell), trial_entry(start_s=10, end_s=50), noisy(1), readings)
    found = facts_of(made.cell, read(made), made.samples())
    assert found["missing"]["engine_cpu_cores"] == "the server is on another machine, which was not read"
    assert "the machine under test" in found["missing"]["system_memory_peak_share"]
    assert found["memory"]["reason"] == "no memory of the engine was read during the trial"
    assert peaks(made.samples(), made.trial, read(made).columns) == {}


def test_without_readings_nothing_is_known() -> None:
    """Not zero, and no doubt either; runs of an older version did not say what the readings cost."""
    told = facts([], {"sampler": None, "unread": []})
    assert (told["sampler"], told["scope"], told["unread"]) == (None, None, [])
    assert set(told["window"].values()) == {None}
    assert telemetry_readings({"telemetry": told}) == {}
    assert found_in(told, 40.0) == []
    assert found_in({}, 40.0) == []
    assert facts([], t0_ns=None)["window"] == {}


@pytest.mark.parametrize(
    ("window", "seconds", "found"),
    [
        ({"swapped_bytes": 39 * 2**20}, 40.0, []),
        ({"swapped_bytes": 41 * 2**20}, 40.0, ["machine"]),
        ({"engine_major_faults": 401}, 40.0, ["machine"]),
        ({"throttled_periods": 300, "throttled_s": 0.7}, 40.0, []),
        ({"throttled_periods": 3, "throttled_s": 0.9}, 40.0, ["machine"]),
        ({"sampler_cpu_share": 0.0049}, 40.0, []),
        ({"sampler_cpu_share": 0.0051}, 40.0, ["sampler_cost"]),
        ({"sampler_cpu_share": 0.5}, 9.0, []),
    ],
)
def test_what_casts_doubt(window: dict[str, float], seconds: float, found: list[str]) -> None:
    """Swapping, waiting for the disk, throttling for 2 % of the time; what readings cost is a note."""
    assert found_in({"window": window, "sampler": SAMPLER}, seconds) == found


def test_more_readings_may_cost_more() -> None:
    """The threshold is for ten a second; twice as often, twice as much; with GPUs 1 %."""
    told = {"window": {"sampler_cpu_share": 0.009}, "sampler": SAMPLER | {"interval_s": 0.05}}
    assert not found_in(told, 40.0)
    told = {"window": {"sampler_cpu_share": 0.009}, "sampler": SAMPLER, "gpus": True}
    assert not found_in(told, 40.0)


def test_a_trial_shows_what_its_readings_say() -> None:
    """In its summary with the source, and among the reasons to doubt it; the load comes up within 0.5 s."""
    readings = [
        *every_second("engine", "cpu_share", [1.5] * 70),
        *every_second("engine", "major_faults", [at * 50.0 for at in range(70)]),
        *every_second("host", "swap_in_bytes", [0.0] * 70),
        *every_second("host", "swap_out_bytes", [0.0] * 70),
    ]
    made = FabricatedTrial(cell_entry(sampler=SAMPLER), trial_entry(), noisy(1), readings)
    reading, samples = read(made), made.samples()
    found = facts_of(made.cell, reading, samples)
    summary = tidy(measure(made, reading, samples, found))
    cores = value(summary, "engine_cpu_cores")
    assert (cores["value"], cores["unit"], cores["source"]) == (pytest.approx(1.5), "cores", "engine")
    assert value(summary, "swapped_bytes")["value"] == 0
    (reason,) = (one for one in judged(made).reasons if one.code == "machine")
    assert reason.sentence == "The engine waited 2975 times for a page from the disk during the window."


def test_a_peak_counts_what_was_held_when_the_trial_began() -> None:
    """The last reading of each gauge before it, however long ago, and none after its end; PSS, read rarely, only of
    the trial itself.
    """
    readings = [
        Sample(T0 - 20 * S, "engine", "pss_bytes", 500.0),
        Sample(T0 - 1 * S, "engine", "rss_bytes", 70.0),
        Sample(T0 + 1 * S, "engine", "rss_bytes", 60.0),
        Sample(T0 + 500 * S, "engine", "rss_bytes", 900.0),
        Sample(T0 + 1 * S, "gpu0", "memory_used_bytes", 10.0),
        Sample(T0 + 1 * S, "gpu0", "memory_total_bytes", 40.0),
        Sample(T0 - 9 * S, "gpu1", "memory_used_bytes", 20.0),
        Sample(T0 - 9 * S, "gpu1", "memory_total_bytes", 40.0),
    ]
    made = trial_of(noisy(1), readings)
    found = peaks(made.samples(), made.trial, read(made).columns)
    assert (found.get("pss_peak_bytes"), found["rss_peak_bytes"]) == (None, 70.0)
    assert (found["gpu_memory_peak_bytes"], found["gpu_memory_peak_share"]) == (30.0, 0.375)
