"""The search for the largest rate through the real driver, in virtual time, on a queue of known truth."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from engines.base import Chunk, ChunkKind, Request, Usage
from harness.drivers.base import Control, DriveReport, DriveSettings
from harness.drivers.drive import drive
from harness.processes import background
from harness.records import Phase, Record
from harness.run.searching import Searching
from harness.scenario.limits import Slo
from harness.scenario.workload import TrafficClass
from harness.schedule.cells import TrialPlan
from harness.schedule.requests import Schedule, build
from harness.seeding import generator
from harness.store.manifest import SearchEntry
from tests.driven import SECOND
from tests.fabricated import trial_of
from tests.plans import load_of, workload_of
from tests.saturating import CV, MEAN_S, PREFILL_S, SERVERS, SLO_S, TRUE_RATE
from tests.stored import KEY, results_of
from tests.virtual_time import run

SEEDS = (0, 1, 2)


class QueueEngine:
    """First come, first served in 32 slots; lognormal services of 2 s; the first token 50 ms after the slot."""

    def __init__(self, seed: int, servers: int = SERVERS) -> None:
        self._random = generator(seed, 1)
        self._slots = asyncio.Semaphore(servers)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Two tokens: after the prefill, and at the end."""
        sigma2 = math.log(1 + CV**2)
        service_s = float(self._random.lognormal(math.log(MEAN_S) - sigma2 / 2, math.sqrt(sigma2)))
        async with self._slots:
            await asyncio.sleep(PREFILL_S)
            yield Chunk(ChunkKind.CONTENT, "a", 1)
            await asyncio.sleep(max(0.0, service_s - PREFILL_S))
            yield Chunk(ChunkKind.CONTENT, "b", 1)
            yield Chunk(ChunkKind.FINISH, finish_reason="length")
            yield Chunk(ChunkKind.USAGE, usage=Usage(4, 2))


class Searched:
    """A search that was driven: its records, report and events."""

    def __init__(
        self,
        seed: int,
        servers: int = SERVERS,
        stop_at_s: float | None = None,
        classes: Mapping[str, TrafficClass] = MappingProxyType({}),
        slo_s: float = SLO_S,
        **keys: Any,
    ) -> None:
        self.load = load_of(kind="saturate", timeout="60s", **keys)
        slo, workload = Slo.model_validate({"ttft": f"{slo_s}s"}), workload_of(prompt_tokens=4, output_tokens=2)
        self.plan = TrialPlan(0, "000-saturate", "saturate", self.load, workload, dict(classes), slo, (), seed)
        self.schedule: Schedule = build(self.load, workload, seed, classes=classes)
        self.records: list[Record] = []
        self.events: list[dict[str, Any]] = []
        self.report: DriveReport = run(self._drive(QueueEngine(seed, servers), stop_at_s))

    async def _drive(self, engine: Any, stop_at_s: float | None) -> DriveReport:
        control = Control()
        search = Searching(0, self.plan, self.schedule, control, self.events.append)
        if stop_at_s is not None:
            asyncio.get_running_loop().call_later(stop_at_s, control.stop)

        def keep(record: Record) -> None:
            self.records.append(record)
            search.seen.add(record)

        async with background(search.run()):
            return await drive(self.schedule, engine, DriveSettings(timeout_ns=60 * SECOND), keep, control)

    @property
    def entry(self) -> SearchEntry:
        """What the manifest would keep of it."""
        return SearchEntry.model_validate([one for one in self.events if one["event"] == "search"][-1]["search"])

    def fact(self, folder: Path) -> dict[str, Any]:
        """The result that a report derives from the stored records."""
        stored = {"search": self.entry, "slo": self.plan.slo.model_dump(), "kind": "saturate", "seed": self.plan.seed}
        stored["class_slo"] = {name: one.slo.model_dump() for name, one in self.plan.classes.items() if one.slo}
        results = results_of(folder, self.records, self.schedule, **stored)
        found: dict[str, Any] = results.facts[KEY]["saturation"]
        return found


@pytest.fixture(scope="module")
def searched() -> list[Searched]:
    """Three searches of 15 minutes in virtual time."""
    return [Searched(seed) for seed in SEEDS]


@pytest.mark.slow
def test_the_driver_finds_what_the_queue_has(searched: list[Searched], tmp_path: Path) -> None:
    """Known answer 19: the lower rate of each is at most 3 % above the truth, and 90 % of it or more."""
    found = [one.fact(tmp_path / str(number)) for number, one in enumerate(searched)]
    assert all(0.90 * TRUE_RATE <= one["lower_rps"] <= 1.03 * TRUE_RATE for one in found)
    assert all(one["lower_rps"] < one["value_rps"] < one["upper_rps"] for one in found)
    assert all(one["upper_rps"] >= 0.99 * TRUE_RATE for one in found)
    assert {one["binding"] for one in found} <= {"ttft", "stability"}
    assert all(one["throughput_rps"] == pytest.approx(SERVERS / MEAN_S, rel=0.15) for one in found)


@pytest.mark.slow
def test_every_planned_request_has_one_record(searched: list[Searched]) -> None:
    """Rows that the search took back have none; those of the measurement are its window's."""
    check_records(searched)


