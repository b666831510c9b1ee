"""Energy of the GPUs: counters and power of known truth, and what makes a number impossible."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.facts import facts_of
from harness.analysis.reading import read
from harness.analysis.samples import energy
from harness.analysis.samples.energy import COUNTER, Gauge, NoEnergy, by_counter, by_power, energy_facts, missing_energy
from harness.analysis.samples.gauges import NOT_ON_A_GPU
from harness.analysis.samples.memory import memory_facts
from harness.analysis.summary import measure, tidy
from harness.analysis.window import Window
from harness.records import Sample
from harness.store.manifest import CellEntry, SamplerEntry, TrialEntry
from harness.telemetry.gpus import find_gpus
from harness.verdict.machine import notes
from harness.verdict.reason import Level
from tests.fabricated import FabricatedTrial, again, cell_entry, streamed, trial_entry, value
from tests.fake_nvml import fake_nvml
from tests.judged import judged


def counter(
    watts: float,
    seconds: float,
    *,
    every_s: float = 0.1,
    tick_s: float = 0.02,
    begin_s: float = -1.0,
    start_j: float = 5e3,
) -> Gauge:
    """Readings of a counter that is brought up to date every `tick_s`, under constant power."""
    at_s = np.arange(begin_s, seconds + 1.0, every_s)
    shown = np.floor((at_s - begin_s) / tick_s + 1e-9) * tick_s
    return Gauge(at_s, start_j + watts * shown)


def test_300_w_for_60_s_are_18_kj() -> None:
    """Known answer 20: within half a percent, and its interval holds the sensor's 5 %."""
    found = by_counter(counter(300, 60), 0.0, 60.0)
    assert found.j == pytest.approx(18_000, rel=0.005)
    assert found.sensor == COUNTER
    assert found.low < 18_000 * 0.95 < 18_000 < 18_000 * 1.05 < found.high
    assert found.uncertainty_share == pytest.approx(0.055, abs=0.005)


@given(
    watts=st.floats(20, 1500),
    seconds=st.floats(2, 300),
    every_s=st.floats(0.05, 1.0),
    tick_s=st.floats(0.005, 0.5),
    phase_s=st.floats(0, 0.5),
)
def test_the_interval_holds_the_truth(
    watts: float, seconds: float, every_s: float, tick_s: float, phase_s: float
) -> None:
    """However often the counter is brought up to date and read."""
    found = by_counter(counter(watts, seconds, every_s=every_s, tick_s=tick_s, begin_s=-1 - phase_s), 0.0, seconds)
    assert found.low <= watts * seconds <= found.high
    assert abs(found.j - watts * seconds) <= watts * 2 * (tick_s + every_s)


@given(st.lists(st.floats(0, 1000), min_size=80, max_size=80), st.floats(0.2, 5.0))
def test_the_bounds_hold_under_any_power(powers: Sequence[float], end_s: float) -> None:
    """Between the edges nothing is assumed of the power: without the sensor's share the truth still lies between."""
    at_s = np.arange(-1.0, 7.0, 0.1)
    joules = np.concatenate([[0.0], np.cumsum(np.array(powers[1:]) * 0.1)])
    try:
        found = by_counter(Gauge(at_s, joules), 0.0, end_s)
    except NoEnergy:
        return
    truth = float(np.interp(end_s, at_s, joules) - np.interp(0.0, at_s, joules))
    slack = 1e-6 + 0.1 * max(powers)  # beyond the last edge, power has no bound
    assert found.low - slack <= truth <= found.high + slack


def test_readings_that_took_long_are_less_certain() -> None:
    """A reading may be of any moment of its call, also where that is the one that misleads most."""
    quick = counter(300, 10)
    slow = Gauge(quick.at_s, quick.values, np.full(len(quick.at_s), 0.05))
    first, second = by_counter(quick, 0.0, 10.0), by_counter(slow, 0.0, 10.0)
    assert (second.j, second.high - second.low > first.high - first.low) == (first.j, True)
    late = Gauge(quick.at_s + 0.025 * np.where(quick.at_s > 5, 1, -1), quick.values, slow.width_s)
    found = by_counter(late, 0.0, 10.0)
    assert found.low < 3_000 < found.high


