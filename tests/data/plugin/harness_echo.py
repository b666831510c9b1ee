"""An engine that says the prompt again, one word after the other, at a fixed pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

from engines.base import Chunk, ChunkKind, EngineInfo, EngineSpec, LevelUnsupported, Request, Usage
from engines.options import read_options


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """What a scenario may write under `options`. pace_ms: from word to word."""

    pace_ms: float = 5.0

    def __post_init__(self) -> None:
        if self.pace_ms < 0:
            raise ValueError("pace_ms must not be negative")


class Echo:
    """See the module. A word is a token."""

    def __init__(self, spec: EngineSpec) -> None:
        if spec.level not in (None, *self.levels()):
            raise LevelUnsupported(f"echo has no level {spec.level!r}; leave `quantization` out")
        self._options = read_options(EchoOptions, spec.options, "echo")

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """The only one."""
        return ("none",)

    def prepare(self) -> Sequence[Path]:
        """There is nothing to fetch."""
        return ()

    async def start(self) -> EngineInfo:
        """There is nothing to load."""
        return EngineInfo("echo", version="0.1.0", level="none", options=asdict(self._options))

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The words of the prompt, again and again until they are as many as were asked for."""
        words = str(request.transcript).split() or ["nothing"]
        for word in islice(cycle(words), request.max_tokens):
            await asyncio.sleep(self._options.pace_ms / 1000)
            yield Chunk(ChunkKind.CONTENT, f"{word} ", tokens=1)
        yield Chunk(ChunkKind.FINISH, finish_reason="length")
        yield Chunk(ChunkKind.USAGE, usage=Usage(prompt_tokens=len(words), output_tokens=request.max_tokens))

    async def stop(self) -> None:
        """There is nothing to release."""