def test_a_decision_that_takes_long_replaces_no_request_that_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rate begins after it."""
    at_once = Searching._next

    async def slowly(self: Searching, at_s: float) -> Any:
        step = await at_once(self, at_s)
        await asyncio.sleep(0.7)
        return step

    monkeypatch.setattr(Searching, "_next", slowly)
    check_records([Searched(3, within="4m", measure="60s")])


def test_nothing_is_sent_once_a_search_has_ended() -> None:
    """Though arrivals of its last rate were planned for a minute."""
    one = Searched(8, slo_s=0.04, within="8m", measure="20s")
    ended_ns = one.entry.visits[-1].end_ns
    assert max(record.due_ns or 0 for record in one.records) <= ended_ns + 20 * SECOND


def check_records(searched: list[Searched]) -> None:
    """Each row of the plan has a record with its due time, and the measured ones lie in the window."""
    for one in searched:
        numbers = sorted(record.request for record in one.records)
        assert numbers == list(range(len(numbers)))
        due_ns = {record.request: record.due_ns for record in one.records}
        assert one.schedule.due_ns is not None
        assert all(due_ns[number] == one.schedule.due_ns[number] for number in numbers)
        last = one.entry.visits[-1]
        measured = [record.due_ns or 0 for record in one.records if record.phase == Phase.MEASURE]
        assert last.counted_from_ns <= min(measured)
        assert max(measured) < last.end_ns
        assert len(measured) == pytest.approx(last.rate * 60, rel=0.25)


@pytest.mark.slow
def test_requests_are_sent_when_due_whatever_the_search_does(searched: list[Searched]) -> None:
    """In virtual time nothing is late: arrivals go on while the next rate is decided."""
    for one in searched:
        assert all(record.sent_ns == record.due_ns for record in one.records if record.sent_ns is not None)


def test_a_search_within_its_largest_rate_measures_at_it(tmp_path: Path) -> None:
    """The server keeps up with 4/s: no upper rate is made up."""
    one = Searched(3, within="3m", measure="20s", largest_rate=4.0)
    found = one.fact(tmp_path)
    assert one.entry.ended == "largest_rate"
    assert (found["lower_rps"], found["value_rps"], found["upper_rps"]) == (4.0, None, None)
    assert one.entry.visits[-1].state == "confirm"
    assert one.entry.visits[-1].rate == 4.0


def test_an_slo_that_no_rate_meets_has_no_rate_to_plan_with(tmp_path: Path) -> None:
    """The first token takes longer on an empty server, too: the search ends early, and no rate is made up."""
    one = Searched(8, slo_s=0.04, within="8m", measure="20s")
    found = one.fact(tmp_path)
    assert one.entry.ended == "lowest_rate"
    assert (found["lower_rps"], found["value_rps"], found["upper_rps"], found["half_width"]) == (0.0, None, None, None)
    assert found["throughput_rps"] == pytest.approx(SERVERS / MEAN_S, rel=0.2)


def classes_of(**ttft: str) -> dict[str, TrafficClass]:
    """Classes of equal weight, each with its own SLO."""
    return {name: TrafficClass.model_validate({"slo": {"ttft": one}}) for name, one in ttft.items()}


@pytest.mark.slow
def test_classes_are_judged_by_their_own_slo(tmp_path: Path) -> None:
    """Equal SLOs change nothing, whatever the class; a class that may wait lets the rate be higher."""
    keys: dict[str, Any] = {"servers": 8, "within": "5m", "measure": "20s"}
    alone = Searched(4, **keys)
    equal = Searched(4, classes=classes_of(chat="1s", batch="1s"), **keys)
    patient = Searched(4, classes=classes_of(chat="1s", batch="60s"), **keys)
    assert {record.class_name for record in equal.records} == {"chat", "batch"}
    assert equal.entry.visits == alone.entry.visits
    rates = [one.fact(tmp_path / str(number))["value_rps"] for number, one in enumerate((alone, equal, patient))]
    assert rates[0] == rates[1] < rates[2]


def test_a_stopped_search_keeps_what_it_has(tmp_path: Path) -> None:
    """Stopped in the ramp: interrupted, no measurement, no upper rate."""
    one = Searched(4, stop_at_s=25.0)
    assert one.report.interrupted
    assert not [record for record in one.records if record.phase == Phase.MEASURE]
    found = one.fact(tmp_path)
    assert found["ended"] is None
    assert found["value_rps"] is None
    assert found["confirmed"] is None


def test_a_server_slower_than_the_first_rate_is_searched_below_it(tmp_path: Path) -> None:
    """Four slots of 2 s, which serve 2/s, at 8/s first: the backlog is waited for, then the rates are lower."""
    one = Searched(5, servers=4, first_rate=8.0, within="10m")
    found = one.fact(tmp_path)
    assert found["value_rps"] < 2.2
    assert found["share"] == 0.95
    assert one.entry.visits[0].overloaded
    assert one.entry.visits[1].state == "pause"


def test_the_same_seed_sends_the_same_ramp() -> None:
    """Arrivals of a stretch follow from the seed and its number."""
    first, second = (Searched(6, within="2m", measure="10s", largest_rate=4.0) for _ in range(2))
    assert first.schedule.plan_hash == second.schedule.plan_hash
    assert [one.due_ns for one in first.records] == [one.due_ns for one in second.records]


def test_searches_are_of_their_trial_only() -> None:
    """A trial of another kind has no result of a search."""
    assert trial_of([]).trial.search is None
