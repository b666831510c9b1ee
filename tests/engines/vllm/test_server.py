"""vLLM's server, for real: started here from the environment that has it (`make test-vllm`)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from engines.base import EngineError, LevelUnsupported, StartFailed
from engines.cores import default_threads
from harness.drivers.base import DriveSettings
from harness.drivers.drive import drive
from harness.records import Record, Status
from tests.engines.greedy import HELD_OUT
from tests.engines.running import VLLM_OPTIONS, Running, vllm_spec
from tests.models_made_small import tiny_with_beginning
from tests.plans import exact_schedule

TEXT = HELD_OUT.read_bytes()[:300]

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]


def test_it_reports_what_runs(vllm_server: Running) -> None:
    """Version, type, device, context and cache are what the server and its log say; its processes are all named."""
    info = vllm_server.info
    assert info.version
    assert (info.level, info.device, info.context_tokens, info.options["dtype"]) == ("fp32", "cpu", 1024, "float32")
    assert info.memory == {"kv_cache": 1 << 30}
    assert info.options["n_threads"] == default_threads()
    assert len(info.pids) >= 3
    assert vllm_server.engine.alive() is None


def test_replies_and_counts_come_over_http(vllm_server: Running) -> None:
    """A long prompt that comes twice comes out of the prefix cache the second time, and the server says so."""
    records: list[Record] = []
    schedule = exact_schedule(9, prompt_tokens=120, kind="single_user", requests=2)
    settings = DriveSettings(timeout_ns=60_000_000_000)
    for _ in range(2):
        asyncio.run(drive(schedule, vllm_server.engine.endpoint(), settings, records.append))
    assert {record.status for record in records} == {Status.OK}, [record.error for record in records]
    assert {record.output_tokens for record in records} == {9}
    assert (records[-1].cached_tokens or 0) >= 256


def test_it_tokenizes(vllm_server: Running) -> None:
    """Ids are those of the model's tokenizer, without special tokens; `tiny` has none in front of a text."""
    assert vllm_server.run(vllm_server.engine.tokenize("Ah!")) == [65, 104, 33]
    assert vllm_server.run(vllm_server.engine.beginning()) == []


def test_its_scores_are_distributions_over_the_whole_vocabulary(vllm_server: Running) -> None:
    """Scores sum to one and include the true tokens."""
    scores = vllm_server.run(vllm_server.engine.score(list(TEXT), 100))
    assert scores.tokens is None
    assert scores.logprobs.shape == (200, 258)
    np.testing.assert_allclose(np.exp(scores.logprobs).sum(1), 1, rtol=1e-4)
    np.testing.assert_array_equal(scores.true_logprobs, scores.logprobs[np.arange(200), list(TEXT[100:])])
    with pytest.raises(EngineError, match="raise max_model_len"):
        vllm_server.run(vllm_server.engine.score([1] * 1024, 1))


def test_it_reports_the_token_in_front_of_a_text_and_why_it_ended(tmp_path: Path) -> None:
    """The token of beginning where the tokenizer says so. Then the server is killed: alive() names the signal, and
    stopping leaves no process.
    """
    model = tiny_with_beginning(tmp_path / "model")
    running = Running(vllm_spec("vllm-server", model=model, level=None, log_path=tmp_path / "engine.log"))
    try:
        assert running.run(running.engine.beginning()) == [256]
        psutil.Process(running.info.pids[0]).kill()
        while running.engine.alive() is None:
            running.run(asyncio.sleep(0.01))
        assert "SIGKILL" in running.engine.alive()
    finally:
        running.end()
    assert not running.left()


def test_a_level_that_this_build_cannot_make_is_a_skip(tmp_path: Path) -> None:
    """fp8 on a CPU: one sentence out of the log, and nothing stays."""
    with pytest.raises(LevelUnsupported, match=r"cannot load the level fp8: \w+: .*"):
        Running(vllm_spec("vllm-server", level="fp8", log_path=tmp_path / "engine.log"))


def test_an_interpreter_without_vllm_is_refused(tmp_path: Path) -> None:
    """The sentence says what to install."""
    with pytest.raises(StartFailed, match="has no vllm; install it there, or name another interpreter"):
        Running(vllm_spec("vllm-server", python=sys.executable, log_path=tmp_path / "engine.log"))


@pytest.mark.gpu
def test_it_quantizes_while_loading_on_a_gpu(tmp_path: Path) -> None:
    """fp8 where the device can."""
    options = {**VLLM_OPTIONS, "gpu_memory_utilization": 0.3}
    running = Running(vllm_spec("vllm-server", level="fp8", options=options, log_path=tmp_path / "engine.log"))
    running.end()
    assert (running.info.level, running.info.device) == ("fp8", "cuda")
