"""vLLM in process, for real: inside the environment that has it (`make test-vllm`)."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import engines
from engines.base import ChunkKind, EngineError, LevelUnsupported, ModelReference, Request, Scores, collect
from engines.cores import default_threads
from tests.engines.greedy import HELD_OUT
from tests.engines.running import VLLM_OPTIONS, Running, vllm_spec
from tests.engines.vllm_checkpoints import adapter, w8a8
from tests.models_made_small import tiny_with_beginning

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


def chunks(running: Running, request: Request) -> list[Any]:
    """A whole reply."""
    found: list[Any] = running.run(collect(running.engine.generate(request)))
    return found


def text(running: Running, prompt: str | tuple[int, ...], tokens: int = 16) -> str:
    """A greedy reply of so many tokens."""
    reply = chunks(running, Request(prompt, tokens, exact=True, sampling={"temperature": 0}))
    return "".join(chunk.text for chunk in reply)


def scores_by(running: Running, first: int = 1) -> Scores:
    """Return the scores of the held-out text."""
    scores: Scores = running.run(running.engine.score(list(TEXT), first))
    return scores


def test_it_reports_what_runs(vllm: Running) -> None:
    """The type that was loaded, the context, the cache it holds, and vLLM's processes, which are not this one."""
    info = vllm.info
    assert (info.level, info.device, info.context_tokens, info.parameters) == ("fp32", "cpu", 1024, 3_214_080)
    assert info.memory == {"kv_cache": 1 << 30}
    assert info.options["max_num_seqs"] > 0
    assert info.options["kv_cache_space_gib"] == 1
    assert info.options["n_threads"] == default_threads()
    assert len(info.pids) >= 2
    assert os.getpid() not in info.pids


def test_each_chunk_bears_the_tokens_of_its_text(vllm: Running) -> None:
    """One each, or as many as waited for a late reader; then why it ended and the counts. The prompt's beginning comes
    from the cache a second time.
    """
    request = Request(tuple(TEXT[:300]), 12, exact=True, sampling={"temperature": 0}, priority=1)
    chunks(vllm, request)
    *tokens, finish, usage = chunks(vllm, request)
    assert {chunk.kind for chunk in tokens} == {ChunkKind.CONTENT}
    assert [chunk.tokens for chunk in tokens] == [len(chunk.text) for chunk in tokens]  # tiny's tokens are letters
    assert (sum(chunk.tokens or 0 for chunk in tokens), finish.finish_reason) == (12, "length")
    assert (usage.usage.prompt_tokens, usage.usage.output_tokens, usage.usage.cached_tokens) == (300, 12, 256)


def test_a_reply_that_is_not_streamed_is_one_chunk(vllm: Running) -> None:
    """All tokens come at once."""
    request = Request("It was", 12, exact=True, sampling={"temperature": 0}, stream=False)
    content = chunks(vllm, request)[0]
    assert (content.text, content.tokens) == (text(vllm, "It was", 12), 12)


def test_sampling_reaches_it(vllm: Running) -> None:
    """A seed repeats, another does not; a stop text ends the reply and is left out."""
    hot = {"temperature": 1.5, "top_p": 0.99, "top_k": 200}
    replies = [
        "".join(chunk.text for chunk in chunks(vllm, Request("It was", 24, exact=True, sampling=hot | {"seed": seed})))
        for seed in (1, 1, 2)
    ]
    assert replies[0] == replies[1] != replies[2]
    stopped = chunks(vllm, Request("It was", 64, sampling={"temperature": 0, "stop": [" "]}))
    assert " " not in "".join(chunk.text for chunk in stopped)
    assert stopped[-2].finish_reason == "stop"


def test_its_scores_are_its_distributions(vllm: Running) -> None:
    """Scores sum to one; the most likely token is the greedy one; rows begin at `first`."""
    scores = scores_by(vllm)
    assert scores.tokens is None
    assert scores.logprobs.shape == (len(TEXT) - 1, 258)
    np.testing.assert_allclose(np.exp(scores.logprobs).sum(1), 1, rtol=1e-4)
    rows = np.arange(len(TEXT) - 1)
    np.testing.assert_array_equal(scores.true_logprobs, scores.logprobs[rows, list(TEXT[1:])])
    greedy = chunks(vllm, Request(tuple(TEXT[:200]), 1, exact=True, sampling={"temperature": 0}))[0].text
    assert ord(greedy) == scores.logprobs[199].argmax()
    later = scores_by(vllm, first=200)
    np.testing.assert_allclose(later.logprobs, scores.logprobs[199:], atol=1e-5)
    with pytest.raises(EngineError, match="raise max_model_len"):
        vllm.run(vllm.engine.score([1] * 1024, 1))


def test_it_tokenizes(vllm: Running) -> None:
    """Ids are those of the model's tokenizer, without special tokens; `tiny` has none in front of a text."""
    assert vllm.run(vllm.engine.tokenize("Ah!")) == [65, 104, 33]
    assert vllm.run(vllm.engine.beginning()) == []


