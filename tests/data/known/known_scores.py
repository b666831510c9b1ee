"""An engine, found as a plug-in, that finds each next token as likely as a table says: powers of two, four tokens.

The table is for the token before: `a`, or another one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np

from engines.base import Chunk, ChunkKind, EngineInfo, EngineSpec, Request, Scores

SIGNS = "abcd"
AFTER_A = {"f16": (1 / 2, 1 / 4, 1 / 8, 1 / 8), "q8_0": (1 / 2, 1 / 8, 1 / 4, 1 / 8)}
AFTER_ANOTHER = {"f16": (1 / 2, 1 / 4, 1 / 8, 1 / 8), "q8_0": (1 / 4, 1 / 2, 1 / 8, 1 / 8)}


class KnownScores:
    """Option `top`: tell of so many of the likeliest tokens only."""

    def __init__(self, spec: EngineSpec) -> None:
        self._top = int(spec.options.get("top", 0))
        level = spec.level or "f16"
        rows = [AFTER_A[level], *(AFTER_ANOTHER[level] for _ in SIGNS[1:])]
        self._logprobs = np.log(np.asarray(rows)).astype(np.float32)

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """The reference and the level beside it."""
        return tuple(AFTER_A)

    def prepare(self) -> Sequence[Path]:
        """Nothing to build."""
        return ()

    async def start(self) -> EngineInfo:
        """Ready at once."""
        return EngineInfo("known")

    async def stop(self) -> None:
        """Nothing to end."""

    async def tokenize(self, text: str) -> list[int]:
        """A token for each sign."""
        return [SIGNS.index(sign) for sign in text]

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Row by row from the table."""
        before, true = np.asarray(tokens[first - 1 : -1]), np.asarray(tokens[first:])
        whole = self._logprobs[before]
        of_true = whole[np.arange(len(true)), true]
        if not self._top:
            return Scores(first, whole, None, of_true)
        best = np.argsort(-whole, axis=1)[:, : self._top].astype(np.int32)
        return Scores(first, np.take_along_axis(whole, best, axis=1), best, of_true)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Always the same reply."""
        yield Chunk(ChunkKind.CONTENT, "word", tokens=1)
        yield Chunk(ChunkKind.FINISH, finish_reason="stop")
