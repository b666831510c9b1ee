"""llama-cpp-python in this process, run for real on the built-in model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import needs
import numpy as np
import psutil
import pytest

import engines
from engines.base import (
    Chunk,
    ChunkKind,
    EngineError,
    EngineInfo,
    EngineSpec,
    ModelReference,
    Request,
    Scores,
    StartFailed,
)
from engines.base import collect as whole
from engines.llamacpp.embedded import LlamaCpp
from engines.llamacpp.native import NativeModel
from engines.models.gguf.quantize import LEVELS
from tests.engines.greedy import HELD_OUT
from tests.engines.lora_file import write_adapter

PROMPT = "It is a truth universally acknowledged, that"
EXACT: dict[str, Any] = {"cache_type_k": "f32", "cache_type_v": "f32", "flash_attn": False}
GREEDY = {"temperature": 0}

pytestmark = pytest.mark.engines


@pytest.fixture(autouse=True)
def _installed() -> None:
    needs.library("llama_cpp")


def _spec(tmp_path: Path, level: str | None = "q8_0", lora: Path | None = None, **options: Any) -> EngineSpec:
    model = ModelReference("tiny", lora=None if lora is None else str(lora))
    return EngineSpec("llama-cpp", model, level, {"n_ctx": 512, **options}, log_path=tmp_path / "engine.log")


@asynccontextmanager
async def _running(spec: EngineSpec) -> AsyncIterator[tuple[LlamaCpp, EngineInfo]]:
    engine = LlamaCpp(spec)
    try:
        yield engine, await engine.start()
    finally:
        await engine.stop()


def _with(spec: EngineSpec, body: Callable[[LlamaCpp], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with _running(spec) as (engine, _):
            return await body(engine)

    return asyncio.run(main())


def _text(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.kind is ChunkKind.CONTENT)


def _finish(chunks: Sequence[Chunk]) -> str | None:
    return next((chunk.finish_reason for chunk in chunks if chunk.kind is ChunkKind.FINISH), None)


def _usage(chunks: Sequence[Chunk]) -> tuple[int | None, int | None, int | None]:
    usage = next(chunk.usage for chunk in chunks if chunk.usage)
    return usage.prompt_tokens, usage.output_tokens, usage.cached_tokens


class _Held:
    """Lets the engine draw `free` tokens; the next one waits for `go_on`, so that the test sets the pace."""

    def __init__(self, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn, self.go_on = 0, threading.Event()
        sample = NativeModel.sample

        def held(model: NativeModel, chain: Any) -> int:
            self.drawn += 1
            if self.drawn > free:
                self.go_on.wait()
            return sample(model, chain)

        monkeypatch.setattr(NativeModel, "sample", held)


def test_tokens_come_one_by_one_and_then_the_end(tmp_path: Path) -> None:
    """Every token is a chunk, followed by finish reason and counts; text and ids give the same reply."""

    async def body(engine: LlamaCpp) -> None:
        chunks = await whole(engine.generate(Request(PROMPT, 48, exact=True, sampling=GREEDY)))
        assert [chunk.kind for chunk in chunks] == [ChunkKind.CONTENT] * 48 + [ChunkKind.FINISH, ChunkKind.USAGE]
        assert {chunk.tokens for chunk in chunks[:48]} == {1}
        assert _finish(chunks) == "length"
        assert _usage(chunks) == (len(PROMPT), 48, 0)
        ids = await whole(engine.generate(Request(tuple(PROMPT.encode()), 48, exact=True, sampling=GREEDY)))
        assert _text(ids) == _text(chunks)
        words = _text(chunks).split()
        assert sum(word.strip(',.;"').isalpha() for word in words) >= 0.8 * len(words) > 4

    _with(_spec(tmp_path), body)


def test_a_reply_at_once_is_one_chunk(tmp_path: Path) -> None:
    """A reply without streaming is one text with all its tokens."""

    async def body(engine: LlamaCpp) -> None:
        streamed = await whole(engine.generate(Request(PROMPT, 9, exact=True, sampling=GREEDY)))
        once = await whole(engine.generate(Request(PROMPT, 9, exact=True, sampling=GREEDY, stream=False)))
        assert (once[0].text, once[0].tokens) == (_text(streamed), 9)
        assert [chunk.kind for chunk in once[1:]] == [ChunkKind.FINISH, ChunkKind.USAGE]

    _with(_spec(tmp_path), body)


def test_information_describes_the_loaded_model(tmp_path: Path) -> None:
    """Version, level, sizes, device and buffers; llama.cpp's log is in the file."""

    async def main() -> None:
        async with _running(_spec(tmp_path, "q4_0")) as (engine, info):
            assert (info.name, info.model, info.level, info.context_tokens) == ("llama-cpp", "tiny", "q4_0", 512)
            assert info.version == info.libraries["llama-cpp-python"]
            assert (info.device, info.parameters, info.kv_bytes_per_token) == ("cpu", 3_214_080, 2048)
            assert info.weight_bytes is not None
            assert info.memory["kv_cache"] == 512 * 2048
            assert 0.9 < info.memory["weights"] / info.weight_bytes < 1.1
            assert info.memory["runtime"] > 0
            assert info.options["n_threads"] >= 1
            assert await engine.tokenize("caf\u00e9") == list("caf\u00e9".encode())
            estimate = engine.memory_needed()
            assert estimate is not None
            assert estimate.parts["kv_cache"] == 512 * 2048

    asyncio.run(main())
    assert "KV buffer size" in (tmp_path / "engine.log").read_text()


