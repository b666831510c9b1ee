"""Wrong options of engines are reported with their place before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.scenario.engine_problems import level_problems, without_effect
from harness.scenario.model import Scenario
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


def problems(folder: Path, text: str) -> list[str]:
    """The sentences about a scenario with one load."""
    path = folder / "s.yaml"
    path.write_text(text + "load: [{kind: single_user, requests: 2}]\n")
    with pytest.raises(ScenarioError) as raised:
        load(path)
    return [str(one).removeprefix(f"{folder}/") for one in raised.value.problems]


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("nope", "no engine has a level `nope`; known are bf16, f16, fp16, fp32, q4_0, q4_k_m, q5_k_m, q6_k, q8_0"),
        ("{variant: wide}", "no engine has a variant `wide`; there are no `variants`"),
    ],
)
def test_a_reference_that_no_engine_has_is_refused(tmp_path: Path, reference: str, sentence: str) -> None:
    """Before the run, not after its loads."""
    text = f"engines: [{{engine: simulated}}]\nquality: {{reference: {reference}}}\n"
    assert problems(tmp_path, text) == [f"s.yaml:2:11: quality.reference: {sentence}"]


def test_a_reference_of_another_engine_is_refused(tmp_path: Path) -> None:
    """Where one of the engines can be scored; of a server alone the results say that it cannot."""
    text = "model: tiny\nengines: [{engine: llama-server}]\nquality: {reference: transformers/bf16}\n"
    assert problems(tmp_path, text) == [
        "s.yaml:3:11: quality.reference: the scenario has no engine `transformers`; known are llama-server"
    ]


def test_a_reference_may_be_written_in_upper_case(tmp_path: Path) -> None:
    """As the levels themselves."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "engines: [{engine: simulated}]\nload: [{kind: single_user, requests: 2}]\nquality: {reference: F16}\n"
    )
    quality = load(path).quality
    assert quality is not None
    assert quality.reference is not None
    assert quality.reference.quantization == "f16"


@pytest.mark.parametrize(
    ("engine", "lora", "sentence"),
    [
        ("llama-server", "no.gguf", "there is no adapter `no.gguf`; correct the path, it counts from CWD"),
        ("llama-server", "org/chat", "there is no adapter `org/chat`; correct the path, it counts from CWD"),
        (
            "llama-server",
            "folder",
            "llama-server takes a `.gguf` file, not `folder`; convert it with llama.cpp's convert_lora_to_gguf.py",
        ),
        ("transformers", "./chat", "there is no adapter `./chat`; correct the path, it counts from CWD"),
    ],
)
def test_an_adapter_that_cannot_be_applied_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, lora: str, sentence: str
) -> None:
    """Before anything starts; a hub id is left to the engine that takes one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    text = f"model: {{name: tiny, lora: {lora}}}\nengines: [{{engine: {engine}}}]\n"
    (found,) = problems(tmp_path, text)
    assert found.endswith(f"model.0.lora: {sentence.replace('CWD', str(tmp_path))}")
    (tmp_path / "s.yaml").write_text(
        "model: {name: tiny, lora: org/chat}\nengines: [{engine: transformers}]\n"
        "load: [{kind: single_user, requests: 2}]\n"
    )
    assert load(tmp_path / "s.yaml").model[0].lora == "org/chat"


def test_every_level_that_an_engine_lacks_has_its_place() -> None:
    """`validate` refuses them; the engine's own levels are not among them."""
    blocks = [
        {"engine": "simulated", "quantization": ["q4_0", "q4_00"]},
        {"engine": "http", "url": "http://h", "quantization": ["q8", {"level": "q4", "model": "m"}]},
    ]
    loads = [{"kind": "single_user", "requests": 2}]
    scenario = Scenario.model_validate({"model": "tiny", "engines": blocks, "load": loads})
    assert [(one.key, one.message) for one in level_problems(scenario)] == [
        ("engines.0.quantization.1", "simulated has no level `q4_00`; did you mean `q4_0`?"),
        (
            "engines.1.quantization.0",
            "engine `http` cannot set the quantization level of an external server; remove `quantization`, or give "
            "each level its own `model`",
        ),
    ]


def test_keys_that_mean_nothing_to_an_embedding_are_told(tmp_path: Path) -> None:
    """`harness validate` shows the sentence; a dialect with tokens has none."""
    path = tmp_path / "s.yaml"
    server = "engines: [{engine: http, url: 'http://127.0.0.1:9', dialect: DIALECT}]\n"
    path.write_text(server.replace("DIALECT", "openai-embeddings") + "load: [{kind: single_user, requests: 2}]\n")
    sentence = "openai-embeddings generates no tokens, so `output_tokens`, `sampling` and `stream` have no effect"
    assert [*without_effect(load(path))] == [f"engines.0: {sentence}"]
    path.write_text(server.replace("DIALECT", "openai-chat") + "load: [{kind: single_user, requests: 2}]\n")
    assert not [*without_effect(load(path))]
