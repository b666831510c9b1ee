"""What a start measures: the library's import inside the stopwatch, the files looked for, the order of it all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import engines
from engines.base import EngineInfo, EngineSpec, MemoryEstimate
from engines.simulated import SimulatedEngine
from harness.run import engine as engine_start
from harness.run.engine import started_engine, starting, timed_import
from harness.scenario.model import Scenario
from harness.schedule.cells import Cell
from harness.schedule.matrix import expand
from harness.store.manifest import StartEntry
from harness.verdict.decision.rows import _why_not_cold

SCENARIO = Scenario.model_validate(
    {"engines": [{"engine": "simulated", "options": {"ttft_ms": 0, "tpot_ms": 0}}],
     "load": [{"kind": "single_user", "requests": 1}]}
)  # fmt: skip
A_WHILE_S = 0.05


class WithLibrary(SimulatedEngine):
    """Tells in which order it was asked, and how long it took over its import and its starts."""

    def __init__(self, spec: EngineSpec, asked: list[tuple[str, float]], weights: Sequence[Path]) -> None:
        super().__init__(spec)
        self._asked, self._weights = asked, weights

    def prepare(self) -> Sequence[Path]:
        """Its files."""
        self._asked.append(("prepare", 0.0))
        return self._weights

    def import_library(self) -> None:
        """It takes a while."""
        began = time.monotonic()
        time.sleep(A_WHILE_S)
        self._asked.append(("import", time.monotonic() - began))

    def memory_needed(self) -> MemoryEstimate:
        """As `transformers`, which asks torch for the device."""
        self._asked.append(("memory", 0.0))
        return MemoryEstimate("cpu", {"weights": 1})

    async def start(self) -> EngineInfo:
        """At once."""
        began = time.monotonic()
        info = await super().start()
        self._asked.append(("start", time.monotonic() - began))
        return info


def started(
    monkeypatch: pytest.MonkeyPatch, weights: Sequence[Path], dropped: float | None = 1.0
) -> tuple[list[tuple[str, float]], dict[str, Any]]:
    """What the engine was asked, and what the last event says of its starts."""
    asked: list[tuple[str, float]] = []
    monkeypatch.setattr(engines, "create", lambda spec: WithLibrary(spec, asked, weights))
    monkeypatch.setattr(engine_start, "dropped_share", lambda files: dropped if files else None)
    (cell,) = expand(SCENARIO)
    assert isinstance(cell, Cell)
    events: list[dict[str, Any]] = []

    async def body() -> None:
        async with started_engine(cell, SCENARIO, events.append):
            pass

    asyncio.run(body())
    return asked, [event for event in events if event["event"] == "started"][-1]["start"]


def test_the_import_is_part_of_both_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server would import its library at each start. It comes before anything else that needs the library, so that
    nothing of it is left out, and is told beside.
    """
    asked, start = started(monkeypatch, [tmp_path / "weights"])
    assert [what for what, _ in asked] == ["prepare", "import", "memory", "start", "prepare", "start"]
    took = dict(asked[1:2])["import"]
    assert took >= A_WHILE_S
    assert start["import_s"] >= took
    cold, warm = asked[3][1], asked[5][1]
    assert start["load_s"] >= took + cold
    assert start["load_warm_s"] >= took + warm


@pytest.mark.parametrize(
    ("dropped", "cold", "said"),
    [
        (1.0, True, ""),
        (0.96, True, ""),
        (0.94, False, "6% of the weight files stayed in the file cache: perhaps not cold"),
        (0.0, False, "100% of the weight files stayed in the file cache: perhaps not cold"),
        (None, False, "the system does not tell whether the weight files left the file cache: perhaps not cold"),
    ],
)
def test_a_start_is_cold_where_the_files_had_left_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dropped: float | None, cold: bool, said: str
) -> None:
    """At least 95 % of their bytes; else the table says what stayed."""
    _, start = started(monkeypatch, [tmp_path / "weights"], dropped)
    assert (start["load_cold"], start["load_dropped_share"]) == (cold, dropped)
    assert _why_not_cold([StartEntry.model_validate(start)]) == said


def test_a_start_says_when_it_was_and_where_its_memory_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The parent reads memory from the begin of the cold start on; of an engine in process that is this process."""
    served = engines.create(EngineSpec("http", options={"url": "http://127.0.0.1:9"}))
    before_ns = time.monotonic_ns()
    _, start = started(monkeypatch, [tmp_path / "weights"])
    assert before_ns < start["began_ns"] < start["ready_ns"] < time.monotonic_ns()
    assert starting(SimulatedEngine(EngineSpec("simulated"))) == {"event": "starting", "in_process": True}
    assert starting(served) == {"event": "starting", "in_process": False}


def raising(error: Exception) -> Callable[[], None]:
    """An import that fails."""

    def import_library() -> None:
        raise error

    return import_library


@pytest.mark.parametrize("error", [ImportError("no module named torch"), OSError("libcudart.so: not found")])
def test_a_library_that_cannot_be_imported_is_the_starts_to_tell(error: Exception) -> None:
    """There is no time of it, and nothing is raised; nor for an engine that imports nothing here."""
    engine = SimulatedEngine(EngineSpec("simulated"))
    assert timed_import(engine) is None
    engine.import_library = raising(error)  # type: ignore[attr-defined]
    assert timed_import(engine) is None
