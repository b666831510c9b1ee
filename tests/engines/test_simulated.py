"""The simulated engine keeps its stated times to the nanosecond, in virtual time."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engines
from engines.base import (
    ChunkKind,
    EngineError,
    EngineSpec,
    LevelUnsupported,
    ModelReference,
    Request,
    StartFailed,
    Usage,
    collect,
)
from engines.simulated import SimulatedEngine
from tests.virtual_time import VirtualTimeLoop

Result = TypeVar("Result")
MS_NS = 1_000_000


def virtually(body: Callable[[], Awaitable[Result]]) -> Result:
    """Run a coroutine function to its end on a loop in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(body())  # type: ignore[arg-type]


def engine_with(level: str | None = None, **options: Any) -> SimulatedEngine:
    """A simulated engine, not started."""
    return SimulatedEngine(EngineSpec("simulated", ModelReference("any"), level, options))


def now_ns() -> int:
    """The loop's time in whole nanoseconds."""
    return round(asyncio.get_running_loop().time() * 1e9)


async def arrivals_of(engine: SimulatedEngine, request: Request, at_ns: int = 0) -> list[int]:
    """When each content chunk of a request that is sent at a time arrives, from that time's zero on."""
    begin_ns = now_ns()
    if at_ns:
        await asyncio.sleep(at_ns / 1e9)
    return [now_ns() - begin_ns async for chunk in engine.generate(request) if chunk.kind == ChunkKind.CONTENT]


def times_of(*requests: tuple[int, Request], **options: Any) -> list[list[int]]:
    """Chunk arrivals of requests, each sent at its time in ns, on an engine with these options."""

    async def body() -> list[list[int]]:
        engine = engine_with(**options)
        await engine.start()
        times = await asyncio.gather(*(arrivals_of(engine, request, at_ns) for at_ns, request in requests))
        await engine.stop()
        return times

    return virtually(body)


def test_tokens_come_exactly_when_stated() -> None:
    """The first after ttft_ms, then one every tpot_ms, without drift over a thousand tokens."""
    (times,) = times_of((0, Request("x", 1000)), ttft_ms=200, tpot_ms=7)
    assert times == [(200 + 7 * token) * MS_NS for token in range(1000)]


def test_chunks_of_several_tokens_come_together() -> None:
    """100 tokens in chunks of 4, first at 200 ms, a chunk every 40 ms: the last at 1,160 ms."""
    (times,) = times_of((0, Request("x", 100)), ttft_ms=200, tpot_ms=10, tokens_per_chunk=4)
    assert times == [(200 + 40 * chunk) * MS_NS for chunk in range(25)]


def test_the_prompt_takes_its_time() -> None:
    """The prompt's tokens over prefill_tokens_per_s are added to the base."""
    (times,) = times_of((0, Request(tuple(range(50)), 1)), ttft_ms=10, prefill_tokens_per_s=1000)
    assert times == [60 * MS_NS]


def test_prompts_have_the_tokens_of_the_model() -> None:
    """A prepared engine counts by the model's own tokenizer (of `tiny`: bytes), one without a model four characters."""
    told = {}
    for model in (ModelReference("tiny"), None):
        engine = SimulatedEngine(EngineSpec("simulated", model))

        async def body(engine: SimulatedEngine = engine) -> list[Usage | None]:
            engine.prepare()
            await engine.start()
            return [chunk.usage async for chunk in engine.generate(Request("x" * 58, 1))]

        told[model] = virtually(body)[-1]
    assert [usage.prompt_tokens for usage in told.values() if usage] == [58, 15]


def test_the_first_request_can_be_slower() -> None:
    """first_request_extra_ms counts for the first request alone."""
    one = Request("x", 1)
    assert times_of((0, one), (0, one), ttft_ms=10, first_request_extra_ms=100) == [[110 * MS_NS], [10 * MS_NS]]


