"""Tokens are drawn alike in every engine that we start: what a request does not say is 0 or off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines import dialects
from engines.base import Endpoint, Request
from engines.huggingface.loading import put_on
from engines.huggingface.options import sampling_arguments
from engines.llamacpp.native import Sampling
from engines.llamacpp.options import PLAIN_SAMPLING
from engines.llamacpp.reply import sampling_of


def body_of(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    """Return the body of a request."""
    found: dict[str, Any] = json.loads(dialects.of(endpoint).encode(request, "m").body)
    return found


@pytest.mark.parametrize("dialect", ["openai-completions", "openai-chat"])
def test_our_servers_get_the_settings_that_a_request_leaves_out(dialect: str) -> None:
    """Settings of the request are kept."""
    endpoint = Endpoint("http://x", dialect, unsaid=PLAIN_SAMPLING)
    plain = body_of(endpoint, Request("hi", 3))
    assert {name: plain[name] for name in PLAIN_SAMPLING} == PLAIN_SAMPLING
    asked = body_of(endpoint, Request("hi", 3, sampling={"temperature": 0.7, "top_k": 5}))
    assert (asked["temperature"], asked["top_k"], asked["top_p"], asked["repeat_penalty"]) == (0.7, 5, 1.0, 1.0)
    assert "repeat_penalty" not in body_of(Endpoint("http://x", dialect), Request("hi", 3))


def test_an_exact_length_uses_the_fields_of_the_server() -> None:
    """The endpoint's fields replace the dialect's, for exact lengths only."""
    endpoint = Endpoint("http://x", "openai-completions", exact={"logit_bias": {"7": -1e9}})
    exact, free = (body_of(endpoint, Request("hi", 3, exact=exact)) for exact in (True, False))
    assert exact["logit_bias"] == {"7": -1e9}
    assert not {"ignore_eos", "min_tokens"} & exact.keys()
    assert "logit_bias" not in free
    plain = body_of(Endpoint("http://x", "openai-completions"), Request("hi", 3, exact=True))
    assert (plain["ignore_eos"], plain["min_tokens"]) == (True, 3)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0}, {"top_p": 0.9}, {"temperature": None, "seed": 1}])
def test_without_a_temperature_transformers_is_greedy(sampling: dict[str, Any]) -> None:
    """The model's generation_config.json does not apply."""
    assert sampling_arguments(sampling) == {"do_sample": False, "repetition_penalty": 1.0}


class Adaptable:
    """A model of the library, which is in training after an adapter was put on it."""

    def __init__(self) -> None:
        self.training = False
        self.adapters: list[str] = []

    def load_adapter(self, folder: str) -> None:
        """Its layers are new."""
        self.adapters.append(folder)
        self.training = True

    def eval(self) -> None:
        """No dropout from here on."""
        self.training = False


def test_an_adapter_of_transformers_has_no_dropout() -> None:
    """Else a greedy reply, and each score, is drawn."""
    model = Adaptable()
    put_on(model, Path("adapter"))
    assert (model.adapters, model.training) == (["adapter"], False)


def test_with_a_temperature_transformers_draws_from_all_tokens() -> None:
    """The library's own `top_k` would be 50."""
    found = sampling_arguments({"temperature": 0.7})
    assert (found["do_sample"], found["temperature"], found["top_k"], found["top_p"]) == (True, 0.7, 0, 1.0)
    found = sampling_arguments({"temperature": 0.7, "top_k": 4, "top_p": 0.5})
    assert (found["top_k"], found["top_p"]) == (4, 0.5)


def test_llama_cpp_in_process_draws_the_same() -> None:
    """Greedy where nothing is said; no cut beside a temperature."""
    assert sampling_of(Request("hi", 3)) == Sampling(temperature=0, top_k=0, top_p=1.0)
    assert sampling_of(Request("hi", 3, sampling={"temperature": 0.7})) == Sampling(temperature=0.7, top_k=0, top_p=1.0)
