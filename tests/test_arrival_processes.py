"""Every arrival process, from scenario to records, in virtual time: rate, dispersion and shape as theory has them.

What is judged is when requests were sent, not the plan alone: the driver must not bend it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.base import EngineSpec
from engines.simulated import SimulatedEngine
from harness.drivers.base import DriveSettings, Part
from harness.drivers.drive import drive
from harness.records import Loop, Phase, Record
from harness.schedule.requests import Schedule, Shard, build
from tests.dispersion import index_of_dispersion
from tests.plans import load_of, workload_of
from tests.virtual_time import run

pytestmark = pytest.mark.slow

SECOND = 1_000_000_000
Int64 = NDArray[np.int64]
ONE_TOKEN = {"prompt_tokens": 8, "output_tokens": {"dist": "fixed", "value": 1, "exact": True}}


def plan_of(workload: dict[str, Any] | None = None, **load: Any) -> Schedule:
    """A plan of one-token requests."""
    return build(load_of(**load), workload_of(**ONE_TOKEN, **(workload or {})), 11)


def driven(plan: Schedule, part: Part | None = None, **options: Any) -> list[Record]:
    """Measured records in the order of sending; each reply takes 5 ms unless told otherwise."""
    records: list[Record] = []

    async def body() -> None:
        engine = SimulatedEngine(EngineSpec("simulated", options={"ttft_ms": 5, "tpot_ms": 0} | options))
        await engine.start()
        settings = DriveSettings(1000 * SECOND, keep_chunks=False)
        await drive(plan, engine, settings, records.append, None, *([] if part is None else [part]))
        await engine.stop()

    run(body())
    measured = [record for record in records if record.phase == Phase.MEASURE]
    return sorted(measured, key=lambda record: (record.sent_ns or 0, record.request))


def sent(records: list[Record]) -> Int64:
    """When each was sent."""
    return np.array([record.sent_ns for record in records], dtype=np.int64)


def kolmogorov_smirnov(values: NDArray[np.float64]) -> float:
    """The p-value of the hypothesis that values in [0, 1] are evenly distributed (asymptotic, Kolmogorov 1933)."""
    n = len(values)
    ranks = np.arange(1, n + 1) / n
    ordered = np.sort(values)
    distance = max(float((ranks - ordered).max()), float((ordered - ranks + 1 / n).max()))
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    tail = sum((-1) ** (k - 1) * math.exp(-2 * k * k * scaled**2) for k in range(1, 101))
    return float(min(1.0, 2 * tail))


def test_constant() -> None:
    """A request every 10 ms, to the nanosecond of the virtual clock's precision."""
    moments = sent(driven(plan_of(kind="sustained", rate=100, arrivals="constant", requests=5000)))
    assert np.abs(np.diff(moments) - SECOND // 100).max() <= 2
    assert moments[-1] - moments[0] == pytest.approx(49.99 * SECOND, abs=2)


def test_poisson() -> None:
    """Independent exponential gaps: dispersion 1 in windows of any length, no correlation, no lattice of seconds."""
    moments = sent(driven(plan_of(kind="sustained", rate=50, requests=20_000)))
    gaps = np.diff(moments) / SECOND
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.02)
    assert kolmogorov_smirnov(1 - np.exp(-50 * gaps)) > 1e-3
    assert index_of_dispersion(moments, 1) == pytest.approx(1, abs=0.35)  # 200 windows: 0.1 is one standard deviation
    assert index_of_dispersion(moments, 0.05) == pytest.approx(1, abs=0.09)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.04
    assert (moments % SECOND == 0).mean() < 1e-3


@pytest.mark.parametrize(("cv", "tolerance"), [(0.5, 0.05), (2.0, 0.1)])
def test_gamma(cv: float, tolerance: float) -> None:
    """Gaps of the asked variation; over long windows counts vary by its square."""
    moments = sent(driven(plan_of(kind="sustained", rate=100, arrivals="gamma", cv=cv, requests=10_000)))
    gaps = np.diff(moments)
    assert gaps.mean() == pytest.approx(SECOND / 100, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=tolerance)
    assert index_of_dispersion(moments, 1) == pytest.approx(cv**2, rel=0.5)


def test_bursts() -> None:
    """4/s, and 40/s for the middle 2 s of every 10 s: both rates, each evenly filled."""
    moments = sent(
        driven(plan_of(kind="burst", rate=4, burst_rate=40, burst_for="2s", every="10s", duration="400s", timeout="9s"))
    )
    within = (moments / SECOND - 4) % 10  # from the beginning of a burst on
    assert (within < 2).sum() / 80 == pytest.approx(40, rel=0.06)
    assert (within >= 2).sum() / 320 == pytest.approx(4, rel=0.1)
    assert kolmogorov_smirnov(within[within < 2] / 2) > 1e-3
    assert kolmogorov_smirnov((within[within >= 2] - 2) / 8) > 1e-3


def test_spike() -> None:
    """200 extra requests in one second, evenly, over 10/s."""
    spike = {"requests": 200, "within": "1s", "at": "30s"}
    moments = sent(driven(plan_of(kind="burst", rate=10, spike=spike, duration="60s", timeout="9s"))) / SECOND
    inside = (moments >= 30) & (moments < 31)
    assert inside.sum() == pytest.approx(210, abs=12)
    assert (~inside).sum() / 59 == pytest.approx(10, rel=0.15)
    assert kolmogorov_smirnov(moments[inside] - 30) > 1e-3


