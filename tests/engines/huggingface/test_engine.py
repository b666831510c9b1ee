"""The engine `transformers` on the CPU: replies, start and stop, options."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import needs
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
    StartFailed,
    collect,
)
from engines.huggingface import loading
from engines.huggingface.engine import Transformers
from engines.models.source import resolve
from tests.engines.huggingface.running import MARKS, TEXT, reply_of, running, spec_of, text_of
from tests.models_made_small import tiny_with_beginning

pytestmark = MARKS


def test_the_stream_equals_generate() -> None:
    """Each token is a chunk, and all together are the text of a plain `model.generate`."""
    import torch

    async def body(engine: Transformers, info: EngineInfo) -> None:
        ids = torch.tensor([await engine.tokenize(TEXT)])
        plain = engine.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False)
        chunks = await collect(engine.generate(Request(TEXT, 32)))
        assert [chunk.kind for chunk in chunks[-2:]] == [ChunkKind.FINISH, ChunkKind.USAGE]
        assert [chunk.tokens for chunk in chunks[:-2]] == [1] * 32
        assert text_of(chunks) == bytes(plain[0, ids.shape[1] :].tolist()).decode()
        by_ids = await collect(engine.generate(Request(tuple(TEXT.encode()), 32)))
        whole = await collect(engine.generate(Request(TEXT, 32, stream=False)))
        assert text_of(by_ids) == text_of(whole) == text_of(chunks)
        assert [chunk.tokens for chunk in whole] == [32, None, None]

    running(spec_of(), body)


def test_scores_are_those_of_the_greedy_choice() -> None:
    """The likeliest token at each place of a greedy reply is the one that was generated."""

    async def body(engine: Transformers, info: EngineInfo) -> None:
        reply = text_of(await collect(engine.generate(Request(TEXT, 16, exact=True))))
        scores = await engine.score(list((TEXT + reply).encode()), len(TEXT))
        assert bytes(scores.logprobs.argmax(axis=1).tolist()).decode() == reply
        assert scores.true_logprobs == pytest.approx(scores.logprobs.max(axis=1))
        with pytest.raises(EngineError, match="n_ctx"):
            await engine.score([97] * 1025, 1)
        for first in (0, 2):
            with pytest.raises(EngineError, match=f"from 1 to 1, not {first}"):
                await engine.score([97, 98], first)

    running(spec_of(), body)


def test_drawing_is_reproducible_by_its_seed() -> None:
    """A seed determines the text; another seed gives another text."""

    async def body(engine: Transformers, info: EngineInfo) -> None:
        def drawn(seed: int) -> Request:
            return Request(TEXT, 24, exact=True, sampling={"temperature": 1.0, "seed": seed})

        first, again, other = [text_of(await collect(engine.generate(drawn(seed)))) for seed in (1, 1, 2)]
        assert first == again != other

    running(spec_of(), body)


@pytest.mark.parametrize("batching", ["none", "continuous"])
def test_a_stop_text_ends_the_reply(batching: str) -> None:
    """A stop string of several tokens, and what follows it, is not shown."""
    full = text_of(reply_of(spec_of(batching=batching), Request(TEXT, 24)))
    chunks = reply_of(spec_of(batching=batching), Request(TEXT, 24, sampling={"stop": [full[6:9]]}))
    assert text_of(chunks) == full[: full.index(full[6:9])]
    assert chunks[-2].finish_reason == "stop"


@pytest.mark.parametrize("batching", ["none", "continuous"])
def test_the_context_bounds_a_reply(batching: str) -> None:
    """A full context ends the reply with "length"; a prompt that fills it is refused."""

    async def body(engine: Transformers, info: EngineInfo) -> None:
        chunks = await collect(engine.generate(Request(TEXT, 100, exact=True)))
        assert len(text_of(chunks)) == 32 - len(TEXT)
        assert chunks[-2].finish_reason == "length"
        with pytest.raises(EngineError, match="raise n_ctx"):
            await collect(engine.generate(Request("a" * 32, 1)))

    running(spec_of(n_ctx=32, batching=batching), body)


@pytest.mark.parametrize("batching", ["none", "continuous"])
def test_a_cancelled_reply_frees_the_engine(batching: str) -> None:
    """Long replies whose readers left do not keep the next one waiting until their ends."""

    async def body(engine: Transformers, info: EngineInfo) -> None:
        for _ in range(3):
            reply = engine.generate(Request(TEXT, 900, exact=True))
            assert (await anext(reply)).kind is ChunkKind.CONTENT
            await reply.aclose()  # type: ignore[attr-defined]
        steps = await _steps_of(engine.model, engine.generate(Request(TEXT, 4, exact=True)))
        assert steps < 40

    running(spec_of(batching=batching), body)


async def _steps_of(model: Any, reply: Any) -> int:
    """Count the forward passes of a reply."""
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    hook = model.register_forward_pre_hook(count)
    try:
        await collect(reply)
    finally:
        hook.remove()
    return steps


def test_replies_in_progress_end_when_the_engine_is_stopped() -> None:
    """Readers and later requests get a sentence."""

    async def main() -> None:
        engine = Transformers(spec_of())
        await engine.start()
        go_on, passes = threading.Event(), itertools.count()

        def hold(*_: Any) -> None:
            if next(passes) >= 10:
                go_on.wait()

        engine.model.register_forward_pre_hook(hold)
        replies = [engine.generate(Request(TEXT, 900, exact=True)) for _ in range(2)]
        await anext(replies[0])
        waiting = asyncio.create_task(collect(replies[1]))
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0)  # both have begun
        go_on.set()
        await stopping
        for reply in (collect(replies[0]), waiting, collect(engine.generate(Request(TEXT, 1)))):
            with pytest.raises(EngineError, match=r"stopped|not running"):
                await reply

    asyncio.run(main())


@pytest.mark.parametrize("batching", ["none", "continuous"])
def test_stopping_while_it_loads_leaves_nothing(batching: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled start goes on in its thread; what it makes does not outlive the stop."""
    began, go_on, load = threading.Event(), threading.Event(), loading.load

    def load_later(*given: Any) -> loading.Loaded:
        began.set()
        go_on.wait()
        return load(*given)

    monkeypatch.setattr(loading, "load", load_later)
    before = set(threading.enumerate())

    async def main() -> None:
        engine = Transformers(spec_of(batching=batching))
        starting = asyncio.create_task(engine.start())
        await asyncio.to_thread(began.wait)
        starting.cancel()
        stopping = asyncio.create_task(engine.stop())
        await asyncio.wait([starting])
        go_on.set()
        await stopping
        assert engine.model is None
        with pytest.raises(EngineError, match="not running"):
            await collect(engine.generate(Request(TEXT, 1)))

    asyncio.run(main())
    assert set(threading.enumerate()) <= before


