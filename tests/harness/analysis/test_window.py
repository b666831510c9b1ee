"""The window in which rates are measured: where it begins and ends, and that no way to limit a load changes them.

Loads are driven in virtual time over engines whose rates arithmetic tells.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import EngineSpec
from engines.simulated import SimulatedEngine
from harness.analysis.rates import rates
from harness.analysis.reading import read
from harness.analysis.window import Window, window_of
from harness.records import Phase, Record, Status
from tests.driven import driven_on, measured, number, rates_of, rates_read, results_on, simulated
from tests.fabricated import FabricatedTrial, again, failed, streamed, trial_of
from tests.plans import exact_schedule
from tests.stored import KEY

S = 1_000_000_000
RATES = ("offered_rps", "completed_rps", "goodput_rps", "output_tokens_per_s", "mean_concurrency")
CLOSED_RATES = ("offered_rps", "completed_rps", "output_tokens_per_s", "mean_concurrency")
LIMITS = [{"requests": 100}, {"duration": "5s"}, {"requests": 100, "warmup": "3s"}, {"duration": "5s", "warmup": "3s"}]


@pytest.mark.slow
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: " ".join(limit))
def test_an_open_loop_has_its_rates_whatever_limits_it(tmp_path: Path, limit: dict[str, Any]) -> None:
    """20/s, 20 tokens over 2 s each: 20 offered, completed and good, 400 tokens and 40 in flight, with and without a
    warm-up, limited by a number or by a time.
    """
    schedule = exact_schedule(20, kind="sustained", rate=20, arrivals="constant", **limit)
    results = results_on(tmp_path, simulated(ttft_ms=100, tpot_ms=100), schedule, slo={"e2e_ms": 2500.0})
    assert rates_of(results, *RATES) == [20, 20, 20, 400, 40]
    window = results.facts[KEY]["window"]
    assert window["ramp_in_s"] == (0 if "warmup" in limit else 2)
    assert window["end_s"] - window["start_s"] == (5 if "warmup" in limit else 3)
    assert number(results, "e2e_ms", "p50") == pytest.approx(2000)
    assert results.facts[KEY]["statuses"] == {"ok": 100}


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [10, 100])
def test_a_slow_server_is_not_punished_for_its_last_replies(tmp_path: Path, tokens: int) -> None:
    """2/s, replies over 1 s or over 10: 2.0 offered, completed and good either way, though the last ends 10 s late."""
    schedule = exact_schedule(tokens, kind="sustained", rate=2, arrivals="constant", requests=120)
    results = results_on(tmp_path, simulated(ttft_ms=100, tpot_ms=100), schedule, slo={"e2e_ms": 20_000.0})
    assert rates_of(results, *RATES) == [2, 2, 2, 2 * tokens, 0.2 * tokens]
    assert number(results, "attainment") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("users", "requests"), [(32, 100), (16, 50), (8, 100), (64, 256), (4, 40), (5, 20), (1, 7), (8, 16)]
)
def test_users_have_their_rate_whatever_number_limits_them(tmp_path: Path, users: int, requests: int) -> None:
    """Replies of 1 s: as many a second, and in flight, as there are users, also where the number is no multiple."""
    schedule = exact_schedule(3, kind="sustained", users=users, requests=requests)
    results = results_on(tmp_path, simulated(ttft_ms=500, tpot_ms=250), schedule)
    assert rates_of(results, *CLOSED_RATES) == [users, users, 3 * users, users]
    assert results.facts[KEY]["requests"]["measure"] == requests


@pytest.mark.slow
@pytest.mark.parametrize("limit", [{"requests": 100}, {"duration": "20s"}, {"requests": 100, "warmup": "5s"}])
def test_nobody_is_idle_while_users_are_measured(limit: dict[str, Any]) -> None:
    """Eight users and exponential services of 1 s: 8.000 in flight in each of twelve runs, 8/s over all of them."""
    schedule, per_s = exact_schedule(2, kind="sustained", users=8, **limit), []
    for seed in range(12):
        found = rates_read(simulated(ttft_ms=1000, tpot_ms=0, service="exponential", seed=seed), schedule)
        assert found["mean_concurrency"] == pytest.approx(8, abs=1e-6)
        per_s.append(found["completed_rps"])
    assert np.mean(per_s) == pytest.approx(8, rel=0.03)


class Uneven(SimulatedEngine):
    """Takes up to a twentieth more or less for each reply, so that users go on in waves."""

    def _receive(self) -> tuple[int, float]:
        number_, _ = super()._receive()
        return number_, self._random.uniform(0.95, 1.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit", [{"requests": 100}, {"requests": 125}, {"requests": 128}, {"duration": "5s"}, {"duration": "30s"}]
)
def test_a_wave_of_users_is_not_counted_twice(limit: dict[str, Any]) -> None:
    """32 users whose replies take 1 s, give or take 5 %: 32/s over eight runs, wherever in a wave the window ends."""
    schedule, per_s = exact_schedule(1, kind="sustained", users=32, **limit), []
    for seed in range(8):
        engine = Uneven(EngineSpec("simulated", options={"ttft_ms": 1000, "tpot_ms": 0, "seed": seed}))
        found = rates_read(engine, schedule)
        assert found["mean_concurrency"] == pytest.approx(32, abs=1e-6)
        per_s.append(found["completed_rps"])
    assert np.mean(per_s) == pytest.approx(32, rel=0.03)


@pytest.mark.slow
def test_less_than_a_round_of_users_is_measured_to_its_end(tmp_path: Path) -> None:
    """64 users and 100 requests of about 1 s: 36 of a second wave say nothing of a rate, 100 in two seconds do."""
    engine = Uneven(EngineSpec("simulated", options={"ttft_ms": 1000, "tpot_ms": 0, "seed": 1}))
    results = results_on(tmp_path, engine, exact_schedule(1, kind="sustained", users=64, requests=100))
    assert number(results, "completed_rps") == pytest.approx(50, rel=0.05)
    assert results.facts[KEY]["window"]["text"].startswith("first due to last done, ")


@pytest.mark.slow
def test_users_who_think_keep_their_law(tmp_path: Path) -> None:
    """Four users, 1 s of service and 3 of thinking: 1/s and 1 in flight, ten requests or a hundred of them."""
    for requests in (12, 100):
        schedule = exact_schedule(1, kind="sustained", users=4, requests=requests, think_time="3s")
        results = results_on(tmp_path / str(requests), simulated(ttft_ms=1000, tpot_ms=0), schedule)
        assert rates_of(results, *CLOSED_RATES) == [1, 1, 1, 1]


@pytest.mark.slow
def test_requests_that_were_all_sent_at_once_are_measured_to_their_end(tmp_path: Path) -> None:
    """Eight users, eight requests: nothing falls due after the first reply, and 8 in 1 s are 8/s."""
    schedule = exact_schedule(1, kind="sustained", users=8, requests=8)
    results = results_on(tmp_path, simulated(ttft_ms=1000, tpot_ms=0), schedule)
    assert rates_of(results, *CLOSED_RATES) == pytest.approx([8, 8, 8, 8], rel=1e-6)
    assert results.facts[KEY]["window"]["text"] == "first due to last done, 1.000 s"


@pytest.mark.slow
def test_conversations_limited_by_number_keep_their_rate(tmp_path: Path) -> None:
    """Two conversations a second of three turns of 1 s: 6/s and 6 in flight, from the plan's window, turns included."""
    load = {"kind": "sessions", "rate": 2, "sessions": 60, "turns": 3, "arrivals": "constant", "warmup": "5s"}
    schedule = exact_schedule(1, **load)
    results = results_on(tmp_path, simulated(ttft_ms=1000, tpot_ms=0), schedule)
    assert rates_of(results, *CLOSED_RATES) == [6, 6, 6, 6]
    assert results.facts[KEY]["window"]["text"] == "5 s to 35 s"


