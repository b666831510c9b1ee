"""An engine that scores without any library: what follows a token is a table, blurred the more, the lower the level."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np

from engines.base import Chunk, ChunkKind, EngineInfo, EngineSpec, Request, Scores

VOCABULARY = 64
BLUR = {"f16": 0.0, "q8_0": 0.02, "q4_0": 0.4}


class FakeScoring:
    """Options: `top`, tell of so many tokens only; `hides`, of the true token only where it is among them; `first`, put
    this token in front of a text; `broken`, fail when scoring; `blur`, in place of that of the level; `ttft_ms`, of a
    reply.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self._top = int(spec.options.get("top", 0))
        self._hides = bool(spec.options.get("hides"))
        self._first = spec.options.get("first")
        self._level = spec.level or "f16"
        self._broken = bool(spec.options.get("broken"))
        table = np.random.default_rng(1).normal(size=(VOCABULARY, VOCABULARY)) * 2
        blur = np.random.default_rng(2).normal(size=table.shape) * spec.options.get("blur", BLUR[self._level])
        self._ttft_s = float(spec.options.get("ttft_ms", 0.0)) / 1000
        logits = table + blur
        self._logprobs = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """Those of the table of blurs."""
        return tuple(BLUR)

    def prepare(self) -> Sequence[Path]:
        """Nothing to build."""
        return ()

    async def start(self) -> EngineInfo:
        """Ready at once."""
        return EngineInfo("fake", level=self._level)

    async def stop(self) -> None:
        """Nothing to end."""

    async def tokenize(self, text: str) -> list[int]:
        """A token for each sign."""
        return [ord(sign) % VOCABULARY for sign in text]

    async def beginning(self) -> list[int]:
        """As asked for."""
        return [] if self._first is None else [int(self._first)]

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Row by row from the table."""
        if self._broken:
            raise RuntimeError("no scores today")
        before, true = np.asarray(tokens[first - 1 : -1]), np.asarray(tokens[first:])
        whole = self._logprobs[before]
        of_true = whole[np.arange(len(true)), true]
        if not self._top:
            return Scores(first, whole, None, of_true)
        best = np.argsort(-whole, axis=1)[:, : self._top].astype(np.int32)
        if self._hides:
            of_true = np.where((best == true[:, None]).any(axis=1), of_true, np.nan).astype(np.float32)
        return Scores(first, np.take_along_axis(whole, best, axis=1), best, of_true)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Always the same reply."""
        await asyncio.sleep(self._ttft_s)
        for word in ("The", " whale", " is", " white", "."):
            yield Chunk(ChunkKind.CONTENT, word, tokens=1)
        yield Chunk(ChunkKind.FINISH, finish_reason="stop")


class Silent(FakeScoring):
    """The same, but it does not tell."""

    score = None  # type: ignore[assignment]