def test_requests_beyond_the_batch_queue_in_order() -> None:
    """Two slots let the third and fourth request start when the first two have ended."""
    one = Request("x", 1)
    times = times_of((0, one), (1 * MS_NS, one), (2 * MS_NS, one), (3 * MS_NS, one), ttft_ms=10, max_batch=2)
    assert times == [[10 * MS_NS], [11 * MS_NS], [20 * MS_NS], [21 * MS_NS]]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 8)), min_size=1, max_size=12, unique_by=lambda job: job[0]),
    st.integers(1, 3),
)
def test_queueing_matches_an_obvious_calculation(jobs: list[tuple[int, int]], slots: int) -> None:
    """First come, first served: each request starts when it came or when the earliest slot became free."""
    jobs = sorted(jobs, key=lambda job: job[0])
    ends: list[int] = [0] * slots
    expected = []
    for at_ms, tokens in jobs:
        start = max(at_ms, min(ends))
        ends[ends.index(min(ends))] = start + 20 + 5 * (tokens - 1)
        expected.append((start + 20 + 5 * (tokens - 1)) * MS_NS)
    asked = [(at_ms * MS_NS, Request("x", tokens)) for at_ms, tokens in jobs]
    assert sorted(times[-1] for times in times_of(*asked, ttft_ms=20, tpot_ms=5, max_batch=slots)) == sorted(expected)