def test_a_reply_that_is_closed_is_cancelled(vllm: Running) -> None:
    """The engine works on nothing any more."""

    async def close_after_one() -> None:
        stream = vllm.engine.generate(Request("It was", 900, exact=True))
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]

    vllm.run(close_after_one())
    assert vllm.engine._llm.output_processor.get_num_unfinished_requests() == 0


def test_a_full_context_ends_the_reply_or_is_refused(vllm: Running) -> None:
    """A reply ends at the context's end, for its length; a prompt that is too long is refused."""
    *_, finish, usage = chunks(vllm, Request(tuple(TEXT[:300]), 2000, exact=True))
    assert (finish.finish_reason, usage.usage.output_tokens) == ("length", 724)
    with pytest.raises(EngineError, match=r"vllm: .*1024"):
        chunks(vllm, Request("x" * 1100, 4))


def test_a_level_that_this_build_cannot_make_is_a_skip(tmp_path: Path) -> None:
    """fp8 fails in the engine core, bitsandbytes before; both say why in one sentence, and leave no process."""
    before = set(psutil.Process().children(recursive=True))
    for level in ("bitsandbytes", "fp8"):
        with pytest.raises(LevelUnsupported, match=f"cannot load the level {level}: .*"):
            Running(vllm_spec("vllm", level=level, log_path=tmp_path / f"{level}.log"))
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [one for one in left if "resource_tracker" not in " ".join(one.cmdline())]


def test_an_argument_that_vllm_does_not_know_is_named(tmp_path: Path) -> None:
    """An unknown argument in `extra` is an error of vLLM."""
    options = {**VLLM_OPTIONS, "extra": {"no_such_thing": 1}}
    with pytest.raises(EngineError, match="no_such_thing"):
        Running(vllm_spec("vllm", level=None, options=options, log_path=tmp_path / "engine.log"))


def test_a_quantized_checkpoint_runs_and_the_end_of_its_engine_core_is_reported(vllm: Running, tmp_path: Path) -> None:
    """W8A8 on the CPU: near fp32, but not the same. Then its core is killed: requests fail with the reason."""
    model = ModelReference(str(w8a8(tmp_path)))
    eight_bits = Running(vllm_spec("vllm", model=model, level=None, log_path=tmp_path / "engine.log"))
    try:
        assert eight_bits.info.level == "compressed-tensors"
        exact, rounded = scores_by(vllm).logprobs, scores_by(eight_bits).logprobs
        divergence = (np.exp(exact) * (exact - rounded)).sum(1).mean()
        assert 1e-6 < divergence < 0.1
        core = next(pid for pid in eight_bits.info.pids if psutil.Process(pid).ppid() == os.getpid())
        os.kill(core, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"vllm's engine has died: .*SIGKILL"):
            text(eight_bits, "It was", 900)
    finally:
        eight_bits.end()


def test_an_adapter_changes_the_text_and_stopping_ends_replies(vllm: Running, tmp_path: Path) -> None:
    """A LoRA adapter over the same weights, whose tokenizer has a token of beginning; a reply in progress when the
    engine is stopped fails with a sentence. Stop can come before the start and twice, and leaves no process.
    """
    (tmp_path / "adapter").mkdir()
    model = replace(tiny_with_beginning(tmp_path / "model"), lora=str(adapter(tmp_path / "adapter")))
    spec = vllm_spec("vllm", model=model, log_path=tmp_path / "engine.log")
    asyncio.run(engines.create(spec).stop())
    adapted = Running(spec)
    try:
        assert adapted.run(adapted.engine.beginning()) == [256]
        assert text(adapted, tuple(b"It is a truth"), 32) != text(vllm, tuple(b"It is a truth"), 32)

        async def stop_meanwhile() -> None:
            reply = asyncio.ensure_future(collect(adapted.engine.generate(Request("It was", 900, exact=True))))
            await asyncio.sleep(0)
            while not adapted.engine._llm.output_processor.get_num_unfinished_requests():
                await asyncio.sleep(0)
            await adapted.engine.stop()
            with pytest.raises(EngineError, match="vllm was stopped"):
                await reply

        adapted.run(stop_meanwhile())
    finally:
        adapted.end()
    assert not adapted.left()


@pytest.mark.gpu
def test_it_quantizes_while_loading_on_a_gpu(tmp_path: Path) -> None:
    """fp8 where the device can: the level as loaded is fp8, and it generates."""
    options = {**VLLM_OPTIONS, "gpu_memory_utilization": 0.3}
    on_gpu = Running(vllm_spec("vllm", level="fp8", options=options, log_path=tmp_path / "engine.log"))
    try:
        assert (on_gpu.info.level, on_gpu.info.device) == ("fp8", "cuda")
        assert len(text(on_gpu, "It was", 8)) > 0
    finally:
        on_gpu.end()