def test_a_seed_repeats_and_no_seed_does_not(tmp_path: Path) -> None:
    """A seed repeats the text at any temperature; other seeds and no seed give other texts."""

    async def body(engine: LlamaCpp) -> None:
        async def said(**sampling: Any) -> str:
            return _text(await whole(engine.generate(Request(PROMPT, 40, exact=True, sampling=sampling))))

        assert await said(seed=3, temperature=1.0) == await said(seed=3, temperature=1.0)
        assert len({await said(seed=seed, temperature=1.0) for seed in range(4)}) > 1
        assert len({await said(temperature=1.0) for _ in range(4)}) > 1
        assert await said() == await said(temperature=0)
        assert await said(seed=1, top_k=1) == await said(temperature=0)

    _with(_spec(tmp_path), body)


def test_a_stop_string_ends_the_reply_before_it(tmp_path: Path) -> None:
    """The stop string and what follows it are not shown."""

    async def body(engine: LlamaCpp) -> None:
        full = _text(await whole(engine.generate(Request(PROMPT, 40, exact=True, sampling=GREEDY))))
        stop = full[10:14]
        chunks = await whole(engine.generate(Request(PROMPT, 40, sampling={**GREEDY, "stop": [stop]})))
        assert _text(chunks) == full[: full.index(stop)]
        assert _finish(chunks) == "stop"

    _with(_spec(tmp_path), body)


def test_the_context_ends_a_reply(tmp_path: Path) -> None:
    """Beyond it the reason is `length`; a prompt that fills it, an empty one and unknown ids are errors."""

    async def body(engine: LlamaCpp) -> None:
        chunks = await whole(engine.generate(Request("a" * 500, 100, exact=True, sampling=GREEDY)))
        assert (_finish(chunks), _usage(chunks)) == ("length", (500, 12, 0))
        for prompt, words in [("a" * 512, "raise n_ctx"), ("", "is empty"), ((7, 258), "vocabulary of 258")]:
            refused = await whole(engine.generate(Request(prompt, 4)))
            assert [chunk.kind for chunk in refused] == [ChunkKind.ERROR]
            assert words in refused[0].text

    _with(_spec(tmp_path), body)


@pytest.mark.parametrize(("prefix_cache", "second"), [(True, len(PROMPT) - 1), (False, 0)])
def test_a_known_beginning_is_computed_once(tmp_path: Path, prefix_cache: bool, second: int) -> None:
    """All but the last token of a repeated prompt comes from the cache, and nothing with prefix_cache off."""

    async def body(engine: LlamaCpp) -> None:
        one = await whole(engine.generate(Request(PROMPT, 20, exact=True, sampling=GREEDY)))
        two = await whole(engine.generate(Request(PROMPT, 20, exact=True, sampling=GREEDY)))
        assert (_usage(one)[2], _usage(two)[2]) == (0, second)
        assert _text(one) == _text(two)

    _with(_spec(tmp_path, "f32", prefix_cache=prefix_cache, **EXACT), body)


def test_requests_wait_for_each_other_in_order(tmp_path: Path) -> None:
    """The second reply begins after the first has ended."""

    async def body(engine: LlamaCpp) -> None:
        order: list[int] = []

        async def one(number: int) -> None:
            async for chunk in engine.generate(Request(PROMPT, 12, exact=True)):
                if chunk.kind is ChunkKind.CONTENT:
                    order.append(number)

        await asyncio.gather(*(one(number) for number in range(4)))
        assert order == sorted(order)
        assert len(order) == 48

    _with(_spec(tmp_path), body)


