"""An engine, found as a plug-in, that knows repeated prompts: 100 ms for a new one, then a token every 10 ms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from engines.base import Chunk, ChunkKind, EngineInfo, EngineSpec, Request


class Repeating:
    """Option `cache`: "none", "prefix" or "result"."""

    def __init__(self, spec: EngineSpec) -> None:
        self._cache = str(spec.options["cache"])
        self._seen: set[str] = set()

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """The only one."""
        return ("none",)

    def prepare(self) -> Sequence[Path]:
        """Nothing to build."""
        return ()

    async def start(self) -> EngineInfo:
        """Ready at once."""
        return EngineInfo("repeating")

    async def stop(self) -> None:
        """Nothing to end."""

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """As many tokens as are asked for."""
        known = str(request.prompt) in self._seen
        self._seen.add(str(request.prompt))
        if not (known and self._cache != "none"):
            await asyncio.sleep(0.1)
        for place in range(request.max_tokens):
            if place and not (known and self._cache == "result"):
                await asyncio.sleep(0.01)
            yield Chunk(ChunkKind.CONTENT, " word", tokens=1)
        yield Chunk(ChunkKind.FINISH, finish_reason="length")
