"""What every engine keeps to, whatever it is; measured through the driver, as a trial does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from sys import executable
from typing import Any

import aiohttp
import needs
import psutil
import pytest

import engines
from engines.base import (
    ChunkKind,
    Engine,
    EngineError,
    EngineInfo,
    EngineSpec,
    InProcessEngine,
    LevelUnsupported,
    ModelReference,
    Request,
    ServedEngine,
)
from harness.drivers.base import DriveSettings
from harness.drivers.drive import drive
from harness.records import Record, Status
from harness.schedule.requests import Schedule
from tests.driven import measured
from tests.engines.running import VLLM_OPTIONS, Running
from tests.plans import exact_schedule

pytestmark = pytest.mark.slow

LIMIT_NS = 60_000_000_000
PROMPT, LONG = "It is a truth universally acknowledged, that", 400
TINY_SERVER = f"{executable} {Path(__file__).with_name('tiny_server.py')} {{port}} --models {{model}} --pause 0.002"


@dataclass(frozen=True)
class Case:
    """An engine under test: what it needs, and a misspelled option with the one that is meant.

    library: the module without which the engine is skipped, or fails where it must be there.
    counts_prompts: whether it says how long a prompt was when it streams.
    shared: fixture of the running engine, where starts are so slow that tests share one.
    """

    engine: str
    misspelled: tuple[str, str]
    level: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    library: str | None = None
    counts_prompts: bool = True
    shared: str | None = None

    def spec(self, folder: Path) -> EngineSpec:
        """What to make the engine from."""
        return EngineSpec(
            self.engine, ModelReference("tiny"), self.level, dict(self.options), log_path=folder / "engine.log"
        )


# vLLM: a start takes half a minute, and its libraries announce at their import what they will drop one day.
SLOW_START = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),  # vLLM leaves it to the collector
]
STARTED = [
    Case("simulated", ("ttft_m", "ttft_ms"), "q8_0", {"ttft_ms": 5, "tpot_ms": 2}),
    Case("http", ("served_modl", "served_model"), None, {"command": TINY_SERVER, "ready": {"path": "/health"}}),
    Case("llama-server", ("n_paralel", "n_parallel"), "q8_0", {"n_ctx": 512, "n_parallel": 4}),
    pytest.param(
        Case("transformers", ("atention", "attention"), "fp32", {"n_threads": 1}, library="transformers"),
        marks=pytest.mark.engines,
    ),
    pytest.param(
        Case("llama-cpp", ("n_treads", "n_threads"), "q8_0", {"n_ctx": 512}, library="llama_cpp"),
        marks=pytest.mark.engines,
    ),
    pytest.param(
        Case(
            "llama-cpp-server",
            ("n_treads", "n_threads"),
            "q8_0",
            {"n_ctx": 512},
            library="llama_cpp",
            counts_prompts=False,
        ),
        marks=pytest.mark.engines,
    ),
]
SHARED = [
    pytest.param(
        Case("vllm", ("max_model_length", "max_model_len"), "fp32", VLLM_OPTIONS, "vllm", shared="vllm"),
        marks=[pytest.mark.vllm_inside, *SLOW_START],
    ),
    pytest.param(
        Case("vllm-server", ("max_model_length", "max_model_len"), "fp32", VLLM_OPTIONS, shared="vllm_server"),
        marks=[pytest.mark.vllm, *SLOW_START],
    ),
]


@pytest.fixture(params=[*STARTED, *SHARED], ids=lambda case: case.engine)
def case(request: pytest.FixtureRequest) -> Case:
    """Yield each engine; one with a missing library is skipped with the reason."""
    found: Case = request.param
    if found.library is not None:
        needs.library(found.library)
    try:
        engines.engine_class(found.engine)
    except EngineError as error:
        pytest.skip(str(error))
    return found


@asynccontextmanager
async def started(spec: EngineSpec) -> AsyncIterator[tuple[Engine, EngineInfo]]:
    """An engine that runs, stopped at the end."""
    engine = engines.create(spec)
    await asyncio.to_thread(engine.prepare)
    try:
        yield engine, await engine.start()
    finally:
        await engine.stop()


async def records_of(engine: Engine, schedule: Schedule) -> list[Record]:
    """Return the records of a schedule on a running engine."""
    records: list[Record] = []
    target = engine if isinstance(engine, InProcessEngine) else engine.endpoint()  # type: ignore[attr-defined]
    await drive(schedule, target, DriveSettings(timeout_ns=LIMIT_NS), records.append)
    return records


async def broken_off(engine: Engine) -> None:
    """A long reply whose reader leaves once it has begun."""
    if isinstance(engine, InProcessEngine):
        reply = engine.generate(Request(PROMPT, LONG, exact=True))
        assert (await anext(reply)).kind is ChunkKind.CONTENT
        await reply.aclose()  # type: ignore[attr-defined]
        return
    endpoint = engine.endpoint()  # type: ignore[attr-defined]
    body = {"model": endpoint.model, "prompt": PROMPT, "max_tokens": LONG, "min_tokens": LONG}
    body |= {"ignore_eos": True, "stream": True}
    async with aiohttp.ClientSession() as session, session.post(f"{endpoint.url}/v1/completions", json=body) as answer:
        assert (await answer.content.readline()).startswith(b"data: {")


Body = Callable[[Engine, EngineInfo], Coroutine[Any, Any, None]]


@pytest.fixture
def on_engine(case: Case, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Run a test's body on an engine that is started for it, or on the shared one."""

    if case.shared is not None:
        running: Running = request.getfixturevalue(case.shared)
        return lambda body: running.run(body(running.engine, running.info))

    def run(body: Body) -> None:
        async def main() -> None:
            async with started(case.spec(tmp_path)) as (engine, info):
                await body(engine, info)

        asyncio.run(main())

    return run


