"""Short ways to run the engine `transformers` in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engines.base import Chunk, EngineInfo, EngineSpec, ModelReference, Request, collect
from engines.huggingface.engine import Transformers

TEXT = "It is a truth universally"
MARKS = [
    pytest.mark.engines,
    # torch and its companions announce deprecations at their import.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    # bitsandbytes warns that its kernels compute in another type than they were given.
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
]


def spec_of(level: str | None = "fp32", model: str = "tiny", lora: str | None = None, **options: Any) -> EngineSpec:
    """Return the specification of an engine."""
    return EngineSpec("transformers", ModelReference(model, lora=lora), level, {"n_threads": 1, **options})


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
