"""vLLM's server, for real: started here from the environment that has it (`make test-vllm`)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import needs
import numpy as np
import psutil
import pytest

from engines.base import EngineError, EngineInfo, EngineSpec, LevelUnsupported, ModelReference, StartFailed
from engines.cores import default_threads
from engines.vllm.server import VllmServer
from harness.drivers.base import DriveSettings
from harness.drivers.drive import drive
from harness.records import Record, Status
from tests.engines.greedy import HELD_OUT
from tests.plans import exact_schedule

OPTIONS = {"enforce_eager": True, "kv_cache_space_gib": 1}
TEXT = HELD_OUT.read_bytes()[:300]

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]


def server(log: Path, level: str | None = "fp32", python: str | None = None, **options: Any) -> VllmServer:
    """Return a server that is not started."""
    spec = EngineSpec(
        "vllm-server",
        ModelReference("tiny"),
        level,
        {**OPTIONS, **options},
        python=python or needs.vllm_python(),
        log_path=log,
    )
    return VllmServer(spec)


async def attempt(engine: VllmServer) -> EngineInfo:
    """Start it, and stop it however that went."""
    try:
        return await engine.start()
    finally:
        await engine.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VllmServer, EngineInfo]]:
    """`tiny` in fp32, for all tests that leave it as it was."""
    engine = server(tmp_path_factory.mktemp("vllm") / "engine.log")
    info = asyncio.run(engine.start())
    yield engine, info
    asyncio.run(engine.stop())
    alive = [psutil.Process(pid) for pid in info.pids if psutil.pid_exists(pid)]
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_it_reports_what_runs(running: tuple[VllmServer, EngineInfo]) -> None:
    """Version, type, device, context and cache are what the server and its log say; its processes are all named."""
    engine, info = running
    assert info.version
    assert (info.level, info.device, info.context_tokens, info.options["dtype"]) == ("fp32", "cpu", 1024, "float32")
    assert info.memory == {"kv_cache": 1 << 30}
    assert info.options["n_threads"] == default_threads()
    assert len(info.pids) >= 3
    assert engine.alive() is None


def test_replies_and_counts_come_over_http(running: tuple[VllmServer, EngineInfo]) -> None:
    """A long prompt that comes twice comes out of the prefix cache the second time, and the server says so."""
    records: list[Record] = []
    schedule = exact_schedule(9, prompt_tokens=120, kind="single_user", requests=2)
    settings = DriveSettings(timeout_ns=60_000_000_000)
    for _ in range(2):
        asyncio.run(drive(schedule, running[0].endpoint(), settings, records.append))
    assert {record.status for record in records} == {Status.OK}, [record.error for record in records]
    assert {record.output_tokens for record in records} == {9}
    assert (records[-1].cached_tokens or 0) >= 256


def test_it_tokenizes(running: tuple[VllmServer, EngineInfo]) -> None:
    """Ids are those of the model's tokenizer, without special tokens."""
    assert asyncio.run(running[0].tokenize("Ah!")) == [65, 104, 33]


def test_its_scores_are_distributions_over_the_whole_vocabulary(running: tuple[VllmServer, EngineInfo]) -> None:
    """Scores sum to one and include the true tokens."""
    scores = asyncio.run(running[0].score(list(TEXT), 100))
    assert scores.tokens is None
    assert scores.logprobs.shape == (200, 258)
    np.testing.assert_allclose(np.exp(scores.logprobs).sum(1), 1, rtol=1e-4)
    np.testing.assert_array_equal(scores.true_logprobs, scores.logprobs[np.arange(200), list(TEXT[100:])])
    with pytest.raises(EngineError, match="raise max_model_len"):
        asyncio.run(running[0].score([1] * 1024, 1))


def test_a_level_that_this_build_cannot_make_is_a_skip(tmp_path: Path) -> None:
    """fp8 on a CPU: one sentence out of the log, and nothing stays."""
    engine = server(tmp_path / "engine.log", "fp8")
    with pytest.raises(LevelUnsupported, match=r"cannot load the level fp8: \w+: .*"):
        asyncio.run(attempt(engine))


def test_an_interpreter_without_vllm_is_refused(tmp_path: Path) -> None:
    """The sentence says what to install."""
    engine = server(tmp_path / "engine.log", python=sys.executable)
    with pytest.raises(StartFailed, match="has no vllm; install it there, or name another interpreter"):
        asyncio.run(attempt(engine))


@pytest.mark.gpu
def test_it_quantizes_while_loading_on_a_gpu(tmp_path: Path) -> None:
    """fp8 where the device can."""
    engine = server(tmp_path / "engine.log", "fp8", gpu_memory_utilization=0.3)
    info = asyncio.run(attempt(engine))
    assert (info.level, info.device) == ("fp8", "cuda")
