"""Wrong options of engines are reported with their place before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.scenario.reader import load

TEXT = """\
model: tiny
engines:
  - engine: llama-server
    options: {n_paralel: 4}
  - engine: simulated
    variants:
      fine: {ttft_ms: 5}
      wrong: {ttft_m: 5}
load: [{kind: single_user, requests: 2}]
"""


def test_unknown_options_are_reported_with_their_places(tmp_path: Path) -> None:
    """The problem names the engine or the variant with the option, and no other variant."""
    path = tmp_path / "s.yaml"
    path.write_text(TEXT)
    with pytest.raises(ScenarioError) as raised:
        load(path)
    first, second = raised.value.problems
    assert str(first).startswith(f"{path}:4:")
    assert "did you mean 'n_parallel'" in str(first)
    assert str(second).startswith(f"{path}:8:")
    assert "did you mean 'ttft_ms'" in str(second)


def test_a_missing_model_of_an_engine_is_reported(tmp_path: Path) -> None:
    """A level that brings its own model is enough."""
    path = tmp_path / "s.yaml"
    body = "load: [{kind: single_user, requests: 2}]\n"
    path.write_text("engines: [{engine: llama-server}]\n" + body)
    with pytest.raises(ScenarioError, match="needs a model"):
        load(path)
    path.write_text("engines: [{engine: llama-server, quantization: [{level: q8_0, model: m.gguf}]}]\n" + body)
    assert load(path).model == ()


def test_a_level_may_be_written_in_upper_case(tmp_path: Path) -> None:
    """The engine's own spelling is stored; a level that no spelling matches stays as written."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "engines: [{engine: simulated, quantization: [Q4_0, q8_0, INT99]}]\nload: [{kind: single_user, requests: 2}]\n"
    )
    assert [one.level for one in load(path).engines[0].quantization] == ["q4_0", "q8_0", "INT99"]
