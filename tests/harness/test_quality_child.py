"""Asking an engine for scores: what hangs or fails becomes one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from engines.base import EngineError
from engines.scores import Scores
from harness.quality_child import Bounded


class Silent:
    """Never answers."""

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Waits for ever."""
        await asyncio.Event().wait()
        raise AssertionError


class Refusing:
    """Has too little context."""

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Refuses."""
        raise EngineError("it does not fit; raise n_ctx")


def test_an_engine_that_never_answers_is_given_up() -> None:
    """After the limit, in a sentence."""
    with pytest.raises(EngineError, match=r"3 tokens were not scored within 0\.01 s"):
        asyncio.run(Bounded(Silent(), limit_s=0.01).score([1, 2, 3], 1))


def test_a_refusal_names_the_key_that_may_help() -> None:
    """What the engine says, and what the scenario can change."""
    with pytest.raises(EngineError, match=r"raise n_ctx; a smaller `quality\.chunk`"):
        asyncio.run(Bounded(Refusing()).score([1, 2, 3], 1))