def test_closing_a_reply_ends_it_in_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request begins long before the given-up one would have been through."""
    held = _Held(10, monkeypatch)

    async def body(engine: LlamaCpp) -> None:
        given_up = engine.generate(Request(PROMPT, 460, exact=True, sampling=GREEDY))
        await anext(given_up)
        await given_up.aclose()  # type: ignore[attr-defined]
        held.go_on.set()
        chunks = await whole(engine.generate(Request(PROMPT + "x" * 400, 2, exact=True)))
        # What the two share is in the cache: the prompt, and as little of the reply as had been generated.
        assert len(PROMPT) <= (_usage(chunks)[2] or 0) < len(PROMPT) + 20
        assert held.drawn <= 10 + 1 + 2

    _with(_spec(tmp_path), body)


def test_a_grammar_holds_for_every_reply(tmp_path: Path) -> None:
    """The end of the grammar ends the reply; an invalid grammar is a failed start."""

    async def body(engine: LlamaCpp) -> None:
        chunks = await whole(engine.generate(Request(PROMPT, 20, sampling={"seed": 1})))
        assert _text(chunks) in ("yes", "no")
        assert _finish(chunks) == "stop"

    _with(_spec(tmp_path, grammar='root ::= "yes" | "no"'), body)
    with pytest.raises(StartFailed, match="grammar"):
        _with(_spec(tmp_path, grammar="root ::= (((("), body)


def test_an_adapter_changes_the_text(tmp_path: Path) -> None:
    """An adapter changes the text, unless it is all zeros."""

    async def body(engine: LlamaCpp) -> str:
        return _text(await whole(engine.generate(Request(PROMPT, 30, exact=True, sampling=GREEDY))))

    plain = _with(_spec(tmp_path), body)
    nothing = write_adapter(tmp_path / "nothing.gguf", scale=0.0)
    assert _with(_spec(tmp_path, lora=nothing), body) == plain
    assert _with(_spec(tmp_path, lora=write_adapter(tmp_path / "adapter.gguf")), body) != plain
    wrong = write_adapter(tmp_path / "wrong.gguf", width=64)
    with pytest.raises(StartFailed, match=r"cannot apply the adapter wrong\.gguf"):
        _with(_spec(tmp_path, lora=wrong), body)


def test_stop_ends_running_and_waiting_replies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running and waiting replies end with a sentence; later requests are refused."""
    held = _Held(10, monkeypatch)

    async def main() -> None:
        async with _running(_spec(tmp_path)) as (engine, _):
            streams = [engine.generate(Request(PROMPT, 460, exact=True)) for _ in range(2)]
            await anext(streams[0])
            ends = [asyncio.ensure_future(whole(stream)) for stream in streams]
            stopping = asyncio.ensure_future(engine.stop())
            await asyncio.sleep(0)  # all three have begun
            held.go_on.set()
            await stopping
            for end in ends:
                with pytest.raises(EngineError, match="was stopped"):
                    await end
            with pytest.raises(EngineError, match="is not running"):
                await whole(engine.generate(Request(PROMPT, 1)))
            with pytest.raises(EngineError, match="is not running"):
                await engine.score((1, 2), 1)

    asyncio.run(main())


def test_stop_gives_the_memory_back(tmp_path: Path) -> None:
    """Eight more starts leave less behind than what one of them takes: 64 MiB of cache and 12 of weights."""
    spec = _spec(tmp_path, "f32", n_ctx=16384, cache_type_k="f32", cache_type_v="f32", mmap=False)

    async def once() -> None:
        async with _running(spec) as (engine, _):
            await whole(engine.generate(Request(PROMPT, 2)))

    def resident_after(starts: int) -> int:
        for _ in range(starts):
            asyncio.run(once())
        return int(psutil.Process().memory_info().rss)

    few = resident_after(2)
    assert resident_after(8) - few < 76 << 20


def test_a_file_that_is_no_model_is_a_failed_start(tmp_path: Path) -> None:
    """llama.cpp's own reason is part of the sentence."""
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "empty.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    spec = EngineSpec("llama-cpp", ModelReference(str(tmp_path / "empty.gguf")), log_path=tmp_path / "log")
    with pytest.raises(StartFailed, match=r"cannot load empty\.gguf: .*llama"):
        _with(spec, LlamaCpp.stop)


