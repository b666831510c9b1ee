"""vLLM in process, for real: inside the environment that has it (`make test-vllm`)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import needs
import numpy as np
import psutil
import pytest

from engines.base import (
    ChunkKind,
    EngineError,
    EngineInfo,
    EngineSpec,
    LevelUnsupported,
    ModelReference,
    Request,
    Scores,
    StartFailed,
    collect,
)
from engines.cores import default_threads
from engines.vllm.engine import Vllm
from tests.engines.greedy import HELD_OUT
from tests.engines.vllm_checkpoints import adapter, w8a8

OPTIONS = {"enforce_eager": True, "kv_cache_space_gib": 1}
TEXT = HELD_OUT.read_bytes()[:400]

pytestmark = [
    pytest.mark.vllm_inside,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # vLLM and what it imports announce what they will drop one day.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),  # vLLM leaves it to the collector
]


class Running:
    """A started engine with its own loop."""

    def __init__(self, log: Path, level: str | None, model: ModelReference | None = None, **options: Any) -> None:
        needs.library("vllm")
        spec = EngineSpec("vllm", model or ModelReference("tiny"), level, {**OPTIONS, **options}, log_path=log)
        self.runner = asyncio.Runner()
        self.engine = Vllm(spec)
        try:
            self.info: EngineInfo = self.runner.run(self.engine.start())
        except EngineError:
            self.end()
            raise

    def chunks(self, request: Request) -> list[Any]:
        """A whole reply."""
        return self.runner.run(collect(self.engine.generate(request)))

    def text(self, prompt: str, tokens: int = 16) -> str:
        """A greedy reply of so many tokens."""
        chunks = self.chunks(Request(prompt, tokens, exact=True, sampling={"temperature": 0}))
        return "".join(chunk.text for chunk in chunks)

    def scores(self, first: int = 1) -> Scores:
        """Return the scores of the held-out text."""
        return self.runner.run(self.engine.score(list(TEXT), first))

    def end(self) -> None:
        """Stop it."""
        with self.runner:
            self.runner.run(self.engine.stop())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`tiny` in fp32, for all tests that leave it as it was."""
    found = Running(tmp_path_factory.mktemp("vllm") / "engine.log", "fp32", scheduling_policy="priority")
    yield found
    found.end()


def test_it_reports_what_runs(running: Running) -> None:
    """The type that was loaded, the context, the cache it holds, and vLLM's processes, which are not this one."""
    info = running.info
    assert (info.level, info.device, info.context_tokens, info.parameters) == ("fp32", "cpu", 1024, 3_214_080)
    assert info.memory == {"kv_cache": 1 << 30}
    assert info.options["max_num_seqs"] > 0
    assert info.options["kv_cache_space_gib"] == 1
    assert info.options["n_threads"] == default_threads()
    assert len(info.pids) >= 2
    assert os.getpid() not in info.pids


def test_each_chunk_bears_the_tokens_of_its_text(running: Running) -> None:
    """One each, or as many as waited for a late reader; then why it ended and the counts. The prompt's beginning comes
    from the cache a second time.
    """
    request = Request(tuple(TEXT[:300]), 12, exact=True, sampling={"temperature": 0}, priority=1)
    running.chunks(request)
    *tokens, finish, usage = running.chunks(request)
    assert {chunk.kind for chunk in tokens} == {ChunkKind.CONTENT}
    assert [chunk.tokens for chunk in tokens] == [len(chunk.text) for chunk in tokens]  # tiny's tokens are letters
    assert (sum(chunk.tokens or 0 for chunk in tokens), finish.finish_reason) == (12, "length")
    assert (usage.usage.prompt_tokens, usage.usage.output_tokens, usage.usage.cached_tokens) == (300, 12, 256)


def test_a_reply_that_is_not_streamed_is_one_chunk(running: Running) -> None:
    """All tokens come at once."""
    request = Request("It was", 12, exact=True, sampling={"temperature": 0}, stream=False)
    content = running.chunks(request)[0]
    assert (content.text, content.tokens) == (running.text("It was", 12), 12)


def test_sampling_reaches_it(running: Running) -> None:
    """A seed repeats, another does not; a stop text ends the reply and is left out."""
    hot = {"temperature": 1.5, "top_p": 0.99, "top_k": 200}
    replies = [
        "".join(
            chunk.text for chunk in running.chunks(Request("It was", 24, exact=True, sampling=hot | {"seed": seed}))
        )
        for seed in (1, 1, 2)
    ]
    assert replies[0] == replies[1] != replies[2]
    stopped = running.chunks(Request("It was", 64, sampling={"temperature": 0, "stop": [" "]}))
    assert " " not in "".join(chunk.text for chunk in stopped)
    assert stopped[-2].finish_reason == "stop"


