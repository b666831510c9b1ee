"""The engine `transformers` for real, on the CPU and, where there is one, on a GPU."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import needs
import numpy as np
import psutil
import pytest

from engines.base import (
    Chunk,
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
from engines.huggingface.loading import weight_bytes
from engines.models.source import resolve
from tests.models_made_small import tiny_with_beginning

TEXT = "It is a truth universally"
PLAIN = ("fp32", "fp16", "bf16")
QUANTIZED = ("int8", "int8-torchao", "nf4", "fp4", "fp8")
FEW = {"n_threads": 1}

pytestmark = [
    pytest.mark.engines,
    # torch and its companions announce at their import what they will drop one day.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    # bitsandbytes tells that its kernels compute in another type than they were given.
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
]


@pytest.fixture(autouse=True)
def transformers_is_here() -> None:
    """Everything here needs the library."""
    needs.library("transformers")


def spec_of(level: str | None = "fp32", model: str = "tiny", lora: str | None = None, **options: Any) -> EngineSpec:
    """Return the specification of an engine."""
    return EngineSpec("transformers", ModelReference(model, lora=lora), level, {**FEW, **options})


def running(spec: EngineSpec, body: Callable[[Transformers, EngineInfo], Awaitable[Any]]) -> Any:
    """Run the body on a started engine, stop the engine, and return the result."""

    async def main() -> Any:
        engine = Transformers(spec)
        try:
            return await body(engine, await engine.start())
        finally:
            await engine.stop()

    return asyncio.run(main())


def text_of(chunks: list[Chunk]) -> str:
    """The text of a reply."""
    return "".join(chunk.text for chunk in chunks)


def reply_of(spec: EngineSpec, request: Request) -> list[Chunk]:
    """All chunks of one reply."""

    async def body(engine: Transformers, info: EngineInfo) -> list[Chunk]:
        return await collect(engine.generate(request))

    chunks: list[Chunk] = running(spec, body)
    return chunks


def scale_bytes_saved() -> int:
    """Return the bytes that bitsandbytes saves of the 4 of a scale: 2 if the processor computes in bf16."""
    from bitsandbytes.functional import has_avx512bf16

    return 2 if has_avx512bf16() else 0


@pytest.mark.slow
@pytest.mark.parametrize("level", [*PLAIN, *QUANTIZED])
def test_every_level_that_runs_here_generates_and_scores(level: str) -> None:
    """The level as loaded is the level asked for, its weights take what it says, and its text is near that of fp32."""

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert (info.level, info.device) == (level, "cpu")
        assert engine.memory_needed().parts["weights"] <= info.memory["weights"]  # type: ignore[union-attr]
        four_bit = 0.6 - scale_bytes_saved() / 64
        expected = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "nf4": four_bit, "fp4": four_bit}.get(level, 1.05)
        assert info.memory["weights"] / (info.parameters or 1) == pytest.approx(expected, rel=0.05)
        assert len(text_of(await collect(engine.generate(Request(TEXT, 12, exact=True))))) == 12
        scores = await engine.score(list(TEXT.encode()), 1)
        assert scores.logprobs.shape == (len(TEXT) - 1, 258)
        assert np.exp(scores.logprobs).sum(axis=1) == pytest.approx(1, abs=1e-4)
        assert scores.true_logprobs.mean() == pytest.approx(-1.09, abs=0.05)

    running(spec_of(level), body)


def save_wide(folder: Path) -> None:
    """`tiny` in bf16 with all that is added up between layers 2**14 times as large, which the norms take out again."""
    import torch
    from transformers import AutoModelForCausalLM

    source = resolve(ModelReference("tiny")).path
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.clone())
        model.model.embed_tokens.weight *= 2**14
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= 2**14
            layer.mlp.down_proj.weight *= 2**14
    model.save_pretrained(folder)
    shutil.copy(source / "tokenizer.json", folder)


@pytest.mark.slow
def test_int8_keeps_the_range_of_a_bf16_checkpoint(tmp_path: Path) -> None:
    """Sums that fp16 cannot hold do not overflow between the layers that are quantized."""
    needs.library("bitsandbytes")
    save_wide(tmp_path)

    async def body(engine: Transformers, _: EngineInfo) -> float:
        return float((await engine.score(list(TEXT.encode()), 1)).true_logprobs.mean())

    assert running(spec_of("int8", str(tmp_path)), body) == pytest.approx(-1.09, abs=0.05)
    assert np.isnan(running(spec_of("fp16", str(tmp_path)), body))


def test_without_a_level_the_checkpoint_s_own_type_is_loaded() -> None:
    """`tiny` is stored in f16, and that is what runs and what is said."""

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert info.level == "fp16"
        assert info.memory["weights"] == pytest.approx(info.weight_bytes, rel=0.01)
        assert info.kv_bytes_per_token == 2 * 4 * 2 * 64 * 2

    running(spec_of(None), body)


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
    """A start that was given up goes on in its thread; what it makes does not outlive the stop."""
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


def marked_as(folder: Path, quantization: dict[str, Any]) -> str:
    """A copy of `tiny` whose config.json says that it was quantized."""
    source = resolve(ModelReference("tiny")).path
    copy = shutil.copytree(source, folder / "model")
    config = json.loads((source / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    return str(copy)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_checkpoint_s_level_is_the_only_one_it_has(method: str, tmp_path: Path) -> None:
    """Other levels are refused before loading; its own, on a CPU too, names the libraries that are not installed."""
    if find_spec("gptqmodel") is not None:
        pytest.skip("gptqmodel is installed here")
    assert Transformers.devices(method) == ("cpu", "cuda")
    model = marked_as(tmp_path, {"quant_method": method, "bits": 4, "group_size": 128, "zero_point": True})
    with pytest.raises(LevelUnsupported, match=f"quantized beforehand to {method}"):
        Transformers(spec_of("fp16", model)).prepare()
    with pytest.raises(LevelUnsupported, match=f"name a model that was quantized with {method.upper()}"):
        Transformers(spec_of(method)).prepare()
    for level in (method, None):
        with pytest.raises(
            LevelUnsupported, match=f"{method} needs libraries that are not installed here: pip install"
        ):
            reply_of(spec_of(level, model), Request(TEXT, 1))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["nf4", "int8"])
def test_a_quantized_checkpoint_is_loaded_unchanged(level: str, tmp_path: Path) -> None:
    """Saved in 4 or 8 bits, it runs without a level being named, and says which it has."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    source = resolve(ModelReference("tiny")).path
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    how = BitsAndBytesConfig(**(four if level == "nf4" else {"load_in_8bit": True}))
    AutoModelForCausalLM.from_pretrained(source, quantization_config=how, device_map="cpu").save_pretrained(tmp_path)
    shutil.copy(source / "tokenizer.json", tmp_path)

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert info.level == level
        assert len(text_of(await collect(engine.generate(Request(TEXT, 8, exact=True))))) == 8

    running(spec_of(None, str(tmp_path)), body)
    running(spec_of(level, str(tmp_path)), body)
    with pytest.raises(LevelUnsupported, match=level):
        Transformers(spec_of("fp8", str(tmp_path))).prepare()


