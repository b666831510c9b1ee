"""Text is scored as the model is served: what an engine puts in front of a text stands at each chunk's beginning."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest

import engines
from engines.base import EngineSpec, ModelReference
from harness.quality.scores import text_of
from harness.run.scoring import QualityOrder, score_reference
from harness.schedule.cells import Cell
from tests.models_made_small import tiny_with_beginning

TOKENS, CHUNK = 1024, 128
EXACT = {"n_ctx": 256, "cache_type_k": "f32", "cache_type_v": "f32", "flash_attn": False}
ENGINES = [
    pytest.param("llama-server", marks=pytest.mark.slow),
    pytest.param("llama-cpp", marks=pytest.mark.engines),
    pytest.param("transformers", marks=pytest.mark.engines),
]
LIBRARIES = {"llama-cpp": "llama_cpp", "transformers": "transformers"}

pytestmark = [
    # torch and transformers announce at their import what they will drop one day.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_reports_the_tokens_in_front_of_a_text(engine: str, tmp_path: Path) -> None:
    """The token of beginning where the tokenizer says so; nothing for `tiny`. vLLM's are asked in its own tests."""
    if engine in LIBRARIES:
        needs.library(LIBRARIES[engine])

    async def beginning(model: ModelReference) -> list[int]:
        started: Any = engines.create(EngineSpec(engine, model, log_path=tmp_path / "engine.log"))
        await asyncio.to_thread(started.prepare)
        try:
            await started.start()
            found: list[int] = await started.beginning()
            return found
        finally:
            await started.stop()

    assert asyncio.run(beginning(tiny_with_beginning(tmp_path / "model"))) == [256]
    assert asyncio.run(beginning(ModelReference("tiny"))) == []


@pytest.mark.engines
def test_perplexity_is_that_of_another_implementation(tmp_path: Path) -> None:
    """llama.cpp's, scored by us, against transformers by hand, each chunk after the token of beginning; without that it
    is another.
    """
    needs.library("llama_cpp")
    needs.library("transformers")
    model = tiny_with_beginning(tmp_path / "model")
    ours = scored(model, tmp_path / "scores")
    assert ours == pytest.approx(by_hand(Path(model.name), begin=True), rel=2e-5)
    assert abs(ours / by_hand(Path(model.name), begin=False) - 1) > 1e-3


def scored(model: ModelReference, folder: Path) -> float:
    """The perplexity of a reference as `harness quality` scores it."""
    folder.mkdir()
    spec = EngineSpec("llama-cpp", model, "f32", EXACT, log_path=folder / "engine.log")
    cell = Cell(0, "x", model.name, "llama-cpp", "f32", None, 1, spec, ())
    order = QualityOrder(str(folder), True, TOKENS, CHUNK, CHUNK // 2, {}, None, "f32")
    asyncio.run(score_reference(cell, order, [].append))
    facts = json.loads((folder / "facts.json").read_text())
    assert (facts["beginning"], facts["level"], facts["quantized"]) == ([256], "f32", False)
    return math.exp(-np.fromfile(folder / "true.f32", np.float32).astype(np.float64).mean())


def by_hand(folder: Path, *, begin: bool) -> float:
    """Compute the second half of each chunk with transformers' own tokenizer and model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor(tokenizer(text_of(None)[1], add_special_tokens=False).input_ids[:TOKENS]).reshape(-1, CHUNK)
    if begin:
        ids[:, 0] = tokenizer("", add_special_tokens=True).input_ids[0]
    with torch.inference_mode():
        logprobs = torch.log_softmax(network(ids).logits.double(), dim=-1)
    true = logprobs[:, CHUNK // 2 - 1 : -1].gather(2, ids[:, CHUNK // 2 :, None])
    return math.exp(-float(true.mean()))