def test_its_scores_are_its_distributions(running: Running) -> None:
    """Scores sum to one; the most likely token is the greedy one; rows begin at `first`."""
    scores = running.scores()
    assert scores.tokens is None
    assert scores.logprobs.shape == (len(TEXT) - 1, 258)
    np.testing.assert_allclose(np.exp(scores.logprobs).sum(1), 1, rtol=1e-4)
    rows = np.arange(len(TEXT) - 1)
    np.testing.assert_array_equal(scores.true_logprobs, scores.logprobs[rows, list(TEXT[1:])])
    greedy = running.chunks(Request(tuple(TEXT[:200]), 1, exact=True, sampling={"temperature": 0}))[0].text
    assert ord(greedy) == scores.logprobs[199].argmax()
    later = running.scores(first=200)
    np.testing.assert_allclose(later.logprobs, scores.logprobs[199:], atol=1e-5)
    with pytest.raises(EngineError, match="raise max_model_len"):
        running.runner.run(running.engine.score([1] * 1024, 1))


def test_it_tokenizes(running: Running) -> None:
    """Ids are those of the model's tokenizer, without special tokens."""
    assert running.runner.run(running.engine.tokenize("Ah!")) == [65, 104, 33]


def test_a_reply_that_is_closed_is_cancelled(running: Running) -> None:
    """The engine works on nothing any more."""

    async def close_after_one() -> None:
        stream = running.engine.generate(Request("It was", 900, exact=True))
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]

    running.runner.run(close_after_one())
    assert running.engine._llm.output_processor.get_num_unfinished_requests() == 0


def test_a_full_context_ends_the_reply_or_is_refused(running: Running) -> None:
    """A reply ends at the context's end, for its length; a prompt that is too long is refused."""
    *_, finish, usage = running.chunks(Request(tuple(TEXT[:300]), 2000, exact=True))
    assert (finish.finish_reason, usage.usage.output_tokens) == ("length", 724)
    with pytest.raises(EngineError, match=r"vllm: .*1024"):
        running.chunks(Request("x" * 1100, 4))


def test_a_level_that_this_build_cannot_make_is_a_skip(tmp_path: Path) -> None:
    """fp8 fails in the engine core, bitsandbytes before; both say why in one sentence, and leave no process."""
    needs.library("vllm")

    async def attempt(level: str) -> None:
        spec = EngineSpec("vllm", ModelReference("tiny"), level, OPTIONS, log_path=tmp_path / f"{level}.log")
        engine = Vllm(spec)
        try:
            await engine.start()
        finally:
            await engine.stop()

    before = set(psutil.Process().children(recursive=True))
    for level in ("bitsandbytes", "fp8"):
        with pytest.raises(LevelUnsupported, match=f"cannot load the level {level}: .*"):
            asyncio.run(attempt(level))
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [one for one in left if "resource_tracker" not in " ".join(one.cmdline())]


def test_an_argument_that_vllm_does_not_know_is_named(tmp_path: Path) -> None:
    """An unknown argument in `extra` is an error of vLLM."""
    with pytest.raises((EngineError, StartFailed), match="no_such_thing"):
        Running(tmp_path / "engine.log", None, extra={"no_such_thing": 1})


def test_a_quantized_checkpoint_runs_and_the_end_of_its_engine_core_is_reported(
    running: Running, tmp_path: Path
) -> None:
    """W8A8 on the CPU: near fp32, but not the same. Then its core is killed: requests fail with the reason."""
    eight_bits = Running(tmp_path / "engine.log", None, ModelReference(str(w8a8(tmp_path))))
    try:
        assert eight_bits.info.level == "compressed-tensors"
        exact, rounded = running.scores().logprobs, eight_bits.scores().logprobs
        divergence = (np.exp(exact) * (exact - rounded)).sum(1).mean()
        assert 1e-6 < divergence < 0.1
        core = next(pid for pid in eight_bits.info.pids if psutil.Process(pid).ppid() == os.getpid())
        os.kill(core, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"vllm's engine has died: .*SIGKILL"):
            eight_bits.text("It was", 900)
    finally:
        eight_bits.end()


def test_an_adapter_changes_the_text_and_stopping_ends_replies(running: Running, tmp_path: Path) -> None:
    """A LoRA adapter over the same weights; a reply in progress when the engine is stopped fails with a sentence."""
    adapted = Running(tmp_path / "engine.log", "fp32", ModelReference("tiny", lora=str(adapter(tmp_path))))
    try:
        assert adapted.text("It is a truth", 32) != running.text("It is a truth", 32)

        async def stop_meanwhile() -> None:
            reply = asyncio.ensure_future(collect(adapted.engine.generate(Request("It was", 900, exact=True))))
            await asyncio.sleep(0)
            while not adapted.engine._llm.output_processor.get_num_unfinished_requests():
                await asyncio.sleep(0)
            await adapted.engine.stop()
            with pytest.raises(EngineError, match="vllm was stopped"):
                await reply

        adapted.runner.run(stop_meanwhile())
        left = [psutil.Process(pid) for pid in adapted.info.pids if psutil.pid_exists(pid)]
        assert not [one for one in left if one.status() != psutil.STATUS_ZOMBIE]  # grandchildren are init's to reap
    finally:
        adapted.end()


@pytest.mark.gpu
def test_it_quantizes_while_loading_on_a_gpu(tmp_path: Path) -> None:
    """fp8 where the device can: the level as loaded is fp8, and it generates."""
    on_gpu = Running(tmp_path / "engine.log", "fp8", gpu_memory_utilization=0.3)
    try:
        assert (on_gpu.info.level, on_gpu.info.device) == ("fp8", "cuda")
        assert len(on_gpu.text("It was", 8)) > 0
    finally:
        on_gpu.end()
