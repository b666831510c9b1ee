"""Teacher-forced log-probabilities: what an engine that can be asked about quality gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from engines.base import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scores:
    """The model's distributions over one sequence of tokens, each given all true tokens before it.

    first: the first scored position; row i is about the token at position first + i.
    logprobs: natural logarithms, [rows, vocabulary], column v about token v; or, where the engine gives only the
        likeliest, [rows, k] in falling order (NaN where it gave fewer).
    tokens: [rows, k], the tokens that the columns are about; None where `logprobs` is the whole vocabulary.
    true_logprobs: [rows], of the tokens that really stand there; NaN where the engine does not tell.
    """

    first: int
    logprobs: NDArray[np.float32]
    tokens: NDArray[np.int32] | None
    true_logprobs: NDArray[np.float32]


@runtime_checkable
class ScoringEngine(Protocol):
    """An engine, in process or served, that can say how likely it finds a text."""

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """The distributions of tokens[first:], first >= 1; nothing is sampled. For a started engine.

        Raises EngineError if the sequence is longer than the context, or if the engine does not tell.
        """
        ...


PROBE = "a"


def put_before(served: Sequence[int], plain: Sequence[int]) -> list[int]:
    """The ids in front of a text's own. served: with what the engine adds to a text that it is sent.

    Raises EngineError where the text's own are not among them.
    """
    for start in range(len(served) - len(plain) + 1):
        if list(served[start : start + len(plain)]) == list(plain):
            return list(served[:start])
    raise EngineError(f"{PROBE!r} becomes other tokens where special ones are added: {list(served)}, not {list(plain)}")


def check_first(first: int, count: int) -> None:
    """Raises EngineError unless `first` is a position that has tokens before it, and is one of `count`."""
    if not 1 <= first < count:
        raise EngineError(f"scores start at a position from 1 to {count - 1}, not {first}")


__all__ = ["PROBE", "Scores", "ScoringEngine", "check_first", "put_before"]
