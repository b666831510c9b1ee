"""Teacher-forced log-probabilities from llama.cpp's server, which returns those of the next token only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engines.base import EngineError, Scores, check_first

FULL_VOCABULARY_LIMIT = 4096
"""Largest vocabulary that is requested whole: an answer is JSON of about 60 bytes a token."""
TOP_TOKENS = 512
LEAST = -104.0
"""Log-probability of a zero in float32, for which the server writes the lowest float. The smallest positive float is
1.4e-45, and values below half of it are zero; ln(0.7e-45) is -103.97."""

_WHOLE_CHARACTER = {"logit_bias": [["a", 1e9]]}
"""Makes the server draw this token. The probabilities are those before any bias."""

Fetch = Callable[[str, Mapping[str, Any] | None], dict[str, Any]]


def score_by_server(fetch: Fetch, tokens: Sequence[int], first: int) -> Scores:
    """Return the distributions of tokens[first:]. Each position is one request whose prompt is all before it.

    All requests go to one slot, whose cache holds the beginning: each computes one token. The probabilities are those
    before sampling: no temperature, no truncation. A vocabulary above FULL_VOCABULARY_LIMIT returns the TOP_TOKENS most
    likely. If the true token is not among them, all are requested, so that its probability is always known.

    Args:
        fetch: (path, body) -> answer.

    Raises EngineError if the server returns no probabilities.
    """
    import numpy as np

    check_first(first, len(tokens))
    vocabulary = _vocabulary(fetch)
    full = vocabulary <= FULL_VOCABULARY_LIMIT
    wanted = vocabulary if full else min(TOP_TOKENS, vocabulary)
    rows = len(tokens) - first
    logprobs = np.full((rows, wanted), np.nan, dtype=np.float32)
    ids = None if full else np.full((rows, wanted), -1, dtype=np.int32)
    true = np.full(rows, np.nan, dtype=np.float32)
    for row, true_token in enumerate(tokens[first:]):
        before = tokens[: first + row]
        found = _next(fetch, before, wanted)
        if ids is None:
            logprobs[row, list(found)] = list(found.values())
        else:
            ids[row, : len(found)] = list(found)
            logprobs[row, : len(found)] = list(found.values())
            if true_token not in found:
                found = _next(fetch, before, vocabulary)
        true[row] = found.get(true_token, math.nan)
    return Scores(first, logprobs, ids, true)


def _next(fetch: Fetch, prompt: Sequence[int], wanted: int) -> dict[int, float]:
    """Return the log-probabilities of the most likely next tokens by token, in descending order."""
    body = {
        "prompt": list(prompt),
        "n_predict": 1,
        "n_probs": wanted,
        "post_sampling_probs": False,
        "temperature": 0,
        "cache_prompt": True,
        "id_slot": 0,
        "ignore_eos": False,
        "grammar": "",
    }
    answer = fetch("/completion", body)
    if isinstance(answer, Mapping) and not (answer.get("completion_probabilities") or answer.get("error")):
        # The likeliest token ends amid a character: the server holds it back, and its probabilities too.
        answer = fetch("/completion", {**body, **_WHOLE_CHARACTER})
    try:
        top = answer["completion_probabilities"][0]["top_logprobs"]
        return {int(one["id"]): max(float(one["logprob"]), LEAST) for one in top}
    except (KeyError, IndexError, TypeError) as error:
        failure = answer.get("error", {}) if isinstance(answer, Mapping) else {}
        reason = failure.get("message") if isinstance(failure, Mapping) else None
        raise EngineError(f"llama-server returns no probabilities: {reason or 'its answer has none'}") from error


def _vocabulary(fetch: Fetch) -> int:
    try:
        found: int = fetch("/v1/models", None)["data"][0]["meta"]["n_vocab"]
    except (KeyError, IndexError, TypeError) as error:
        raise EngineError("llama-server does not report the size of the model's vocabulary") from error
    return found
