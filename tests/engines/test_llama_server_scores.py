"""Scores asked for position by position, of a server that is made up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from engines.base import EngineError
from engines.llama_server_scores import FULL_VOCABULARY_LIMIT, TOP_TOKENS, score_by_server


class _Server:
    """Knows `vocabulary` tokens; after n tokens of prompt token n is the likeliest, the others follow in a circle."""

    def __init__(self, vocabulary: int, told: int | None = None) -> None:
        self.vocabulary, self.told = vocabulary, told
        self.asked: list[Mapping[str, Any]] = []

    def ask(self, url: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        if path == "/v1/models":
            return {"data": [{"meta": {"n_vocab": self.vocabulary}}]}
        assert body is not None
        self.asked.append(body)
        first, count = len(body["prompt"]), self.told or body["n_probs"]
        top = [{"id": (first + rank) % self.vocabulary, "logprob": -float(rank)} for rank in range(count)]
        return {"completion_probabilities": [{"top_logprobs": top}]}


def test_a_small_vocabulary_is_told_whole() -> None:
    """Columns are tokens; each request holds what is before its position, and asks for one token."""
    server = _Server(10)
    scores = score_by_server(server.ask, "", [5, 6, 7, 8], 2)
    assert scores.tokens is None
    assert scores.logprobs.shape == (2, 10)
    assert scores.logprobs[0].argmax() == 2
    np.testing.assert_array_equal(scores.true_logprobs, [-5, -5])
    assert [body["prompt"] for body in server.asked] == [[5, 6], [5, 6, 7]]
    assert {body["n_predict"] for body in server.asked} == {1}


def test_a_large_vocabulary_is_told_by_its_likeliest() -> None:
    """In falling order, with the tokens beside them; a true token that is not among them is unknown."""
    server = _Server(FULL_VOCABULARY_LIMIT + 1, told=TOP_TOKENS - 1)
    scores = score_by_server(server.ask, "", [0, 1, 4000], 1)
    assert scores.tokens is not None
    assert scores.tokens.shape == scores.logprobs.shape == (2, TOP_TOKENS)
    assert (scores.tokens[0, 0], scores.tokens[0, -1]) == (1, -1)
    assert math.isnan(scores.logprobs[0, -1])
    np.testing.assert_array_equal(scores.true_logprobs, [0, math.nan])


def test_a_server_that_does_not_tell_is_an_error() -> None:
    """Its own reason is in the sentence."""

    def ask(url: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        known = {"data": [{"meta": {"n_vocab": 5}}]}
        return known if path == "/v1/models" else {"error": {"message": "no probabilities today"}}

    with pytest.raises(EngineError, match="tells no probabilities: no probabilities today"):
        score_by_server(ask, "", [1, 2], 1)
    with pytest.raises(EngineError, match="the size of the model's vocabulary"):
        score_by_server(lambda url, path, body: {}, "", [1, 2], 1)
    with pytest.raises(EngineError, match="from 1 to 1, not 0"):
        score_by_server(ask, "", [1, 2], 0)