def test_steps() -> None:
    """Each rate for as long as asked."""
    steps = [{"rate": 20, "for": "50s"}, {"rate": 80, "for": "50s"}, {"rate": 40, "for": "100s"}]
    moments = sent(driven(plan_of(kind="steps", steps=steps, timeout="9s"))) / SECOND
    counts = np.histogram(moments, [0, 50, 100, 200])[0]
    assert counts / [50, 50, 100] == pytest.approx([20, 80, 40], rel=0.07)
    integral = np.interp(moments, [0, 50, 100, 200], np.array([0, 1000, 5000, 9000]) / 9000)
    assert kolmogorov_smirnov(integral) > 1e-3


def test_ramp() -> None:
    """From 0 to 40/s in 100 s, then 40/s: a quarter of the ramp's requests in its first half."""
    ramp = {"from": 0, "over": "100s"}
    moments = sent(driven(plan_of(kind="sustained", rate=40, ramp=ramp, duration="150s", timeout="9s"))) / SECOND
    expected = np.where(moments < 100, 0.2 * moments**2, 2000 + 40 * (moments - 100))
    assert len(moments) == pytest.approx(4000, rel=0.05)
    assert kolmogorov_smirnov(expected / 4000) > 1e-3


def test_trace(tmp_path: Path) -> None:
    """Every recorded request at its recorded time; slowed down and thinned as asked."""
    due_s = np.cumsum(np.random.default_rng(3).exponential(0.02, 3000)).round(6)
    file = tmp_path / "trace.csv"
    rows = "\n".join(f"{at:.6f},8,1" for at in due_s)
    file.write_text(f"due_s,prompt_tokens,output_tokens\n{rows}\n")
    moments = sent(driven(plan_of(kind="trace", file=str(file))))
    assert np.abs((moments - moments[0]) - np.rint((due_s - due_s[0]) * 1e9)).max() <= 2
    fewer = sent(driven(plan_of(kind="trace", file=str(file), time_scale=2, sample=0.5)))
    assert len(fewer) == pytest.approx(1500, rel=0.06)
    assert len(fewer) / (fewer[-1] - fewer[0]) * SECOND == pytest.approx(50 / 4, rel=0.1)


THINKING = [
    ("500ms", 0.5, 0.0),
    ({"dist": "exponential", "mean": "500ms"}, 0.5, 1.0),
    ({"dist": "lognormal", "median": "500ms", "p95": "2s"}, 0.713, 1.017),
]


@pytest.mark.parametrize(("think_time", "mean_s", "variation"), THINKING)
def test_closed_loops(think_time: Any, mean_s: float, variation: float) -> None:
    """Ten users, 100 ms a reply, thinking: X = N / (R + Z), and think times of the asked mean and variation."""
    plan = plan_of(kind="sustained", users=10, duration="150s", think_time=think_time, timeout="9s")
    records = driven(plan, ttft_ms=100)
    assert {record.loop for record in records} == {Loop.CLOSED}
    assert len(records) / 150 == pytest.approx(10 / (0.1 + mean_s), rel=0.04)
    by_request = {record.request: record for record in records}
    thought = np.array(
        [
            (record.due_ns or 0) - (by_request[record.after].done_ns or 0)
            for record in records
            if record.after in by_request
        ]
    )
    assert thought.mean() / SECOND == pytest.approx(mean_s, rel=0.05)
    assert thought.std() / thought.mean() == pytest.approx(variation, rel=0.1, abs=1e-6)


def test_sessions() -> None:
    """Conversations begin as Poisson arrivals whatever the replies take; turns follow reply and think time.

    2/s of 1 to 5 turns: 6 requests/s. With 200 ms a reply and 400 ms of thinking a conversation of n turns lasts
    n * 0.2 + (n - 1) * 0.4 s, 1.4 s on average, so that 2.8 are under way (Little's law).
    """
    turns = {"dist": "uniform", "min": 1, "max": 5}
    plan = plan_of(
        kind="sessions", rate=2, turns=turns, think_time="400ms", warmup="50s", duration="1000s", timeout="9s"
    )
    assert plan.loop is Loop.PARTLY_OPEN
    records = driven(plan, ttft_ms=200)
    begun = [record for record in records if record.turn == 0]
    moments = sent(begun)
    assert {record.loop for record in begun} == {Loop.OPEN}
    assert {record.loop for record in records if record.turn} == {Loop.CLOSED}
    assert len(begun) / 1000 == pytest.approx(2, rel=0.07)
    assert len(records) / 1000 == pytest.approx(6, rel=0.07)
    assert kolmogorov_smirnov(1 - np.exp(-2 * np.diff(moments) / SECOND)) > 1e-3
    assert index_of_dispersion(moments, 5) == pytest.approx(1, abs=0.25)
    ended = {record.session: record.done_ns or 0 for record in records}
    lasting = [ended[record.session] - (record.due_ns or 0) for record in begun if (record.due_ns or 0) < 1000 * SECOND]
    assert sum(lasting) / (950 * SECOND) == pytest.approx(2.8, rel=0.08)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_many_workers_send_what_one_does(workers: int) -> None:
    """Known answer 5: the arrivals of Poisson traffic do not depend on how many share it, and stay as dispersed."""
    plan = plan_of(kind="sustained", rate=50, requests=2000)
    parts = [driven(plan, Part(shard=Shard(index, workers))) for index in range(workers)]
    moments = np.sort(np.concatenate([sent(part) for part in parts]))
    assert plan.due_ns is not None
    assert np.abs(moments - plan.due_ns[:2000]).max() <= 2
    assert index_of_dispersion(moments, 1) == pytest.approx(1, abs=0.6)
