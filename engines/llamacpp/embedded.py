"""llama.cpp in this process, by llama-cpp-python: one request at a time, the others wait in the order they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from engines.base import (
    PROBE,
    Chunk,
    EngineError,
    EngineInfo,
    EngineSpec,
    MemoryEstimate,
    Request,
    Scores,
    StartFailed,
    check_first,
    put_before,
)
from engines.llamacpp.base import (
    GgufModel,
    context_tokens,
    known_facts,
    logged_device,
    logged_memory,
    memory_estimate,
    on_devices,
    prepared_model,
    require_device,
    require_model,
)
from engines.llamacpp.instructions import unused_instructions
from engines.llamacpp.native import NativeLog, NativeModel, Sampling
from engines.llamacpp.options import LlamaCppOptions, parse_options
from engines.llamacpp.reply import reply
from engines.models.gguf.file import gguf_levels
from engines.outbox import Outbox
from engines.process.memory import give_back

Result = TypeVar("Result")


class LlamaCpp:
    """See the module; implements `engines.base.InProcessEngine`. Options:
    `engines.llamacpp.options.LlamaCppOptions`.
    """

    def __init__(self, spec: EngineSpec) -> None:
        require_model(spec)
        self._spec = spec
        self._options = on_devices(parse_options(LlamaCppOptions, spec.options, "llama-cpp"), spec.devices)
        self._file: GgufModel | None = None
        self._model: NativeModel | None = None
        self._log: NativeLog | None = None
        # Everything native happens in this one thread, in the order in which it was asked for.
        self._thread: ThreadPoolExecutor | None = None
        self._stopped = False

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """Every GGUF level that can be made here."""
        return gguf_levels

    @classmethod
    def devices(cls, level: str) -> tuple[str, ...]:
        """Both for every level; a GPU needs a build of llama-cpp-python that knows it."""
        return ("cpu", "cuda")

    def prepare(self) -> Sequence[Path]:
        """Find or fetch the model and make its GGUF file at the level asked for (cached)."""
        return self._prepared().files

    def memory_needed(self) -> MemoryEstimate | None:
        """Weights, KV cache, and the least that the process takes."""
        return memory_estimate(self._spec, self._options, self._prepared())

    async def start(self) -> EngineInfo:
        """Load the model.

        Raises StartFailed if llama.cpp cannot load it, EngineError for a second start.
        """
        if self._thread is not None:
            raise EngineError("llama-cpp was started already; make a new engine for another start")
        self._thread = ThreadPoolExecutor(1, "llama-cpp")
        file = await asyncio.to_thread(self._prepared)
        return await self._native(lambda: self._load(file))

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The reply, a chunk for each token; closing it ends the generation before the next token."""
        return self._generate(request)

    @property
    def native(self) -> NativeModel:
        """What is loaded, for whoever wants llama.cpp without us; one thread at a time may use it.

        Raises EngineError unless it is running.
        """
        if self._model is None:
            raise EngineError("llama-cpp is not running; start it first")
        return self._model

    async def tokenize(self, text: str) -> list[int]:
        """The token ids that the loaded model's own tokenizer gives, no special tokens added."""
        return await self._native(lambda: self.native.tokenize(text, special=False))

    async def beginning(self) -> list[int]:
        """The ids that it puts in front of a text that it is sent, such as the token of beginning; [] for none."""
        served = await self._native(lambda: self.native.tokenize(PROBE, special=True))
        return put_before(served, await self.tokenize(PROBE))

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """The distributions of tokens[first:] over the whole vocabulary.

        Raises EngineError if the sequence is longer than the context.
        """
        return await self._native(lambda: _scores(self.native, tokens, first))

    async def stop(self) -> None:
        """End what is being generated, free model and context, end the thread."""
        thread, stopped_before = self._thread, self._stopped
        self._stopped = True
        if thread is None or stopped_before:
            return
        await asyncio.wrap_future(thread.submit(self._unload))
        await asyncio.to_thread(thread.shutdown)

    async def _generate(self, request: Request) -> AsyncIterator[Chunk]:
        if self._thread is None or self._model is None:
            raise EngineError("llama-cpp is not running; start it first")
        outbox: Outbox[Chunk | None] = Outbox()
        job = self._thread.submit(self._reply, request, outbox)
        job.add_done_callback(lambda _: outbox.put(None))
        try:
            while (chunk := await outbox.take()) is not None:
                yield chunk
        finally:
            outbox.closed = True
            job.cancel()
        if self._stopped:
            raise EngineError("llama-cpp was stopped")
        job.result()

    def _reply(self, request: Request, outbox: Outbox[Chunk | None]) -> None:
        def go_on() -> bool:
            return not (outbox.closed or self._stopped)

        if go_on():
            for chunk in reply(self.native, request, go_on, prefix_cache=self._options.prefix_cache):
                outbox.put(chunk)

    async def _native(self, call: Callable[[], Result]) -> Result:
        if self._thread is None or self._stopped:
            raise EngineError("llama-cpp is not running; start it first")
        return await asyncio.wrap_future(self._thread.submit(call))

    def import_library(self) -> None:
        """llama-cpp-python. Raises ImportError."""
        import llama_cpp  # noqa: F401

    def _prepared(self) -> GgufModel:
        if self._file is None:
            self._file = prepared_model(self._spec)
        return self._file

    def _load(self, file: GgufModel) -> EngineInfo:
        try:
            import llama_cpp
        except ImportError as error:
            raise StartFailed("llama-cpp needs llama-cpp-python: pip install 'inference-harness[llama-cpp]'") from error
        self._log = NativeLog(self._spec.log_path)
        try:
            self._model = NativeModel(file.path, self._options, context_tokens(self._options, file), file.lora)
            self._model.free_sampler(self._model.sampler(Sampling()))  # a grammar that cannot be read shows here
        except EngineError as error:
            said = self._log.first_error
            self._unload()
            raise StartFailed(f"{error}: {said or 'it does not say why'}") from None
        self._log.loaded()
        require_device(self._spec, self._options, logged_device(self._log.text))
        version = str(llama_cpp.__version__)
        facts = known_facts(self._options, file)
        return EngineInfo(
            name="llama-cpp",
            version=version,
            context_tokens=self._model.context_tokens,
            options=self._options.in_force(self._model.context_tokens),
            libraries={"llama-cpp-python": version, "ggml": llama_cpp.llama_print_system_info().decode().strip()},
            device=logged_device(self._log.text),
            memory=logged_memory(self._log.text),
            slots=1,
            unused_instructions=unused_instructions(llama_cpp.llama_print_system_info().decode()),
            **{**facts, "parameters": self._model.parameters},
        )

    def _unload(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            model.close()
        log, self._log = self._log, None
        if log is not None:
            log.close()
        give_back()


def _scores(model: NativeModel, tokens: Sequence[int], first: int) -> Scores:
    import numpy as np

    check_first(first, len(tokens))
    if len(tokens) > model.context_tokens:
        raise EngineError(f"{len(tokens)} tokens are more than the context of {model.context_tokens}; raise n_ctx")
    logits = model.logits(tokens, first)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
    true = logits[np.arange(len(logits)), np.asarray(tokens[first:])]
    return Scores(first, logits, None, true)
