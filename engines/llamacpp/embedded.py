"""llama.cpp in this process, by llama-cpp-python: one request at a time, the others wait in order of arrival."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engines.base import (
    Chunk,
    EngineError,
    EngineInfo,
    EngineSpec,
    Request,
    Scores,
    StartFailed,
    beginning_of,
    check_first,
)
from engines.llamacpp.base import GgufEngine, unused_instructions
from engines.llamacpp.native import NativeLog, NativeModel, Sampling
from engines.llamacpp.options import LlamaCppOptions
from engines.llamacpp.reply import reply
from engines.outbox import Outbox
from engines.process.memory import free_memory

Result = TypeVar("Result")


class LlamaCpp(GgufEngine[LlamaCppOptions]):
    """Engine `llama-cpp`; implements `engines.base.InProcessEngine`. Options: `LlamaCppOptions`."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec, LlamaCppOptions)
        self._model: NativeModel | None = None
        self._log: NativeLog | None = None
        # All native calls happen in this thread, in order.
        self._thread: ThreadPoolExecutor | None = None
        self._stopped = False

    async def start(self) -> EngineInfo:
        """Load the model. Raises StartFailed if llama.cpp cannot load it, EngineError for a second start."""
        if self._thread is not None:
            raise EngineError("llama-cpp was started already; make a new engine for another start")
        self._thread = ThreadPoolExecutor(1, "llama-cpp")
        await asyncio.to_thread(self.prepare)
        return await self._native(self._load)

    @property
    def native(self) -> NativeModel:
        """Loaded model, for direct use of llama.cpp by one thread at a time.

        Raises EngineError unless the engine runs.
        """
        if self._model is None:
            raise EngineError("llama-cpp is not running; start it first")
        return self._model

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return await self._native(lambda: self.native.tokenize(text, special=special))

    async def beginning(self) -> list[int]:
        return await beginning_of(self.tokenize)

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Return the distributions of tokens[first:] over the whole vocabulary.

        Raises EngineError if the sequence exceeds the context.
        """
        return await self._native(lambda: _scores(self.native, tokens, first))

    async def stop(self) -> None:
        """End all generation, free model and context, end the thread."""
        stopped_before, self._stopped = self._stopped, True
        if self._thread is not None and not stopped_before:
            await asyncio.wrap_future(self._thread.submit(self._unload))
            await asyncio.to_thread(self._thread.shutdown)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Yield the reply, a chunk for each token. Closing the iterator ends the generation before the next token."""
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
        import llama_cpp  # noqa: F401

    def _load(self) -> EngineInfo:
        try:
            import llama_cpp
        except ImportError as error:
            raise StartFailed("llama-cpp needs llama-cpp-python: pip install 'inference-harness[llama-cpp]'") from error
        self._log = NativeLog(self._spec.log_path)
        try:
            self._model = NativeModel(self._file.path, self._options, self._context_tokens, self._file.lora)
            self._model.free_sampler(self._model.sampler(Sampling()))  # an invalid grammar fails here
        except EngineError as error:
            reason = self._log.first_error
            self._unload()
            raise StartFailed(f"{error}: {reason or 'no reason in its log'}") from None
        self._log.loaded()
        version, system = str(llama_cpp.__version__), llama_cpp.llama_print_system_info().decode()
        return self._info(
            self._model.context_tokens,
            self._log.text,
            version=version,
            libraries={"llama-cpp-python": version, "ggml": system.strip()},
            unused_instructions=unused_instructions(system),
            parameters=self._model.parameters,
        )

    def _unload(self) -> None:
        for part in (self._model, self._log):
            if part is not None:
                part.close()
        self._model = self._log = None
        free_memory()


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
