"""Scoring in a child: the reference, then cells against it, with an engine whose distributions are known."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scoring_fake import FakeScoring

import engines
from engines.base import EngineSpec
from engines.memory import MemoryEstimate
from engines.scores import Scores
from harness.cells import Cell
from harness.errors import CellSkipped, StorageFailed, UsageError
from harness.quality_child import QualityOrder, score_cell, score_reference
from harness.quality_scores import fitting_chunks
from harness.quality_summary import figures_of
from harness.quality_text import chunks_of, text_of

CELL = Cell(0, "000-fake", None, "fake", "f16", None, 1, EngineSpec("fake", level="f16"), ())


@pytest.fixture(autouse=True)
def _with_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.BUILT_IN, "fake", "scoring_fake:FakeScoring")
    monkeypatch.setitem(engines.BUILT_IN, "silent", "scoring_fake:Silent")


@pytest.fixture
def order(tmp_path: Path) -> QualityOrder:
    """To make a reference of 8 chunks of 64 tokens."""
    folder = tmp_path / "reference"
    folder.mkdir()
    return QualityOrder(str(folder), True, 512, 64, 32, {"engine": "fake", "level": "f16"})


def at_level(level: str, **options: Any) -> Cell:
    """A cell of the fake engine."""
    return replace(CELL, level=level, spec=EngineSpec("fake", level=level, options=options))


def made(order: QualityOrder, cell: Cell = CELL) -> dict[str, Any]:
    """The reference, scored; what was told of it."""
    told: list[dict[str, Any]] = []
    asyncio.run(score_reference(cell, order, told.append))
    found: dict[str, Any] = told[-1]["quality"]
    return found


def scored(order: QualityOrder, cell: Cell, folder: Path) -> dict[str, Any]:
    """A cell, scored against it; what was told."""
    told: list[dict[str, Any]] = []
    folder.mkdir()
    asyncio.run(score_cell(cell, replace(order, making=False), engines.create(cell.spec), folder, told.append))
    assert told[0] == {"event": "quality_begun"}
    found: dict[str, Any] = told[-1]["quality"]
    return found


def test_the_reference_is_told_with_its_noise(order: QualityOrder) -> None:
    """How much of which text, and how far it is from itself; all of it can be written down as JSON."""
    found = made(order)
    assert (found["chunks"], found["positions"], found["columns"], found["k"]) == (8, 256, 64, None)
    assert found["noise_floor"]["kl_mean"] == 0
    assert found["noise_floor"]["positions"] == 8 * 16
    assert "Austen" in found["text"]
    assert json.dumps(found)


def test_lower_levels_are_further_from_the_reference(order: QualityOrder, tmp_path: Path) -> None:
    """The blur shows in divergence and agreement, beyond the intervals; the reference is at 0 from itself."""
    made(order)
    told = {level: scored(order, at_level(level), tmp_path / level) for level in ("f16", "q8_0", "q4_0")}
    figures = {level: figures_of(tmp_path / level / "quality.parquet") for level in told}
    assert figures["f16"]["kl_mean"].value == 0
    assert told["f16"]["indistinguishable"]
    assert not told["q8_0"]["indistinguishable"]
    assert figures["q8_0"]["kl_mean"].high < figures["q4_0"]["kl_mean"].low
    assert figures["q8_0"]["top1_agreement"].low > figures["q4_0"]["top1_agreement"].high
    assert told["q8_0"]["greedy"]["same_share"] >= told["q4_0"]["greedy"]["same_share"]
    assert told["f16"]["greedy"]["same_share"] == 1
    assert told["q4_0"]["greedy"]["median_gap"] > 0
    assert told["q8_0"]["responses"]["replies"] == 4


def test_the_greedy_continuation_is_the_model_s_own(order: QualityOrder) -> None:
    """Token by token the likeliest after the one before."""
    made(order)
    facts = json.loads((Path(order.folder) / "facts.json").read_text())
    table = FakeScoring(EngineSpec("fake", level="f16"))._logprobs
    for prompt, continuation in zip(facts["prompts"], facts["continuations"], strict=True):
        before = [prompt[-1], *continuation[:-1]]
        assert continuation == [int(table[token].argmax()) for token in before]
        assert len(continuation) == 32


def test_positions_are_stored_one_a_row(order: QualityOrder, tmp_path: Path) -> None:
    """With their place in the text, the true token and both likeliest ones."""
    made(order)
    scored(order, at_level("q4_0"), tmp_path / "cell")
    table = pq.read_table(tmp_path / "cell" / "quality.parquet").to_pandas()
    assert len(table) == 256
    assert table["position"].min() == 32
    assert table["chunk"].nunique() == 8
    assert (table["top1_same"] == (table["top1"] == table["reference_top1"])).all()
    assert (table["gap"][~table["top1_same"]] > 0).all()
    chunks = np.load(Path(order.folder) / "chunks.npy")
    assert (table["token"].to_numpy() == chunks[:, 32:].ravel()).all()


@pytest.mark.parametrize(("reference", "candidate"), [({}, {"top": 8}), ({"top": 8}, {}), ({"top": 8}, {"top": 8})])
def test_of_likeliest_tokens_there_is_a_bound(
    order: QualityOrder, tmp_path: Path, reference: dict[str, int], candidate: dict[str, int]
) -> None:
    """Never above the divergence, in a figure of its own, whichever side tells little; agreement is known in full."""
    made(order, at_level("f16", **reference))
    told = scored(order, at_level("q4_0", **candidate), tmp_path / "part")
    part = figures_of(tmp_path / "part" / "quality.parquet")
    made(order)
    scored(order, at_level("q4_0"), tmp_path / "whole")
    whole = figures_of(tmp_path / "whole" / "quality.parquet")
    assert told["k"] == 8
    assert "kl_mean" not in part
    assert 0 < part["kl_bound"].value <= whole["kl_mean"].value
    assert part["top1_agreement"] == whole["top1_agreement"]
    assert part["ppl_ratio"].value == pytest.approx(whole["ppl_ratio"].value, rel=1e-5)


def test_an_engine_s_defect_becomes_a_reason(order: QualityOrder, tmp_path: Path) -> None:
    """Whatever goes wrong costs the figures of quality and nothing else."""
    made(order)
    found = scored(order, at_level("q8_0", broken=True), tmp_path / "cell")
    assert (found["status"], found["reason"]) == ("failed", "scoring broke off: RuntimeError: no scores today")


def test_an_engine_that_does_not_tell(order: QualityOrder, tmp_path: Path) -> None:
    """It is a cell without figures, with the reason; as a reference it is refused."""
    made(order)
    silent = replace(CELL, engine="silent", spec=EngineSpec("silent", level="f16"))
    reason = "silent does not tell how likely it finds a text, so no quality can be measured with it"
    assert scored(order, silent, tmp_path / "cell")["reason"] == reason
    with pytest.raises(UsageError, match="silent does not tell"):
        made(order, silent)


def test_a_text_that_is_too_short_is_refused(order: QualityOrder, tmp_path: Path) -> None:
    """Intervals come from differences between chunks, so there must be two."""
    text = tmp_path / "short.txt"
    text.write_text("A whale. " * 8)
    with pytest.raises(UsageError, match="fewer than two chunks"):
        made(replace(order, text=str(text)))


def test_a_disk_that_is_full_allows_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, order: QualityOrder) -> None:
    """As many chunks as fit, and the report says so; none where not even two fit."""
    per_chunk = 32 * 64 * 4 + 32 * 4
    monkeypatch.setattr("harness.quality_scores.MOST_BYTES", 3 * per_chunk)
    found = made(order)
    assert found["chunks"] == 3
    assert found["bound"].startswith("3 of 8 chunks")
    with pytest.raises(StorageFailed, match="make room"):
        fitting_chunks(tmp_path, 2 * per_chunk)


def test_the_shipped_text_is_long_enough() -> None:
    """58 kB that tiny was not trained on come first, for it the default of 32,768 tokens; 32,768 tokens of four
    characters and more for others.
    """
    _, text = text_of(None)
    assert len(text) > 4 * 32_768
    assert text.index("CHAPTER 26. Knights and Squires") > 32_768
    assert chunks_of(list(range(1100)), 1050, 512).shape == (2, 512)


def test_a_model_whose_numbers_overflow_is_not_compared(
    order: QualityOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN everywhere is a reason, not a divergence of nothing."""
    made(order)
    lost = np.full((32, 64), np.nan, dtype=np.float32)

    async def overflowing(_: Any, tokens: Any, first: int) -> Scores:
        return Scores(first, lost, None, lost[:, 0])

    monkeypatch.setattr(FakeScoring, "score", overflowing)
    told = scored(order, at_level("q8_0"), tmp_path / "cell")
    assert (told["status"], "overflow" in told["reason"]) == ("failed", True)


def test_a_reference_that_hangs_is_noticed(order: QualityOrder) -> None:
    """Each start and stop of its engine is announced, so that the parent can tell when one takes too long."""
    told: list[dict[str, Any]] = []
    asyncio.run(score_reference(CELL, order, told.append))
    once = ["prepared", "starting", "started", "stopping"]
    assert [one["event"] for one in told if not one["event"].startswith("quality")] == once * 2


def test_a_reference_that_does_not_fit_is_not_started(order: QualityOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be larger than every cell that is measured."""
    needed = MemoryEstimate("cpu", {"weights": 1 << 60})
    monkeypatch.setattr(FakeScoring, "memory_needed", lambda _: needed, raising=False)
    with pytest.raises(CellSkipped, match="needs at least"):
        asyncio.run(score_reference(CELL, order, lambda _: None))