@pytest.mark.slow
def test_the_last_measured_requests_meet_the_load_of_the_first(tmp_path: Path) -> None:
    """Two slots and 32 users: every measured reply but the first two pairs waited for 30 others or more."""
    schedule = exact_schedule(1, kind="sustained", users=32, requests=100)
    records, report = driven_on(simulated(ttft_ms=100, tpot_ms=0, max_batch=2), schedule)
    counted = measured(records)
    assert len(counted) == 100
    waits_ms = [(one.done_ns - one.due_ns) / 1e6 for one in counted[-60:]]  # type: ignore[operator]
    assert waits_ms == pytest.approx([1600] * 60)
    assert report.measured_until_ns == min(one.due_ns for one in records if one.phase == Phase.COOLDOWN)  # type: ignore[type-var]


class HangsOnce(SimulatedEngine):
    """Never answers the first request."""

    async def _maybe_hang(self, number: int) -> None:
        if number == 1:
            await asyncio.get_running_loop().create_future()


@pytest.mark.slow
def test_what_follows_the_measured_requests_is_bounded() -> None:
    """A reply that never comes keeps the others going for as many requests again, not for ever."""
    schedule = exact_schedule(1, kind="sustained", users=3, requests=10)

    records, _ = driven_on(HangsOnce(EngineSpec("simulated", options={"ttft_ms": 100})), schedule, timeout_s=60)
    phases = [one.phase for one in records]
    assert (phases.count(Phase.MEASURE), phases.count(Phase.COOLDOWN)) == (10, 10)
    assert [one.request for one in records if one.status == Status.TIMEOUT] == [0]