@pytest.mark.slow
def test_a_compressed_tensors_checkpoint_is_weighed_as_it_runs(tmp_path: Path) -> None:
    """The library unpacks it at the first token: what is told of its memory is what it takes from then on."""
    needs.library("compressed_tensors")
    source = resolve(ModelReference("tiny")).path
    save_compressed(source, tmp_path)

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert info.level == "compressed-tensors"
        assert len(text_of(await collect(engine.generate(Request(TEXT, 8, exact=True))))) == 8
        assert info.memory["weights"] == weight_bytes(engine.model)

    running(spec_of(None, str(tmp_path)), body)
    with pytest.raises(LevelUnsupported, match="quantized beforehand to compressed-tensors"):
        Transformers(spec_of("fp16", str(tmp_path))).prepare()


def save_compressed(source: Path, folder: Path) -> None:
    """A model with the weights of its linear layers in 8 bits, one scale for each row, packed."""
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=8, strategy="channel"))
    config = QuantizationConfig(
        config_groups={"all": scheme},
        ignore=["lm_head"],
        quantization_status=QuantizationStatus.FROZEN,
        format="pack-quantized",
    )
    apply_quantization_config(model, config)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data.copy_(module.weight.abs().amax(1, keepdim=True) / 127)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    shutil.copy(source / "tokenizer.json", folder)


def test_a_level_that_would_change_nothing_is_refused(tmp_path: Path) -> None:
    """torchao silently leaves GPT-2's Conv1D layers as they are, which is no int8 model."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=1, n_embd=256, n_head=4, vocab_size=258)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    shutil.copy(resolve(ModelReference("tiny")).path / "tokenizer.json", tmp_path)
    with pytest.raises(LevelUnsupported, match="has no effect on GPT2LMHeadModel"):
        reply_of(spec_of("int8-torchao", str(tmp_path)), Request(TEXT, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("level", ["fp16", "bf16", "int8", "int8-torchao", "int4-torchao", "nf4", "fp8"])
@pytest.mark.parametrize("batching", ["none", "continuous"])
def test_on_a_gpu(level: str, batching: str) -> None:
    """Every level runs on the first GPU; one that GPU or libraries lack is a skip."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU that torch can use")

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert (info.level, info.device) == (level, "cuda:0")
        assert info.memory["device_peak"] >= info.memory["weights"]
        assert len(text_of(await collect(engine.generate(Request(TEXT, 12, exact=True))))) == 12

    try:
        running(spec_of(level, batching=batching, n_ctx=512, device="cuda"), body)
    except LevelUnsupported as error:
        pytest.skip(str(error))
    assert torch.cuda.memory_allocated() < 20_000_000


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