def test_without_a_file_the_log_goes_to_stderr(tmp_path: Path) -> None:
    """The whole log of llama.cpp appears."""
    code = (
        "import asyncio\n"
        "from engines.base import EngineSpec, ModelReference\n"
        "from engines.llamacpp.embedded import LlamaCpp\n"
        "async def main():\n"
        "    engine = LlamaCpp(EngineSpec('llama-cpp', ModelReference('tiny'), 'q8_0', {'n_ctx': 256}))\n"
        "    await engine.start()\n"
        "    await engine.stop()\n"
        "asyncio.run(main())\n"
    )
    root = Path(engines.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "KV buffer size" in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_loads_and_generates(tmp_path: Path, level: str) -> None:
    """Every level is loaded unchanged and gives eight tokens."""

    async def main() -> None:
        async with _running(_spec(tmp_path, level)) as (engine, info):
            chunks = await whole(engine.generate(Request(PROMPT, 8, exact=True, sampling=GREEDY)))
            assert (info.level, _usage(chunks)[1]) == (level, 8)

    asyncio.run(main())


def _scores(spec: EngineSpec, tokens: Sequence[int], first: int) -> Scores:
    async def main() -> Scores:
        engine: Any = engines.create(spec)
        try:
            await engine.start()
            found: Scores = await engine.score(tokens, first)
            return found
        finally:
            await engine.stop()

    return asyncio.run(main())


def test_scores_are_distributions_and_come_in_any_batches(tmp_path: Path) -> None:
    """Scores sum to one, agree for all batches, and match greedy decoding."""
    tokens = list(HELD_OUT.read_bytes()[:200])
    found = _scores(_spec(tmp_path, "f32", **EXACT), tokens, 5)
    assert found.tokens is None
    assert found.logprobs.shape == (195, 258)
    assert found.logprobs.dtype == np.float32
    np.testing.assert_allclose(np.exp(found.logprobs.astype(np.float64)).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found.true_logprobs, found.logprobs[np.arange(195), tokens[5:]])
    assert 0.5 < -found.true_logprobs.mean() < 2.0  # nats a byte
    small = _scores(_spec(tmp_path, "f32", n_batch=16, n_ubatch=8, **EXACT), tokens, 5)
    np.testing.assert_allclose(small.logprobs, found.logprobs, atol=1e-3)


def test_scores_have_their_limits(tmp_path: Path) -> None:
    """Beyond the context, and without a token before the first, they are refused."""
    with pytest.raises(EngineError, match="513 tokens are more than the context of 512"):
        _scores(_spec(tmp_path), [1] * 513, 1)
    with pytest.raises(EngineError, match="from 1 to 9, not 0"):
        _scores(_spec(tmp_path), [1] * 10, 0)


@pytest.mark.slow
def test_the_embedded_server_scores_alike(tmp_path: Path) -> None:
    """Position by position over HTTP, or all at once in this process: the same to a thousandth."""
    tokens = list(HELD_OUT.read_bytes()[1000:1200])
    ours = _scores(_spec(tmp_path, "f32", **EXACT), tokens, 3)
    spec = EngineSpec("llama-server", ModelReference("tiny"), "f32", {"n_ctx": 512, **EXACT}, log_path=tmp_path / "log")
    theirs = _scores(spec, tokens, 3)
    assert theirs.tokens is None
    np.testing.assert_allclose(theirs.logprobs, ours.logprobs, atol=1e-3)
    np.testing.assert_allclose(theirs.true_logprobs, ours.true_logprobs, atol=1e-3)


@pytest.mark.slow
def test_eight_bits_are_closer_than_four(tmp_path: Path) -> None:
    """8 bits are closer to f16 by divergence and by top-1 agreement, on held-out text."""
    text = HELD_OUT.read_bytes()
    pieces = [list(text[start : start + 500]) for start in range(0, 20_000, 2_000)]

    def of(level: str) -> list[np.ndarray[Any, Any]]:
        async def body(engine: LlamaCpp) -> list[np.ndarray[Any, Any]]:
            return [(await engine.score(piece, 1)).logprobs for piece in pieces]

        found: list[np.ndarray[Any, Any]] = _with(_spec(tmp_path, level), body)
        return found

    reference = of("f16")
    divergence, agreement = {}, {}
    for level in ("q8_0", "q4_0"):
        pairs = list(zip(reference, of(level), strict=True))
        divergence[level] = [float((np.exp(p) * (p - q)).sum(axis=1).mean()) for p, q in pairs]
        agreement[level] = [float((p.argmax(axis=1) == q.argmax(axis=1)).mean()) for p, q in pairs]
    assert min(divergence["q8_0"]) >= 0
    assert max(divergence["q8_0"]) < min(divergence["q4_0"])
    assert np.mean(agreement["q8_0"]) > np.mean(agreement["q4_0"])
