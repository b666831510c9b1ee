"""Loads driven over engines in virtual time, and what a run finds out that stored their records."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from engines.base import EngineSpec, InProcessEngine
from engines.simulated import SimulatedEngine
from harness.analysis.rates import rates
from harness.analysis.reading import read
from harness.drivers.base import DriveReport, DriveSettings
from harness.drivers.drive import drive
from harness.records import Phase, Record
from harness.results import Results
from harness.run.entries import plan_entry
from harness.schedule.requests import Schedule
from tests.fabricated import trial_of, value
from tests.stored import results_of
from tests.virtual_time import VirtualTimeLoop, run

SECOND = 1_000_000_000


def simulated(**options: Any) -> SimulatedEngine:
    """The engine with exact times."""
    return SimulatedEngine(EngineSpec("simulated", options=options))


def driven_on(
    engine: InProcessEngine, schedule: Schedule, timeout_s: int = 1000, busy_s: float = 0.0, cap: int | None = None
) -> tuple[list[Record], DriveReport]:
    """All records of a schedule on an engine that waits with its loop's timers, and the client's report.

    busy_s: how long the client is busy with each record before it does anything else. cap: on the requests in flight.
    """
    records: list[Record] = []

    def sink(record: Record) -> None:
        records.append(record)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.be_busy(busy_s)

    async def body() -> DriveReport:
        await engine.start()
        settings = DriveSettings(timeout_ns=timeout_s * SECOND, most_in_flight=cap)
        report = await drive(schedule, engine, settings, sink)
        await engine.stop()
        return report

    return records, run(body())


def measured(records: list[Record]) -> list[Record]:
    """Those of the measured phase, in the order of the requests."""
    return sorted((one for one in records if one.phase == Phase.MEASURE), key=lambda record: record.request)


def results_on(path: Path, engine: InProcessEngine, schedule: Schedule, timeout_s: int = 1000, **trial: Any) -> Results:
    """What a run finds out whose only trial was this load. trial: more of its entry in the manifest."""
    records, report = driven_on(engine, schedule, timeout_s)
    until = {"measured_until_ns": report.measured_until_ns}
    return results_of(path, records, schedule, **{"client": until, **trial})


def rates_read(engine: InProcessEngine, schedule: Schedule, timeout_s: int = 1000) -> dict[str, float]:
    """The rates of a trial whose load this was, read from its records without a store between."""
    records, report = driven_on(engine, schedule, timeout_s)
    trial = trial_of(records, client={"measured_until_ns": report.measured_until_ns})
    plan = plan_entry(schedule)
    trial.trial.take(plan, plan.model_fields_set)
    reading = read(trial)
    return {name: found.value for name, found in rates(reading.columns, reading.window).items()}


def number(results: Results, metric: str, statistic: str = "value") -> float:
    """One number of the summary."""
    return float(value(results.summary, metric, statistic)["value"])


def rates_of(results: Results, *metrics: str) -> list[float]:
    """Several rates, to a millionth."""
    return [round(number(results, metric), 6) for metric in metrics]