def every(gap_ms: float, count: int, e2e_ms: float, **changes: Any) -> list[Record]:
    """Requests at constant distance, one token each at the end."""
    return [streamed(i, i * gap_ms, ttft_ms=e2e_ms, tokens=1, **changes) for i in range(count)]


def cooled(records: list[Record], first: int) -> list[Record]:
    """The same, those from `first` on as cooldown."""
    for record in records[first:]:
        record.phase = Phase.COOLDOWN
    return records


def window(trial: FabricatedTrial) -> Window:
    """Of a fabricated trial."""
    return read(trial).window


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 60), st.integers(2, 200))
def test_at_constant_rate_and_speed_every_rate_is_exact(gap: int, e2e: int, count: int) -> None:
    """In tens of ms: whatever the rate, the service time and the number, offered is completed is 1 / gap."""
    gap_ms, e2e_ms = gap * 10.0, e2e * 10.0
    records = cooled(every(gap_ms, 2 * count, e2e_ms), count)
    trial = trial_of(records, end_s=count * gap_ms / 1000, planned={"measure": count})
    reading = read(trial)
    found = rates(reading.columns, reading.window)
    if e2e_ms < (count - 1) * gap_ms:  # else the load never came up within the window
        assert found["offered_rps"].value == pytest.approx(1000 / gap_ms)
        assert found["completed_rps"].value == pytest.approx(1000 / gap_ms)
        assert found["mean_concurrency"].value == pytest.approx(e2e_ms / gap_ms)
        assert reading.window.ramp_in_ns <= -(-e2e_ms // gap_ms) * gap_ms * 1e6


def test_the_window_is_half_open() -> None:
    """What falls due, or is done, in the moment of its end is not in it; what does so at its beginning is."""
    one = Window(1e9, 2e9, "")
    moments = np.array([1e9 - 1, 1e9, 2e9 - 1, 2e9, np.nan])
    assert one.holds(moments).tolist() == [False, True, True, False, False]
    assert np.histogram(moments[:-1], one.edges())[0].sum() == 2
    records = [streamed(0, 1000, tokens=1), streamed(1, 1900, ttft_ms=100, tokens=1), streamed(2, 2000, tokens=1)]
    columns = read(trial_of(records)).columns
    assert len(one.population(columns)) == 2
    found = rates(columns, one)
    assert (found["offered_rps"].value, found["completed_rps"].value, found["output_tokens_per_s"].value) == (2, 1, 1)


def test_the_window_of_a_warm_load_is_the_planned_one() -> None:
    """Where replies were complete before it began nothing is left out."""
    records = every(100, 100, 300)
    for record in records[:10]:
        record.phase = Phase.WARMUP
    found = window(trial_of(cooled(records, 60), start_s=1, end_s=6))
    assert (found.start_ns, found.end_ns, found.ramp_in_ns, found.text) == (1e9, 6e9, 0, "1 s to 6 s")


def test_a_short_warm_up_shortens_the_window() -> None:
    """A warm-up of 1 s before replies of 3: another 2 s are left out, which the window says."""
    records = every(100, 120, 3000)
    for record in records[:10]:
        record.phase = Phase.WARMUP
    found = window(trial_of(cooled(records, 60), start_s=1, end_s=6))
    assert (found.start_ns, found.end_ns, found.ramp_in_ns, found.text) == (3e9, 6e9, 2e9, "3.000 s to 6.000 s")


def test_a_stall_at_the_beginning_does_not_hide_what_follows_it() -> None:
    """Frozen for 5 s, then 100 ms for each, ten a second: the load has come up as soon as one is in flight."""
    records = [streamed(i, i * 100, ttft_ms=max(5000 - i * 100, 100), tokens=1) for i in range(200)]
    found = window(trial_of(cooled(records, 100), end_s=10))
    assert (found.start_ns, found.end_ns) == (0.1e9, 10e9)


def test_a_trial_that_broke_off_ends_with_the_last_request_sent() -> None:
    """The time after it was not offered anything; of a trial stopped in the cooldown the last measured one counts."""
    records = every(100, 50, 100)
    broken = window(trial_of(records, status="interrupted", end_s=60))
    assert (broken.start_ns, broken.end_ns) == (0.1e9, 4.9e9)
    late = window(trial_of(cooled(every(100, 50, 100), 40), status="interrupted", end_s=4))
    assert late.end_ns == 3.9e9


def test_a_trace_ends_with_its_last_request() -> None:
    """Nothing follows it, so that nothing says how long that one counts."""
    found = window(trial_of(every(100, 50, 300), end_s=None))
    assert (found.start_ns, found.end_ns, found.alone) == (0.3e9, 4.9e9, False)


def test_a_lone_spike_is_measured_until_all_have_ended() -> None:
    """Twenty at once, 100 ms after each other: 10/s, of the measured alone."""
    spans = {"first_s": 0.0, "length_s": 0.0, "every_s": None}
    records = [streamed(i, 0, ttft_ms=100 * (i + 1), tokens=1) for i in range(20)]
    reading = read(trial_of(records, bursts=spans, end_s=None))
    assert (reading.window.start_ns, reading.window.end_ns, reading.window.alone) == (0, 2e9 + 1, True)
    assert rates(reading.columns, reading.window)["completed_rps"].value == pytest.approx(10, rel=1e-6)


def test_a_closed_loop_ends_when_the_first_fell_due_that_was_not_measured() -> None:
    """The client tells when that was; without it, the window ends with the last measured request due."""
    records = cooled(every(1000, 12, 1000), 8)
    told = {"loop": "closed", "end_s": None}
    assert window(trial_of(records, client={"measured_until_ns": 8 * S}, **told)).end_ns == 8e9
    assert window(trial_of(records, client={}, **told)).end_ns == 7e9


def test_without_measured_requests_the_window_is_the_plans() -> None:
    """And without an end there is none."""
    columns = read(trial_of(cooled(every(100, 3, 100), 0))).columns
    entry = trial_of([]).trial
    assert window_of(entry, columns).end_ns == 60e9
    assert window_of(again(entry, window={"start_ns": 0, "end_ns": None}), columns).seconds == 0


def test_nothing_that_failed_brings_the_load_up() -> None:
    """Where every request is refused at once the whole window counts, with nothing completed in it."""
    records = cooled([failed(i, i * 100, Status.HTTP_ERROR, 5) for i in range(200)], 100)
    reading = read(trial_of(records, end_s=10))
    assert (reading.window.start_ns, reading.window.end_ns) == (0, 10e9)
    found = rates(reading.columns, reading.window)
    assert (found["offered_rps"].value, found["completed_rps"].value) == (10, 0)