def test_the_tokens_in_front_of_a_text_are_added(tmp_path: Path) -> None:
    """A prompt that is text begins as the model wants it; token ids are used as they are."""
    model = tiny_with_beginning(tmp_path / "model")

    async def body(engine: Transformers, info: EngineInfo) -> list[int | None]:
        assert await engine.tokenize(TEXT) == list(TEXT.encode())
        replies = [await collect(engine.generate(Request(prompt, 1))) for prompt in (TEXT, tuple(TEXT.encode()))]
        return [usage.usage.prompt_tokens for *_, usage in replies if usage.usage]

    assert running(spec_of(model=model.name), body) == [len(TEXT) + 1, len(TEXT)]


@pytest.mark.parametrize("batching", ["none", "continuous"])
def test_a_token_without_text_is_no_chunk(batching: str) -> None:
    """A possible start of a stop string is held back with its token until the next text."""
    full = text_of(reply_of(spec_of(batching=batching), Request(TEXT, 24, exact=True)))
    never = [full[6:9] + "\n"]
    *content, _, usage = reply_of(spec_of(batching=batching), Request(TEXT, 24, exact=True, sampling={"stop": never}))
    assert text_of(content) == full
    assert all(chunk.text for chunk in content)
    assert sum(chunk.tokens or 0 for chunk in content) == usage.usage.output_tokens == 24  # type: ignore[union-attr]


@pytest.mark.slow
def test_stop_gives_the_memory_back() -> None:
    """Five more starts leave the process no larger than the second did, by less than one model's weights."""
    sizes = []
    for _ in range(6):
        reply_of(spec_of(), Request(TEXT, 8, exact=True))
        sizes.append(psutil.Process().memory_info().rss)
    assert max(sizes[2:]) - sizes[1] < 12_000_000


@pytest.mark.slow
def test_an_adapter_changes_the_output(tmp_path: Path) -> None:
    """A LoRA adapter saved by PEFT is put over the model; a folder that is none is refused."""
    needs.library("peft")
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(resolve(ModelReference("tiny")).path, dtype=torch.float32)
    torch.manual_seed(1)
    targets = ["q_proj", "v_proj"]
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    request = Request(TEXT, 32, exact=True)
    plain = text_of(reply_of(spec_of(), request))
    for batching in ("none", "continuous"):
        assert text_of(reply_of(spec_of(lora=str(tmp_path / "adapter"), batching=batching), request)) != plain
    with pytest.raises(EngineError, match=r"adapter_config\.json"):
        Transformers(spec_of(lora=str(tmp_path))).prepare()


