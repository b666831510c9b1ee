"""Scoring in the child: what hangs or fails becomes one sentence; what is told of a reference and of a cell."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engines
from engines.base import EngineError, EngineSpec, Scores
from harness.analysis.stats import Bound
from harness.quality import greedy
from harness.quality.summary import figures_of
from harness.run.scoring import Bounded, QualityOrder, score_cell, score_reference
from harness.schedule.cells import Cell
from harness.store.manifest import QualityEntry
from tests.scoring_fake import FakeScoring


class Silent:
    """Never answers."""

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Waits for ever."""
        await asyncio.Event().wait()
        raise AssertionError


class Refusing:
    """Has too little context."""

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Refuses."""
        raise EngineError("it does not fit; raise n_ctx")


def test_an_engine_that_never_answers_is_given_up() -> None:
    """After the limit, in a sentence."""
    with pytest.raises(EngineError, match=r"3 tokens were not scored within 0\.01 s"):
        asyncio.run(Bounded(Silent(), limit_s=0.01).score([1, 2, 3], 1))


def test_a_refusal_names_the_key_that_may_help() -> None:
    """What the engine says, and what the scenario can change."""
    with pytest.raises(EngineError, match=r"raise n_ctx; a smaller `quality\.chunk`"):
        asyncio.run(Bounded(Refusing()).score([1, 2, 3], 1))


ORDER = QualityOrder("", True, 640, 16, 8, {"model": None, "engine": "fake", "level": None, "variant": None})


def cell(level: str | None, **options: Any) -> Cell:
    """A cell of the fake engine, without a model: its own tokenizer gives the ids."""
    return Cell(0, "x", None, "fake", level, None, 1, EngineSpec("fake", None, level, options), ())


def scores(
    monkeypatch: pytest.MonkeyPatch, folder: Path, level: str, order: QualityOrder = ORDER, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what is told of the reference, what of a cell at this level), whose positions are in the folder."""
    monkeypatch.setattr(engines, "create", FakeScoring)
    told: list[dict[str, Any]] = []
    order = replace(order, folder=str(folder))
    asyncio.run(score_reference(cell("q4_0", **options), order, told.append))
    asyncio.run(
        score_cell(cell(level, **options), order, FakeScoring(cell(level, **options).spec), folder, told.append)
    )
    reference, scored = (event["quality"] for event in told if event["event"] == "quality")
    return reference, scored


def test_the_reference_is_loaded_at_its_own_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None is the checkpoint's own, whatever level the cell has that it is made from; which that is, is stored."""
    reference, scored = scores(monkeypatch, tmp_path, "q8_0")
    assert (reference["level"], reference["quantized"]) == ("f16", False)
    assert (scored["reference_level"], scored["true_unknown"], scored["k"]) == ("f16", 0, None)
    quantized, _ = scores(monkeypatch, tmp_path, "q8_0", replace(ORDER, level="q4_0"))
    assert (quantized["level"], quantized["quantized"]) == ("q4_0", True)


def test_chunks_begin_as_the_model_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the engine puts in front of a text replaces the first id of each; nothing where it puts none."""
    scores(monkeypatch, tmp_path, "q8_0")
    plain = np.load(tmp_path / "chunks.npy")
    reference, scored = scores(monkeypatch, tmp_path, "q8_0", first=63)
    begun = np.load(tmp_path / "chunks.npy")
    assert (begun[:, 0] == 63).all()
    assert (begun[:, 1:] == plain[:, 1:]).all()
    assert reference["beginning"] == scored["beginning"] == [63]


def test_true_tokens_that_are_not_told_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then perplexity is known from below, and that is below the whole's; no ratio, no agreement with the noise."""
    _, scored = scores(monkeypatch, tmp_path, "q4_0")
    whole = figures_of(tmp_path / "quality.parquet", QualityEntry.model_validate(scored))
    _, scored = scores(monkeypatch, tmp_path, "q4_0", top=8, hides=True)
    found = figures_of(tmp_path / "quality.parquet", QualityEntry.model_validate(scored))
    assert (scored["k"], scored["positions"]) == (8, 320)
    assert 10 < scored["true_unknown"] < 310
    assert "ppl_ratio" not in found
    assert found["ppl"].bound is Bound.LOWER
    assert 2 < found["ppl"].low < whole["ppl"].value
    assert found["kl_mean"].low <= whole["kl_mean"].value
    assert not scored["indistinguishable"]


def test_a_continuation_is_what_greedy_decoding_gives() -> None:
    """Whatever is guessed first: token by token, always the likeliest."""
    engine = FakeScoring(cell("f16").spec)
    slowly = [7, 3]
    for _ in range(12):
        slowly.append(int(asyncio.run(engine.score([*slowly, 0], len(slowly))).logprobs[0].argmax()))
    assert asyncio.run(greedy.continuation(engine, [7, 3], 12)) == slowly[2:]
