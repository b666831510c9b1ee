"""Scores asked for position by position, of a server that is made up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from engines.base import EngineError
from engines.llamacpp.server_scores import FULL_VOCABULARY_LIMIT, LEAST, TOP_TOKENS, score_by_server
from harness.quality.divergence import Distributions, compare
from harness.quality.scores import distributions


class _Server:
    """Knows `vocabulary` tokens; after n tokens of prompt token n is the likeliest, the others follow in a circle."""

    def __init__(self, vocabulary: int, told: int | None = None) -> None:
        self.vocabulary, self.told = vocabulary, told
        self.asked: list[Mapping[str, Any]] = []

    def ask(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        if path == "/v1/models":
            return {"data": [{"meta": {"n_vocab": self.vocabulary}}]}
        assert body is not None
        self.asked.append(body)
        first, count = len(body["prompt"]), self.told or body["n_probs"]
        top = [{"id": (first + rank) % self.vocabulary, "logprob": -rank / 50} for rank in range(count)]
        return {"completion_probabilities": [{"top_logprobs": top}]}


def test_a_small_vocabulary_is_scored_whole() -> None:
    """Columns are tokens; each request holds what is before its position, and asks for one token."""
    server = _Server(10)
    scores = score_by_server(server.ask, [5, 6, 7, 8], 2)
    assert scores.tokens is None
    assert scores.logprobs.shape == (2, 10)
    assert scores.logprobs[0].argmax() == 2
    np.testing.assert_allclose(scores.true_logprobs, [-0.1, -0.1])
    assert [body["prompt"] for body in server.asked] == [[5, 6], [5, 6, 7]]
    assert {body["n_predict"] for body in server.asked} == {1}


def test_a_large_vocabulary_is_scored_by_its_most_likely() -> None:
    """In falling order, with the tokens beside them; a true token that is not among them is unknown where the server
    tells no more.
    """
    server = _Server(FULL_VOCABULARY_LIMIT + 1, told=TOP_TOKENS - 1)
    scores = score_by_server(server.ask, [0, 1, 4000], 1)
    assert scores.tokens is not None
    assert scores.tokens.shape == scores.logprobs.shape == (2, TOP_TOKENS)
    assert (scores.tokens[0, 0], scores.tokens[0, -1]) == (1, -1)
    assert math.isnan(scores.logprobs[0, -1])
    np.testing.assert_array_equal(scores.true_logprobs, [0, math.nan])


def test_all_tokens_are_requested_if_the_true_one_is_missing() -> None:
    """Leaving these positions out would lower the perplexity."""
    vocabulary = FULL_VOCABULARY_LIMIT + 1
    server = _Server(vocabulary)
    tokens = [0, 1, 4000, 3, 3000]
    scores = score_by_server(server.ask, tokens, 1)
    np.testing.assert_allclose(scores.true_logprobs, [0, -79.96, 0, -59.92])
    assert [(len(body["prompt"]), body["n_probs"]) for body in server.asked] == [
        (1, TOP_TOKENS),
        (2, TOP_TOKENS),
        (2, vocabulary),
        (3, TOP_TOKENS),
        (4, TOP_TOKENS),
        (4, vocabulary),
    ]


def test_a_probability_of_zero_is_the_zero_of_float32() -> None:
    """The server writes the least float for it; the reference's 5e-41 there is nothing, and no divergence of 0.0017."""
    least = float(np.finfo(np.float32).min)

    def ask(path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        if path == "/v1/models":
            return {"data": [{"meta": {"n_vocab": 2}}]}
        top = [{"id": 0, "logprob": 0.0}, {"id": 1, "logprob": least}]
        return {"completion_probabilities": [{"top_logprobs": top}]}

    found = distributions(score_by_server(ask, [0, 0, 1], 1))
    np.testing.assert_array_equal(found.logprobs, [[0, LEAST], [0, LEAST]])
    true = np.array([0, 1], dtype=np.int32)
    p = Distributions(np.array([[0.0, -92.7]] * 2, dtype=np.float32), None, np.zeros(2, dtype=np.float32))
    assert compare(p, found, true).kl.max() < 1e-37
    assert np.log(np.float64(np.float32(1.4e-45)) / 2) == pytest.approx(LEAST, abs=0.05)


def test_a_likeliest_token_that_ends_amid_a_character_hides_no_probabilities() -> None:
    """The server holds such a token back with all that it knows; drawing another one changes no probability."""
    asked: list[Mapping[str, Any]] = []

    def ask(path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        if path == "/v1/models":
            return {"data": [{"meta": {"n_vocab": 2}}]}
        assert body is not None
        asked.append(body)
        top = [{"id": 0, "logprob": -0.5}, {"id": 1, "logprob": -0.93}]
        return {"completion_probabilities": [{"top_logprobs": top}]} if "logit_bias" in body else {"content": ""}

    found = score_by_server(ask, [0, 1], 1)
    np.testing.assert_allclose(found.logprobs, [[-0.5, -0.93]], rtol=1e-6)
    assert [body["prompt"] for body in asked] == [[0], [0]]


def test_a_server_without_probabilities_is_an_error() -> None:
    """The sentence includes the server's reason."""

    def ask(path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        known = {"data": [{"meta": {"n_vocab": 5}}]}
        return known if path == "/v1/models" else {"error": {"message": "no probabilities today"}}

    with pytest.raises(EngineError, match="returns no probabilities: no probabilities today"):
        score_by_server(ask, [1, 2], 1)
    with pytest.raises(EngineError, match="the size of the model's vocabulary"):
        score_by_server(lambda path, body: {}, [1, 2], 1)
    with pytest.raises(EngineError, match="from 1 to 1, not 0"):
        score_by_server(ask, [1, 2], 0)
