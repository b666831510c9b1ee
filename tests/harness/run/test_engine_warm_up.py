"""Starting an engine: no instance is measured with its first request, and a refused temperature is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import engines
from engines.base import Chunk, ChunkKind, EngineInfo, EngineSpec, Request, Usage
from harness.records import Record
from harness.run.engine import refused_temperature, started_engine
from harness.scenario.reader import load
from harness.schedule.cells import Cell
from harness.schedule.matrix import expand

LOADS = "[{kind: single_user, requests: 5}, {kind: sustained, users: 3, requests: 9}]"


class Counting:
    """An engine in process that keeps what each of its instances was asked."""

    made: list[Counting] = []  # noqa: RUF012
    weights: tuple[Path, ...] = ()

    def __init__(self, spec: EngineSpec) -> None:
        self.asked: list[Request] = []
        self.made.append(self)

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """None."""
        return ()

    def prepare(self) -> Sequence[Path]:
        """The files whose loading is measured twice."""
        return self.weights

    async def start(self) -> EngineInfo:
        """At once."""
        return EngineInfo("counting")

    async def stop(self) -> None:
        """Nothing to end."""

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """One token."""
        self.asked.append(request)
        yield Chunk(ChunkKind.CONTENT, "a", tokens=1)
        yield Chunk(ChunkKind.FINISH, finish_reason="length")
        yield Chunk(ChunkKind.USAGE, usage=Usage(1, 1))


def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: str = LOADS, files: int = 1) -> dict[str, Any]:
    """What the last event says of the start of a cell with these loads, whose engine has so many weight files."""
    paths = [tmp_path / f"weights{number}" for number in range(files)]
    for path in paths:
        path.write_bytes(b"w" * 4096)
    monkeypatch.setattr(Counting, "made", [])
    monkeypatch.setattr(Counting, "weights", tuple(paths))
    monkeypatch.setattr(engines, "create", Counting)
    (tmp_path / "s.yaml").write_text(f"engines: [{{engine: simulated}}]\nload: {loads}\n")
    scenario = load(str(tmp_path / "s.yaml"))
    (cell,) = expand(scenario)
    assert isinstance(cell, Cell)
    events: list[dict[str, Any]] = []

    async def main() -> None:
        async with started_engine(cell, scenario, events.append):
            pass

    asyncio.run(main())
    found: dict[str, Any] = [event["start"] for event in events if event["event"] == "started"][-1]
    return found


def test_the_measured_instance_is_asked_before_it_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start has the first request alone; the second one gets one, then as many as the loads have users."""
    start = started(tmp_path, monkeypatch)
    first, second = Counting.made
    assert (len(first.asked), len(second.asked)) == (1, 4)
    assert start["warm_up"] == 4
    assert first.asked[0].max_tokens == 128
    assert {request.max_tokens for request in second.asked} == {16}
    prompts = [request.prompt for request in (*first.asked, *second.asked)]
    assert len(set(prompts)) == len(prompts)
    assert all(request.sampling == {"temperature": 0} for request in second.asked)


@pytest.mark.parametrize(
    ("loads", "asked"),
    [
        ("[{kind: single_user, requests: 5}]", 1),
        ("[{kind: sustained, users: 100, requests: 100}]", 9),
        ("[{kind: sustained, rate: 1, duration: 5s}]", 9),
    ],
)
def test_how_many_together_depends_on_the_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: str, asked: int
) -> None:
    """As many as there are users, eight at the most; eight for arrivals at a rate."""
    assert started(tmp_path, monkeypatch, loads)["warm_up"] == asked


def test_what_loads_no_weights_has_had_its_first_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not started again, and nothing more is sent to it."""
    assert started(tmp_path, monkeypatch, files=0)["warm_up"] == 1
    (only,) = Counting.made
    assert len(only.asked) == 1


@pytest.mark.parametrize(
    ("status", "error", "refused"),
    [
        (400, "Unsupported value: 'temperature' does not support 0 with this model.", True),
        (422, "`temperature` must be strictly positive", True),
        (400, "unknown key ignore_eos", False),
        (500, "temperature of the machine too high", False),
        (None, "temperature", False),
    ],
)
def test_a_refusal_names_the_temperature(status: int | None, error: str, refused: bool) -> None:
    """By status and words; other refusals stay what they are."""
    record = Record(0, http_status=status, error=error)
    assert refused_temperature(record) == (error if refused else None)
    assert refused_temperature(None) is None