def test_a_short_window_is_less_certain() -> None:
    """What is not known of the ends weighs more the shorter the window is."""
    shares = [by_counter(counter(300, seconds), 0.0, seconds).uncertainty_share for seconds in (2, 10, 60)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.1


def test_a_slow_counter_is_read_at_its_edges() -> None:
    """A counter that moves once a second counts when it moves, not whenever it is read."""
    found = by_counter(counter(300, 60.5, tick_s=1.0), 0.0, 60.5)
    assert found.j == pytest.approx(300 * 60.5, rel=0.005)


@pytest.mark.parametrize(
    ("gauge", "words", "broken"),
    [
        (
            Gauge(np.arange(-1, 61.0), np.where(np.arange(-1, 61.0) < 30, 9e3, 10.0)),
            "went back from 9000 J to 10 J",
            True,
        ),
        (Gauge(np.arange(-1, 61.0), np.full(62, 7.0)), "stood still", True),
        (counter(300, 60, tick_s=40.0), "up to date only once", False),
        (Gauge(np.array([0.5]), np.array([7.0])), "not read for the last 59.5 s", False),
        (Gauge(np.empty(0), np.empty(0)), "read 0 times", False),
        (counter(300, 30), "not read for the last", False),
        (counter(300, 60, begin_s=20.0), "not read for the first 20.0 s", False),
    ],
)
def test_a_counter_that_cannot_be_trusted_gives_no_number(gauge: Gauge, words: str, broken: bool) -> None:
    """Known answer 20: but a reason, where it went back, stood still or was not read."""
    with pytest.raises(NoEnergy, match=words) as found:
        by_counter(gauge, 0.0, 60.0)
    assert found.value.broken is broken


def test_a_page_that_was_not_brought_up_to_date_is_no_broken_counter() -> None:
    """DCGM's exporter does so every 30 s: in a window of 20 s its numbers may all be from before, and are not known; a
    counter that stands still for minutes is broken, whoever tells it.
    """
    at_s = np.arange(-1.0, 21.0)
    told = of_gpu(0, Gauge(at_s, np.full(22, 9e3))) + of_gpu(0, Gauge(at_s, np.full(22, 300.0)), "power_w")
    window = Window(0.0, 20e9, "0 s to 20 s")
    elsewhere = CellEntry(sampler=SamplerEntry(scope="client"))
    found = energy_facts(elsewhere, TrialEntry(t0_ns=T0_NS), window, table(told))
    assert (found["j"], found["power_w"], found["broken"]) == (None, None, False)
    assert missing_energy(found, {})["gpu_power_w"].startswith("gpu0: its page was not brought up to date")
    assert energy_facts(CellEntry(), TrialEntry(t0_ns=T0_NS), window, table(told))["broken"]
    minutes = Gauge(np.arange(-1.0, 121.0), np.full(122, 9e3))
    with pytest.raises(NoEnergy, match="stood still") as error:
        by_counter(minutes, 0.0, 120.0, exported=True)
    assert error.value.broken


def test_a_hole_in_the_readings_of_a_counter_does_no_harm() -> None:
    """Only the ends count: 40 of 60 seconds were not read, and the energy is known as before."""
    whole = counter(300, 60)
    ends = whole.only((whole.at_s < 10) | (whole.at_s > 50))
    assert by_counter(ends, 0.0, 60.0).j == pytest.approx(18_000, rel=0.005)


@pytest.mark.parametrize(("every_s", "missed", "known"), [(1.0, 1, True), (1.0, 2, True), (1.0, 4, False)])
def test_missed_readings_of_power_are_bridged_by_the_interval_of_their_source(
    every_s: float, missed: int, known: bool
) -> None:
    """Of a page that is read once a second, one or two that were missed lose nothing."""
    at_s = np.arange(-1.0, 61.5, every_s)
    kept = Gauge(at_s, np.full(len(at_s), 300.0)).only((at_s < 20) | (at_s > 20 + (missed - 1) * every_s + 0.5))
    if known:
        assert by_power(kept, 1.0, 0.0, 60.0).j == pytest.approx(18_000)
        return
    with pytest.raises(NoEnergy, match="not read for 5"):
        by_power(kept, 1.0, 0.0, 60.0)


def test_a_reset_outside_the_window_is_none_of_its_business() -> None:
    """Only the readings around the window count."""
    whole = counter(300, 60, begin_s=-30.0)
    values = np.where(whole.at_s < -10, whole.values + 1e6, whole.values)
    assert by_counter(Gauge(whole.at_s, values), 0.0, 60.0).j == pytest.approx(18_000, rel=0.005)


def test_power_is_added_up_where_there_is_no_counter() -> None:
    """Constant power is exact; power that changes is less certain the longer the sensor averages."""
    at_s = np.arange(-1.0, 61.0, 0.1)
    steady = by_power(Gauge(at_s, np.full(len(at_s), 300.0)), 0.0, 0.0, 60.0)
    assert steady.j == pytest.approx(18_000)
    assert steady.uncertainty_share == pytest.approx(0.05)
    wave = 300 + 200 * np.sin(at_s)
    instant, averaged = (by_power(Gauge(at_s, wave), over_s, 0.0, 60.0) for over_s in (0.0, 1.0))
    assert instant.low < 18_000 + 200 * (1 - math.cos(60.0)) < instant.high
    assert averaged.uncertainty_share > instant.uncertainty_share
    assert "instant" in instant.sensor
    assert "averaged over 1 s" in averaged.sensor


def test_a_hole_in_the_power_readings_gives_no_number() -> None:
    """What was drawn in it is not known."""
    at_s = np.concatenate([np.arange(-1.0, 20.0, 0.1), np.arange(30.0, 61.0, 0.1)])
    with pytest.raises(NoEnergy, match="not read for 10"):
        by_power(Gauge(at_s, np.full(len(at_s), 300.0)), 0.0, 0.0, 60.0)


def test_the_mean_weighs_readings_by_time() -> None:
    """Ten readings in the first second weigh as much as the one that stands for the second."""
    at_s = np.array([*np.arange(0.0, 1.0, 0.1), 1.0])
    values = np.array([100.0] * 10 + [200.0])
    assert energy.mean(Gauge(at_s, values), 0.0, 2.0) == pytest.approx(150)
    assert energy.mean(Gauge(at_s, values), 5.0, 6.0) is None


T0_NS = 10**12
WINDOW = Window(0.0, 60e9, "0 s to 60 s")


def of_gpu(index: int, gauge: Gauge, name: str = "energy_j") -> list[Sample]:
    """Samples of one gauge of a GPU."""
    return [
        Sample(T0_NS + round(at * 1e9), f"gpu{index}", name, float(value))
        for at, value in zip(gauge.at_s, gauge.values, strict=True)
    ]


def table(samples: Sequence[Sample]) -> pd.DataFrame:
    """Samples as they are read from a run."""
    return FabricatedTrial(CellEntry(), TrialEntry(), (), samples).samples()


def facts(samples: Sequence[Sample], cell: dict[str, Any] | None = None, **trial: Any) -> dict[str, Any]:
    """The facts of a minute."""
    entries = CellEntry.model_validate(cell or {}), TrialEntry(t0_ns=T0_NS, **trial)
    return energy_facts(*entries, WINDOW, table(samples))


def test_gpus_are_added_up() -> None:
    """Of two GPUs; with the mean of their power and utilisation."""
    told = [*of_gpu(0, counter(300, 60)), *of_gpu(1, counter(100, 60))]
    for index, watts, share in ((0, 300.0, 0.8), (1, 100.0, 0.2)):
        at_s = np.arange(-1, 61.0)
        told += of_gpu(index, Gauge(at_s, np.full(62, watts)), "power_w")
        told += of_gpu(index, Gauge(at_s, np.full(62, share)), "utilisation_share")
    found = facts(told)
    assert found["j"] == pytest.approx(24_000, rel=0.005)
    assert found["power_w"] == pytest.approx(400)
    assert found["utilisation_share"] == pytest.approx(0.5)
    assert [one["gpu"] for one in found["gpus"]] == ["gpu0", "gpu1"]
    assert found["reason"].startswith("it is not known which GPUs the engine uses: all 2 that were read are in it")
    assert facts(told, {"devices": ["0", "1"]})["reason"] is None


def test_only_the_engines_gpus_count() -> None:
    """Where the scenario gives it some."""
    told = [*of_gpu(0, counter(300, 60)), *of_gpu(1, counter(100, 60))]
    assert facts(told, {"devices": ["1"]})["j"] == pytest.approx(6_000, rel=0.005)


@pytest.mark.parametrize("cell", [{"engine_info": {"device": "cpu"}}, {"devices": ["cpu"]}])
def test_a_gpu_beside_an_engine_on_the_processor_is_not_its(cell: dict[str, Any]) -> None:
    """Its energy, its memory and its heat are somebody else's: there is no number, but the reason."""
    hot = Gauge(np.arange(-1.0, 61.0), np.full(62, 64.0))
    readings = [*of_gpu(0, counter(300, 60)), *of_gpu(0, hot, "memory_used_bytes"), *of_gpu(0, hot, "throttle_reasons")]
    one = FabricatedTrial(cell_entry(**cell), trial_entry(t0_ns=T0_NS), [streamed(0, 0.0)], readings)
    reading, samples = read(one), one.samples()
    found = facts_of(one.cell, reading, samples)
    (measured,) = measure(one, reading, samples, found)
    assert (found["energy"], found["throttling"]) == ({}, {})
    assert not {"energy_j", "gpu_memory_peak_bytes"} & measured.readings.keys()
    for metric in ("energy_j", "gpu_power_w", "gpu_memory_peak_bytes"):
        assert found["missing"][metric] == NOT_ON_A_GPU


def test_where_the_driver_sees_its_memory_a_gpu_is_the_engines() -> None:
    """llama.cpp holds its weights in main memory and computes prompts on a GPU all the same."""
    told = [*of_gpu(0, counter(300, 60)), *of_gpu(1, counter(100, 60))]
    told += of_gpu(1, Gauge(np.array([1.0]), np.array([5e8])), "engine_memory_bytes")
    assert facts(told, {"engine_info": {"device": "cpu"}})["j"] == pytest.approx(6_000, rel=0.005)


def test_one_gpu_without_a_number_leaves_none() -> None:
    """A sum without one of its parts would be too small; the latencies stay valid, the energy is warned about."""
    went_back = Gauge(np.arange(-1, 61.0), np.where(np.arange(-1, 61.0) < 30, 9e3, 10.0))
    found = facts([*of_gpu(0, counter(300, 60)), *of_gpu(1, went_back)])
    assert found["j"] is None
    assert found["gpus"][0]["j"] == pytest.approx(18_000, rel=0.005)
    assert "gpu1: its energy counter went back" in found["reason"]
    (note,) = notes({"energy": found}, 60.0)
    assert (note.code, note.level) == ("energy_counter", Level.VALID)
    assert "went back" in missing_energy(found, {})["energy_j"]


def test_readings_of_the_clients_machine_are_not_the_servers_energy() -> None:
    """With the server elsewhere the GPU here is idle or busy with something else."""
    here = [Sample(one.at_ns, one.source, one.name, one.value, "client") for one in of_gpu(0, counter(300, 60))]
    assert facts(here) == {}
    assert missing_energy({}, {})["energy_j"] == "no GPU of the machine under test was read"


def test_the_energy_of_a_token_may_be_unknown_as_some_were_not_counted() -> None:
    """Replies without counts lack tokens, which is not the same as no tokens."""
    why = missing_energy({"j": 18_000.0}, {})["energy_j_per_output_token"]
    assert why == "no output token arrived in the window, or some were not counted"


def test_nothing_measured_is_no_fault_of_the_counter() -> None:
    """An empty window has no energy, and no warning."""
    empty = Window(0.0, 0.0, "empty: nothing was measured")
    found = energy_facts(CellEntry(), TrialEntry(t0_ns=T0_NS), empty, table(of_gpu(0, counter(300, 60))))
    assert (found["j"], found["reason"]) == (None, "gpu0: nothing was measured")
    assert not list(notes({"energy": found}, 60.0))


def test_shared_gpus_are_told() -> None:
    """The energy of others is in the number."""
    assert "other processes" in facts(of_gpu(0, counter(300, 60)), others_on_gpus=2)["reason"]


def summary_of(*trials: FabricatedTrial) -> pd.DataFrame:
    """The summary of repetitions, with what their facts say of energy."""
    found = []
    for one in trials:
        reading, samples = read(one), one.samples()
        found += measure(one, reading, samples, facts_of(one.cell, reading, samples))
    return tidy(found)


def minute(watts: float, repetition: int = 1, **trial: Any) -> FabricatedTrial:
    """Sixty requests of ten tokens, one a second, on a GPU of constant power."""
    entry = trial_entry(t0_ns=T0_NS, **trial)
    records = [streamed(number, 1000 * number, ttft_ms=100 + 10 * (number % 2)) for number in range(60)]
    told = [*of_gpu(0, counter(watts, 60)), *of_gpu(0, Gauge(np.arange(-1, 61.0), np.full(62, watts)), "power_w")]
    return FabricatedTrial(cell_entry(repetition=repetition), entry, records, told)


def test_energy_per_token_and_per_good_request() -> None:
    """Joules of the window over the tokens that arrived in it, and over the requests within the limits."""
    found = summary_of(minute(300, slo={"ttft_ms": 105.0}))
    assert value(found, "energy_j")["value"] == pytest.approx(60 * 300)
    per_token = value(found, "energy_j_per_output_token")
    assert per_token["value"] == pytest.approx(30)
    assert per_token["low"] < 30 * 0.95 < 30 * 1.05 < per_token["high"]
    assert per_token["source"] == COUNTER
    assert value(found, "energy_j_per_good_request")["value"] == pytest.approx(60 * 300 / 30)
    power = value(found, "gpu_power_w")
    assert (power["value"], power["source"]) == (pytest.approx(300), "power averaged over 1 s by the GPU")


def test_repetitions_do_not_shrink_what_the_sensor_may_be_off_by() -> None:
    """The pooled interval is never narrower than the sensor allows, and wider where repetitions differ."""
    alike = value(summary_of(minute(300), minute(300, 2), minute(300, 3)), "energy_j")
    assert alike["value"] == pytest.approx(60 * 300)
    assert alike["low"] < 18_000 * 0.95 < 18_000 * 1.05 < alike["high"]
    apart = value(summary_of(minute(200), minute(300, 2), minute(400, 3)), "energy_j")
    assert apart["high"] - apart["low"] > 2 * (alike["high"] - alike["low"])


def test_a_counter_that_was_reset_is_noted_and_leaves_the_latencies() -> None:
    """A note says so; its energy is not there, and the facts say why."""
    trial = minute(300)
    readings = [*trial.readings]
    readings[300] = Sample(readings[300].at_ns, "gpu0", "energy_j", 1.0)
    trial = FabricatedTrial(trial.cell, trial.trial, trial.made, readings)
    reading, samples = read(trial), trial.samples()
    found = facts_of(trial.cell, reading, samples)
    assert "went back" in found["missing"]["energy_j"]
    validity = judged(trial)
    assert "energy_counter" in {note.code for note in validity.notes}
    assert "energy_j" not in set(summary_of(trial)["metric"])
    assert "ttft_ms" in set(summary_of(trial)["metric"])


BUSY_W, IDLE_W, HELD = 300.0, 70.0, 20 * 2**30


def of_eight_gpus(seconds: int = 61, **words: Any) -> list[Sample]:
    """A minute of readings of the fake driver's eight GPUs, the first of which works and holds 20 GiB."""
    taken: list[Sample] = []
    state = {"power_mw": round(BUSY_W * 1e3), "idle_mw": round(IDLE_W * 1e3), "gpu_percent": 90, "used": HELD + 2**30}
    with fake_nvml(gpus=8, busy=0, **{**state, **words}) as fake:
        found, reason = find_gpus()
        assert found is not None, reason
        for tick in range(-10, seconds * 10):
            now_ns = T0_NS + tick * 10**8
            fake.set(now_ns=now_ns)
            read_now = found.samples([os.getpid()])
            taken += [Sample(now_ns, one.source, one.name, one.value) for one in read_now]
    return taken


@pytest.mark.parametrize("cell", [{}, {"devices": ["0"]}, {"engine_info": {"device": "cpu"}}])
def test_idle_gpus_of_the_machine_are_not_the_engines(cell: dict[str, Any]) -> None:
    """Eight GPUs, of which it uses one: 300 W for a minute, nine tenths busy, 20 GiB; the seven others' 70 W, their
    idleness and their memory are nobody's business, whether the scenario names the one or the driver tells it.
    """
    samples = of_eight_gpus(processes=f"{os.getpid()}:{HELD}")
    found = facts(samples, cell)
    assert (found["j"], found["reason"]) == (pytest.approx(BUSY_W * 60, rel=0.005), None)
    assert (found["power_w"], found["utilisation_share"]) == (pytest.approx(BUSY_W), pytest.approx(0.9))
    assert [one["gpu"] for one in found["gpus"]] == ["gpu0"]
    one = FabricatedTrial(cell_entry(**cell), trial_entry(t0_ns=T0_NS), [streamed(0, 0.0)], samples)
    (measured,) = measure(one, read(one), one.samples(), {"energy": found})
    assert measured.readings["gpu_memory_peak_bytes"] == HELD
    assert measured.readings["gpu_memory_peak_share"] == pytest.approx((HELD + 2**30) / 80 / 2**30)
    memory = memory_facts(again(one.cell, engine_info={"device": "cuda"}), read(one), one.samples())
    assert memory["total_bytes"] == HELD


def test_where_processes_are_not_told_apart_all_gpus_count_and_that_is_said() -> None:
    """300 W and seven times 70 W, with what to write so that it is one."""
    found = facts(of_eight_gpus(processes="1:1000000"))
    assert found["j"] == pytest.approx((BUSY_W + 7 * IDLE_W) * 60, rel=0.005)
    assert found["utilisation_share"] == pytest.approx(0.9 / 8)
    assert "not known which GPUs the engine uses: all 8 that were read are in it" in found["reason"]
    assert facts(of_eight_gpus(processes="1:1000000"), {"devices": ["0"]})["reason"] is None
