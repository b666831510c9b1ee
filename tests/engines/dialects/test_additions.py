"""What a scenario adds to a body, leaves out of it or calls by another name: sent or refused, never lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import Request
from engines.dialects import DIALECTS, get

REQUEST = Request("hi", max_tokens=5, sampling={"temperature": 0.5})
NAMES = st.sampled_from(["model", "max_tokens", "temperature", "stream_options", "options", "num_predict", "a", "b"])
VALUES = st.recursive(
    st.one_of(st.none(), st.integers(), st.text()), lambda inner: st.dictionaries(NAMES, inner), max_leaves=6
)


def sent(dialect: str, added: Mapping[str, Any], renamed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The body of a request."""
    body: dict[str, Any] = json.loads(get(dialect, added, renamed).encode(REQUEST, "m").body)
    return body


@given(st.sampled_from(sorted(DIALECTS)), st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_a_user_writes_is_sent_as_written_or_refused(dialect: str, added: dict[str, Any]) -> None:
    """At any depth; a null is either sent as one or leaves a key of the dialect out."""
    try:
        body = sent(dialect, added)
    except ValueError as error:
        if "`request`" not in str(error):
            raise
        return
    plain = sent(dialect, {})

    def check(wanted: Mapping[str, Any], found: Any, before: Any) -> None:
        for name, value in wanted.items():
            if isinstance(value, Mapping) and value:
                check(value, found[name], before.get(name, {}) if isinstance(before, Mapping) else {})
            elif value is None and name not in found:
                continue
            else:
                assert found[name] == value or (value == {} and isinstance(found[name], dict))

    check(added, body, plain)
    assert body.keys() <= plain.keys() | added.keys()


def test_a_null_leaves_out_a_key_of_the_dialect_and_is_sent_for_any_other() -> None:
    """Also one inside, and one that the request does not have."""
    body = sent("openai-chat", {"temperature": None, "stream_options": None, "top_p": None, "logit_bias": None})
    assert not {"temperature", "stream_options", "top_p"} & body.keys()
    assert body["logit_bias"] is None
    assert "num_predict" not in sent("ollama-chat", {"options": {"num_predict": None}})["options"]


def test_what_a_dialect_sends_by_default_can_be_set() -> None:
    """`stream_options`, in whole or in part."""
    assert sent("openai-chat", {"stream_options": {"include_usage": False}})["stream_options"] == {
        "include_usage": False
    }
    body = sent("openai-chat", {"stream_options": {"continuous_usage_stats": True}})
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_a_key_can_have_another_name() -> None:
    """As servers of reasoning models want it."""
    body = sent("openai-chat", {}, {"max_tokens": "max_completion_tokens"})
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body


@pytest.mark.parametrize(
    ("added", "renamed", "sentence"),
    [
        (
            {"max_tokens": 3},
            {},
            "must not set `max_tokens`, which openai-chat sets from the scenario; leave it out there",
        ),
        ({"stop": {"a": 1}}, {}, "must not set `stop`"),
        ({"messages": None}, {}, "must not leave `messages` out, which openai-chat needs"),
        ({"stream": None}, {}, "must not leave `stream` out"),
        ({"a": {"b": 2**64}}, {}, "`a.b` in `request` cannot be sent as JSON: Integer exceeds 64-bit range"),
        ({"a": {1: 2}}, {}, "`request` has the key 1, which is no text; write it in quotes"),
        ({"a": float("nan")}, {}, "`a` in `request` cannot be sent as JSON: it has no nan"),
        ({}, {"prompt": "text"}, "`rename` names `prompt`, which openai-chat does not send"),
        ({}, {"max_tokens": "model"}, "gives `max_tokens` the name of another key, `model`"),
        ({"n": 2}, {"max_tokens": "n"}, "gives `max_tokens` the name of another key, `n`"),
        ({}, {"max_tokens": "a", "seed": "a"}, "the name of another key, `a`"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_the_reason(
    added: dict[str, Any], renamed: dict[str, str], sentence: str
) -> None:
    """One sentence."""
    with pytest.raises(ValueError, match=r"request|rename") as caught:
        sent("openai-chat", added, renamed)
    assert sentence in str(caught.value)
