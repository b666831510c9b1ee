"""Greedy continuations and the first difference of another model from them.

Until the first difference, greedy decoding and scoring the reference's tokens are equivalent. A single scoring of the
reference's continuation therefore finds where a candidate differs, and by how much it prefers its own token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from engines.base import ScoringEngine
from harness.quality.divergence import Distributions, Ids, likeliest, looked_up
from harness.quality.scores import distributions

PROMPTS = 8
PROMPT_TOKENS = 64
TOKENS = 32
_AT_ONCE = 4


def prompts_of(chunks: Ids) -> list[list[int]]:
    """Return the beginnings of chunks spread evenly over the text."""
    places = np.linspace(0, len(chunks) - 1, min(PROMPTS, len(chunks))).astype(int)
    return [chunks[place, : min(PROMPT_TOKENS, chunks.shape[1] // 2)].tolist() for place in places]


async def continuation(engine: ScoringEngine, prompt: Sequence[int], tokens: int = TOKENS) -> list[int]:
    """Return the tokens of greedy decoding by scoring guesses (Jacobi decoding): each round gives at least one.

    The first guess is the prompt's commonest token: unlikely tokens may cost an engine a second look-up.
    """
    found: list[int] = []
    guess = [Counter(prompt).most_common(1)[0][0]] * _AT_ONCE
    while len(found) < tokens:
        scores = distributions(await engine.score([*prompt, *found, *guess], len(prompt) + len(found)))
        chosen = likeliest(scores).tolist()
        right = next((i for i, (mine, its) in enumerate(zip(guess, chosen, strict=True)) if mine != its), len(guess))
        found += chosen[: right + 1]
        guess = (chosen[right + 1 :] + guess)[:_AT_ONCE]
    return found[:tokens]


@dataclass(frozen=True, slots=True)
class Difference:
    """First difference of a candidate from the reference's continuation."""

    at: int | None = None  # number of the token, from 1; None if there is no difference
    gap: float | None = None  # nats by which it prefers its own token there; None if unknown


def first_difference(scores: Distributions, continuation: Sequence[int]) -> Difference:
    """Return the first difference by the candidate's scores of the continuation."""
    its, wanted = likeliest(scores), np.asarray(continuation, dtype=np.int32)
    different = np.flatnonzero(its != wanted)
    if not len(different):
        return Difference()
    at = int(different[0])
    both = looked_up(scores, np.stack([its, wanted], axis=1), wanted)[at]
    gap = float(both[0] - both[1])
    return Difference(at + 1, gap if np.isfinite(gap) else None)


def summary(found: Sequence[Difference]) -> Mapping[str, Any]:
    """Return each difference, the share of continuations without one, and medians of position and gap; JSON-able."""
    where = [one.at for one in found if one.at is not None]
    gaps = [one.gap for one in found if one.gap is not None]
    return {
        "prompts": len(found),
        "tokens": TOKENS,
        "differences": [asdict(one) for one in found],
        "same_share": 1 - len(where) / len(found) if found else None,
        "median_at": median(where) if where else None,
        "median_gap": median(gaps) if gaps else None,
    }