def test_it_reports_what_runs(case: Case, on_engine: Callable[[Body], None]) -> None:
    """EngineInfo has the engine's name, plausible types, live processes, and None where nothing is known."""

    async def body(engine: Engine, info: EngineInfo) -> None:
        assert info.name == case.engine
        assert all(value is None or value for value in (info.version, info.model, info.model_hash, info.level))
        assert all(value is None or value > 0 for value in (info.weight_bytes, info.context_tokens))
        assert info.level == case.level
        assert all(psutil.pid_exists(pid) for pid in info.pids)
        assert set(case.options) <= set(info.options)

    on_engine(body)


def test_it_generates_or_serves_but_not_both(case: Case) -> None:
    """Exactly one of generate() and endpoint() exists; a served engine can say why it ended."""
    kind = engines.engine_class(case.engine)
    assert hasattr(kind, "generate") != hasattr(kind, "endpoint")
    assert hasattr(kind, "endpoint") == hasattr(kind, "alive")


def test_exact_lengths_are_exact(case: Case, on_engine: Callable[[Body], None]) -> None:
    """Asked for exactly n tokens, every reply has n, as the engine itself counts; the prompt is counted too."""

    async def body(engine: Engine, info: EngineInfo) -> None:
        records = await records_of(engine, exact_schedule(7, kind="single_user", requests=3))
        assert [record.status for record in records] == [Status.OK] * 3, [record.error for record in records]
        assert [record.output_tokens for record in records] == [7] * 3
        assert all((record.prompt_tokens or 0) > 0 for record in records) == case.counts_prompts
        assert all((record.first_token_ns or 0) <= (record.last_token_ns or -1) for record in records)

    on_engine(body)


def test_eight_requests_at_once_all_succeed(on_engine: Callable[[Body], None]) -> None:
    """More requests than slots are served in the end, none lost."""

    async def body(engine: Engine, info: EngineInfo) -> None:
        records = measured(await records_of(engine, exact_schedule(8, kind="sustained", users=8, requests=16)))
        assert len({record.request for record in records}) == len(records) == 16  # a slow user sends fewer of them
        assert {record.status for record in records} == {Status.OK}, [record.error for record in records]
        assert {record.output_tokens for record in records} == {8}

    on_engine(body)


def test_a_cancelled_request_leaves_it_usable(on_engine: Callable[[Body], None]) -> None:
    """After requests that were broken off in the middle, the next ones are answered whole."""

    async def body(engine: Engine, info: EngineInfo) -> None:
        await asyncio.gather(*(broken_off(engine) for _ in range(4)))
        records = measured(await records_of(engine, exact_schedule(5, kind="sustained", users=4, requests=4)))
        assert {record.status for record in records} == {Status.OK}, [record.error for record in records]
        assert {record.output_tokens for record in records} == {5}

    on_engine(body)


def test_an_unknown_option_is_refused(case: Case, tmp_path: Path) -> None:
    """The sentence names the misspelled option and the one that is meant."""
    wrong, meant = case.misspelled
    spec = case.spec(tmp_path)
    with pytest.raises(EngineError, match=f"{wrong}.*{meant}"):
        engines.create(replace(spec, options={**spec.options, wrong: 1}))


def test_an_unsupported_level_is_refused(case: Case, tmp_path: Path) -> None:
    """An engine that has levels refuses any other as LevelUnsupported, so that the cell is skipped with the reason."""
    if not engines.engine_class(case.engine).levels():
        pytest.skip(f"{case.engine} has no say about levels")
    assert case.level in engines.engine_class(case.engine).levels()

    def attempt() -> None:
        engines.create(replace(case.spec(tmp_path), level="q99")).prepare()

    with pytest.raises(LevelUnsupported, match="q99"):
        attempt()


# Engines that tests share are stopped and killed in tests of their own.
@pytest.mark.parametrize("case", STARTED, indirect=True, ids=lambda case: case.engine)
def test_stop_can_come_at_any_time_and_leaves_nothing(case: Case, tmp_path: Path) -> None:
    """Before the start, after it and twice; no process survives it, and a new object starts again."""
    pids: list[int] = []

    async def main() -> None:
        await engines.create(case.spec(tmp_path)).stop()
        for _ in range(2):
            async with started(case.spec(tmp_path)) as (engine, info):
                pids.extend(info.pids)
            await engine.stop()

    asyncio.run(main())
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("case", STARTED, indirect=True, ids=lambda case: case.engine)
def test_a_served_engine_reports_why_it_ended(case: Case, on_engine: Callable[[Body], None]) -> None:
    """alive() is None while it runs and a sentence once its process was killed."""
    if not issubclass(engines.engine_class(case.engine), ServedEngine):
        pytest.skip(f"{case.engine} runs in the process of the trial")

    async def body(engine: Engine, info: EngineInfo) -> None:
        assert isinstance(engine, ServedEngine)
        assert engine.alive() is None
        psutil.Process(info.pids[0]).kill()
        while engine.alive() is None:
            await asyncio.sleep(0.01)
        assert "SIGKILL" in str(engine.alive())

    on_engine(body)