@contextmanager
def _read_between_passes(model: Any) -> Iterator[None]:
    """Let each forward pass wait until the event loop has read the earlier ones."""
    loop = asyncio.get_running_loop()

    async def idle() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def wait(*_: Any) -> None:
        asyncio.run_coroutine_threadsafe(idle(), loop).result()

    hook = model.register_forward_pre_hook(wait)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_continuous_batching_overlaps_and_changes_nothing(attention: str) -> None:
    """Tokens of two requests alternate, and texts and scores equal those of each alone."""

    async def body(engine: Transformers, info: EngineInfo) -> tuple[list[int], list[str], float]:
        order: list[int] = []

        async def one(number: int, prompt: str) -> str:
            parts = []
            async for chunk in engine.generate(Request(prompt, 24, exact=True)):
                parts.append(chunk.text)
                order.append(number)
            return "".join(parts)

        with _read_between_passes(engine.model):
            texts = await asyncio.gather(one(0, TEXT), one(1, "She was "))
        scores = await engine.score(list(TEXT.encode()), 1)
        return order, list(texts), float(scores.true_logprobs.mean())

    order, texts, mean = running(spec_of(batching="continuous", attention=attention), body)
    alone = running(spec_of(attention=attention), body)
    assert texts == alone[1]
    assert mean == pytest.approx(alone[2], abs=1e-5)
    turns = sum(a != b for a, b in itertools.pairwise(order))
    assert turns > 10
    assert sum(a != b for a, b in itertools.pairwise(alone[0])) == 1


def test_continuous_batching_refuses_to_draw() -> None:
    """A seed cannot be kept to among others: the request fails with what to write."""
    with pytest.raises(EngineError, match="temperature: 0"):
        reply_of(spec_of(batching="continuous"), Request(TEXT, 4, sampling={"temperature": 0.7}))


@pytest.mark.parametrize("cache", ["static", "none"])
def test_the_cache_changes_no_token(cache: str) -> None:
    """Greedy text is the same with any cache."""
    request = Request(TEXT, 16, exact=True)
    assert text_of(reply_of(spec_of(cache=cache), request)) == text_of(reply_of(spec_of(), request))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"atention": "sdpa"}, "'attention'"),
        ({"cache": "huge"}, "cache is one of dynamic"),
        ({"batching": "continuous", "cache": "static"}, "a cache of its own"),
        ({"compile": True}, "compile needs cache: static"),
        ({"device": "tpu"}, "device is auto"),
        ({"n_ctx": 0}, "n_ctx is more than 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], sentence: str) -> None:
    """Before anything is loaded, with what to write instead."""
    with pytest.raises(EngineError, match=sentence):
        Transformers(spec_of(**options))


@pytest.mark.parametrize(
    ("spec", "kind", "sentence"),
    [
        (spec_of("int4-torchao", device="cpu"), LevelUnsupported, "runs only on cuda"),
        (spec_of(cache="offloaded", device="cpu"), EngineError, "cache: dynamic"),
        (spec_of(attention="flash_attention_2", device="cpu"), EngineError, "flash-attn"),
        (spec_of(max_memory={"cpu": "2MB"}), StartFailed, "max_memory leaves"),
        (replace(spec_of(device="cuda"), devices=("cpu",)), EngineError, "contradicts"),
    ],
)
def test_start_refuses_what_this_machine_lacks(spec: EngineSpec, kind: type, sentence: str) -> None:
    """A level that cannot run is a skip, an option an error."""
    with pytest.raises(kind, match=sentence):
        reply_of(spec, Request(TEXT, 1))


def test_nothing_imports_the_library_before_the_stopwatch() -> None:
    """Creating and preparing import nothing. memory_needed() would, so the import is timed before it."""
    program = (
        "import sys\n"
        "import engines\n"
        "from engines.base import EngineSpec, ModelReference\n"
        "engine = engines.create(EngineSpec('transformers', ModelReference('tiny'), 'fp32'))\n"
        "engine.prepare()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), sorted(sys.modules)\n"
        "engine.import_library()\n"
        "before = set(sys.modules)\n"
        "assert {'torch', 'transformers'} <= before\n"
        "engine.memory_needed()\n"
        "assert not [name for name in set(sys.modules) - before if name.startswith('torch.')]\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
