"""The command that a run keeps: what of it is a secret, and is left out."""

from __future__ import annotations

import sys

import pytest

from harness.cli.asked import command_line, without_secret


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("engines.0.env.HF_TOKEN=hf_abc", "engines.0.env.HF_TOKEN=***"),
        ("engines.0.env={A: 1, HF_TOKEN: hf_abc}", "engines.0.env=***"),
        ('engines.0.env={"HF_TOKEN":"hf_abc"}', "engines.0.env=***"),
        ("engines.0.env=HF_TOKEN: hf_abc", "engines.0.env=***"),
        ("engines=[{engine: http, api_key_env: MY_KEY, env: {HF_TOKEN: hf_abc}}]", "engines=***"),
    ],
)
def test_values_of_secrets_are_left_out(text: str, shown: str) -> None:
    """Those of keys, and of a mapping in the value."""
    assert without_secret(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "engines.0.api_key_env=OPENAI_KEY",
        "engines.0.headers_env={API_KEY: MY_KEY}",
        "engines.0.headers_env.API_KEY=MY_KEY",
        "engines=[{engine: http, api_key_env: MY_KEY}]",
        "engines.0.url=http://key:8000",
        "engines.0.env={A: 1}",
        "HF_TOKEN",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Among it the names of variables that have one."""
    assert without_secret(text) == text


def test_the_command_of_a_run_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the option is written."""
    given = ["--set", "engines.0.env={HF_TOKEN: hf_abc}", "--set=engines.0.env.HF_TOKEN=hf_abc", "--set=seed=4"]
    monkeypatch.setattr(sys, "argv", ["harness", "run", "s.yaml", *given])
    assert command_line() == (
        "harness run s.yaml --set 'engines.0.env=***' '--set=engines.0.env.HF_TOKEN=***' --set=seed=4"
    )
