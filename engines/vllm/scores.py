"""vLLM's log-probabilities as `engines.base.Scores`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engines.base import EngineError, Scores, check_first

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Row = tuple[NDArray[np.int32], NDArray[np.float32]]

# vLLM makes several Python objects of every value, some 130 bytes: about 1 GiB in total.
MOST_VALUES = 1 << 23


def check_length(count: int, first: int, context_tokens: int) -> None:
    """Raise EngineError for a sequence that cannot be scored. vLLM generates one token after it."""
    check_first(first, count)
    if count >= context_tokens:
        raise EngineError(f"{count} tokens to score do not fit into a context of {context_tokens}: raise max_model_len")


def columns(count: int, vocabulary: int) -> int:
    """Return how many of the most likely tokens to request at each of `count` positions: all if memory allows."""
    return vocabulary if count * vocabulary <= MOST_VALUES else max(1, MOST_VALUES // count)


def scores_of(rows: Sequence[Row], true: Sequence[int], first: int, most: int) -> Scores:
    """Return the scores of the `true` tokens, from the token ids and log-probabilities of each row.

    vLLM puts the true token first, then the most likely in descending order, which may include the true one. A row is
    longer by one where they do not; only the most likely become columns, so that all texts have as many.

    Args:
        most: How many of the most likely tokens were requested.
    """
    import numpy as np

    for ids, values in rows:
        if len(ids) == 0 or len(ids) != len(values):
            raise EngineError("vllm returned no log-probabilities for a part of the text")
    true_logprobs = np.array(
        [next(iter(values[ids == token]), np.nan) for (ids, values), token in zip(rows, true, strict=True)], np.float32
    )
    widest = min(most, max(len(ids) for ids, _ in rows))
    tokens = np.zeros((len(rows), widest), np.int32)
    logprobs = np.full((len(rows), widest), np.nan, np.float32)
    for row, (ids, values) in enumerate(rows):
        order = np.argsort(-values, kind="stable")[:widest]
        tokens[row, : len(order)], logprobs[row, : len(order)] = ids[order], values[order]
    return Scores(first, logprobs, tokens, true_logprobs)


def whole_vocabulary(scores: Scores, vocabulary: int) -> Scores:
    """Return scores with a column for every token if every row has them all, else unchanged."""
    import numpy as np

    if scores.tokens is None or scores.tokens.shape[1] != vocabulary or np.isnan(scores.logprobs).any():
        return scores
    logprobs = np.full_like(scores.logprobs, np.nan)
    np.put_along_axis(logprobs, scores.tokens.astype(np.int64), scores.logprobs, axis=1)
    return scores if np.isnan(logprobs).any() else Scores(scores.first, logprobs, None, scores.true_logprobs)


def flat_rows(found: Any, first: int) -> list[Row]:
    """Return the rows from `first` on of vLLM's FlatLogprobs."""
    import numpy as np

    return [
        _row(np.asarray(found.token_ids[start:end], np.int32), np.asarray(found.logprobs[start:end]))
        for start, end in list(zip(found.start_indices, found.end_indices, strict=True))[first:]
    ]


def page_rows(found: Sequence[Mapping[str, Mapping[str, Any]] | None], first: int) -> list[Row]:
    """Return the rows from `first` on of the server's `prompt_logprobs`."""
    import numpy as np

    entries = [entry or {} for entry in found[first:]]
    return [
        _row(np.array([*map(int, entry)], np.int32), np.array([one["logprob"] for one in entry.values()]))
        for entry in entries
    ]


def _row(ids: NDArray[np.int32], values: NDArray[Any]) -> Row:
    """Return each token once: the true one may be among the most likely too."""
    import numpy as np

    unique, index = np.unique(ids, return_index=True)
    return unique, values[index].astype(np.float32)