def test_a_stall_delays_what_it_meets() -> None:
    """Work that ends at the stall or later is late by it; what comes during the stall starts after it."""
    one = Request("x", 1)
    stall = {"at_s": 0.1, "for_s": 1}
    times = times_of(*((at * MS_NS, one) for at in (0, 89, 90, 100, 1099, 1100)), ttft_ms=10, stall=stall)
    assert [time // MS_NS for (time,) in times] == [10, 99, 1100, 1110, 1110, 1110]


def test_levels_differ_by_their_speed() -> None:
    """A factor of 2 halves all times; a level without a factor keeps them."""
    request, speeds = Request("x", 2), {"q4_0": 2}
    assert times_of((0, request), level="q4_0", level_speed=speeds) == [[25 * MS_NS, 30 * MS_NS]]
    assert times_of((0, request), level="q8_0", level_speed=speeds) == [[50 * MS_NS, 60 * MS_NS]]


def test_exponential_service_is_seeded() -> None:
    """A seed determines the times; their mean is the stated time."""
    asked = [(at * 1000 * MS_NS, Request("x", 1)) for at in range(500)]
    one, same, other = (times_of(*asked, ttft_ms=20, service="exponential", seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    mean_ns = sum(end - at for (end,), (at, _) in zip(one, asked, strict=True)) / len(asked)
    assert mean_ns == pytest.approx(20 * MS_NS, rel=0.15)


def test_replies_can_end_by_themselves() -> None:
    """natural_tokens ends a reply early with "stop", unless exactly so many tokens were asked for."""

    async def body() -> list[tuple[str | None, int | None]]:
        engine = engine_with(natural_tokens=3, tpot_ms=0)
        await engine.start()
        ends = []
        for request in (Request("x", 5), Request("x", 5, exact=True)):
            *_, finish, usage = await collect(engine.generate(request))
            ends.append((finish.finish_reason, usage.usage.output_tokens if usage.usage else None))
        return ends

    assert virtually(body) == [("stop", 3), ("length", 5)]


def test_without_streaming_everything_comes_at_the_end() -> None:
    """All tokens come in one chunk, at the time of the last."""
    assert times_of((0, Request("x", 5, stream=False)), ttft_ms=50, tpot_ms=10) == [[90 * MS_NS]]


def test_a_cancelled_request_gives_its_slot_away() -> None:
    """The next in the queue starts at the moment of the cancellation, a cancelled waiter is passed over."""

    async def body() -> list[int]:
        engine = engine_with(ttft_ms=1000, max_batch=1)
        await engine.start()
        tasks = [asyncio.create_task(arrivals_of(engine, Request("x", 1))) for _ in range(3)]
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        tasks[1].cancel()
        return await tasks[2]

    assert virtually(body) == [1100 * MS_NS]


def test_errors_and_hangs_come_on_demand() -> None:
    """Every second reply is an error; after four, none comes any more, until stop() ends them."""

    async def body() -> None:
        engine = engine_with(error_every=2, hang_after_requests=4)
        await engine.start()
        kinds = [(await collect(engine.generate(Request("x", 1))))[0].kind for _ in range(4)]
        assert kinds == [ChunkKind.CONTENT, ChunkKind.ERROR] * 2
        hanging = asyncio.create_task(collect(engine.generate(Request("x", 1))))
        await asyncio.sleep(1e6)
        assert not hanging.done()
        await engine.stop()
        with pytest.raises(EngineError, match="was stopped"):
            await hanging

    virtually(body)


def test_replies_are_held_until_a_file_exists(tmp_path: Path) -> None:
    """The second reply waits for the file, however long that takes, and then takes its usual time."""
    go_on = tmp_path / "go-on"

    async def body() -> int:
        engine = engine_with(ttft_ms=10, hold={"after_requests": 1, "until": str(go_on)})
        await engine.start()
        await collect(engine.generate(Request("x", 1)))
        held = asyncio.create_task(collect(engine.generate(Request("x", 1))))
        await asyncio.sleep(10)
        assert not held.done()
        go_on.touch()
        gone_on_ns = now_ns()
        await held
        return now_ns() - gone_on_ns

    assert 10 * MS_NS <= virtually(body) <= 20 * MS_NS


def test_start_takes_its_time_and_can_fail() -> None:
    """load_s passes before the engine is there, or before it fails with the sentence asked for."""

    async def body() -> int:
        with pytest.raises(StartFailed, match="no memory left"):
            await engine_with(load_s=5, fail_start="no memory left").start()
        return now_ns()

    assert virtually(body) >= 5_000 * MS_NS


def test_memory_is_held_from_start_to_stop() -> None:
    """The process grows by what was asked for, and shrinks again."""

    async def body() -> tuple[int, int, int]:
        process, engine = psutil.Process(), engine_with(memory_bytes=256_000_000)
        before = process.memory_info().rss
        await engine.start()
        held = process.memory_info().rss
        await engine.stop()
        return before, held, process.memory_info().rss

    before, held, after = virtually(body)
    assert held - before == pytest.approx(256_000_000, rel=0.2)
    assert after - before < 100_000_000


def test_a_crash_ends_the_process() -> None:
    """crash_after_requests aborts as native code does: SIGABRT, no Python cleanup."""
    program = """
import asyncio
from engines.base import EngineSpec, Request, collect
from engines.simulated import SimulatedEngine
async def main():
    engine = SimulatedEngine(EngineSpec("simulated", options={"crash_after_requests": 1, "ttft_ms": 0}))
    await engine.start()
    print(len(await collect(engine.generate(Request("x", 1)))), flush=True)
    await collect(engine.generate(Request("x", 1)))
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGABRT, "3\n")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tfft_ms": 1}, "engine 'simulated' has no option 'tfft_ms'; did you mean 'ttft_ms'?"),
        ({"ttft_ms": "1"}, "option 'ttft_ms' of engine 'simulated' is a number, not '1'"),
        ({"max_batch": True}, "option 'max_batch' of engine 'simulated' is a whole number or nothing, not True"),
        ({"max_batch": 0}, "options of engine 'simulated': max_batch is more than 0, not 0"),
        ({"service": "poisson"}, "options of engine 'simulated': service is 'fixed' or 'exponential', not 'poisson'"),
        ({"stall": {"at": 1}}, "options of engine 'simulated': stall is written {at_s: 30, for_s: 1}, not {'at': 1}"),
        ({"stall": {"at_s": 1, "for_s": "2s"}}, "options of engine 'simulated': stall is written {at_s: 30, for_s: 1}"),
        ({"level_speed": {"q4_0": 0}}, "options of engine 'simulated': level_speed has factors above 0, not "),
        ({"level_speed": {"q4_0": "fast"}}, "options of engine 'simulated': level_speed has factors above 0, not "),
        ({"zzz": 1}, "engine 'simulated' has no option 'zzz'; known are "),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(options: dict[str, Any], sentence: str) -> None:
    """The option is named, and what to write instead."""
    with pytest.raises(EngineError) as caught:
        engine_with(**options)
    assert str(caught.value).startswith(sentence)


def test_levels_are_checked() -> None:
    """Known levels and those with a factor are taken, others refused."""
    assert "q4_k_m" in SimulatedEngine.levels()
    engine_with("mine", level_speed={"mine": 1})
    with pytest.raises(LevelUnsupported, match="has no level 'q9'"):
        engine_with("q9")


def test_it_is_found_by_its_name() -> None:
    """A scenario's `engine: simulated` is this class."""
    assert engines.engine_class("simulated") is SimulatedEngine
