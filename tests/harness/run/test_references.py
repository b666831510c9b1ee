"""Which cell is the reference of which, and the section of the scenario that says so."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.base import EngineSpec, ModelReference
from harness.errors import ScenarioError
from harness.run.references import Choice, References, choose
from harness.run.scoring import with_level
from harness.run.supervisor import StopRequest
from harness.scenario.model import Scenario
from harness.scenario.quality import Quality
from harness.scenario.reader import load, restore
from harness.schedule.cells import Cell, bits
from harness.schedule.matrix import expand
from harness.store.manifest import ReferenceEntry

LOAD = [{"kind": "single_user", "requests": 1}]


def scenario(quality: Any, **keys: Any) -> Scenario:
    """Levels of the embedded engine, and a server."""
    engines = [{"engine": "llama-server", "quantization": ["q4_0", "f16", "q8_0"]}]
    return restore({"model": "tiny", "engines": engines, "load": LOAD, "quality": quality, **keys}, Path("x.yaml"))


def chosen(quality: Any, **keys: Any) -> Any:
    """What the first cell is compared with."""
    wanted = scenario(quality, **keys)
    cells = [one for one in expand(wanted) if isinstance(one, Cell)]
    assert wanted.quality is not None
    return choose(cells[0], cells, wanted.quality)


def test_the_highest_precision_is_the_default() -> None:
    """Among the levels of the model."""
    found = chosen({})
    assert found.name == {"model": "tiny", "engine": "llama-server", "level": "f16", "variant": None}
    assert found.id == "tiny-llama-server-f16"


def cell_of(engine: str, level: str | None = None, **options: Any) -> Cell:
    """A cell of `tiny`, whether its engine is installed here or not."""
    spec = EngineSpec(engine, ModelReference("tiny"), level, options)
    return Cell(0, "x", "tiny", engine, level, None, 1, spec, ())


@pytest.mark.parametrize(
    ("cells", "number", "level"),
    [
        ([cell_of("llama-server", "q4_k_m"), cell_of("llama-server")], 1, None),
        ([cell_of("transformers", "int8"), cell_of("transformers")], 1, None),
        ([cell_of("llama-server", "f16"), cell_of("transformers")], 1, None),
        ([cell_of("transformers"), cell_of("llama-server", "f32")], 1, "f32"),
        ([cell_of("llama-server", "q4_0"), cell_of("llama-server", "q8_0")], 0, None),
        ([cell_of("transformers", "nf4"), cell_of("llama-server", "q4_0")], 0, None),
        ([cell_of("vllm", "awq")], 0, "awq"),
        ([cell_of("vllm", quantization="fp8"), cell_of("vllm")], 1, None),
        ([cell_of("llama-server", "f32", cache_type_k="q4_0"), cell_of("llama-server", "f16")], 1, "f16"),
        ([cell_of("http"), cell_of("llama-server", "q8_0")], 1, None),
    ],
)
def test_the_default_is_never_a_quantized_row(cells: list[Cell], number: int, level: str | None) -> None:
    """A cell without a level has the checkpoint's own precision; where no cell keeps it, the reference is no cell."""
    found = choose(cells[0], cells, Quality())
    assert isinstance(found, Choice)
    assert found.cell is cells[number]
    assert found.level == level


def test_the_folder_of_a_reference_that_is_no_cell() -> None:
    """It is not that of the cell which it is made from."""
    cells = [cell_of("llama-server", "q8_0")]
    found = choose(cells[0], cells, Quality())
    assert isinstance(found, Choice)
    assert (found.id, found.name["level"]) == ("tiny-llama-server-own", None)


@pytest.mark.parametrize("models", [("one/tiny", "another/tiny"), ("a" * 40 + "-base", "a" * 40 + "-chat")])
def test_models_whose_names_end_or_begin_alike_have_references_of_their_own(models: tuple[str, str]) -> None:
    """Else the second one would be compared with the first one's scores."""
    cell = cell_of("llama-server", "f16")
    ids = [Choice(replace(cell, model=model), "f16").id for model in models]
    assert ids[0] != ids[1]
    assert Choice(replace(cell, model=models[0]), "f16").id == ids[0]


@pytest.mark.parametrize(
    ("reference", "level"),
    [
        ("q8_0", "q8_0"),
        ("llama-server/q8_0", "q8_0"),
        ({"quantization": "f32"}, "f32"),
        ({"engine": "llama-server"}, "f16"),
    ],
)
def test_a_named_reference(reference: Any, level: str) -> None:
    """A level of the same engine, also one that is not measured, or of a named one."""
    found = chosen({"reference": reference})
    assert isinstance(found, Choice)
    assert found.level == level


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("vllm/bf16", "the reference's engine vllm is not in the scenario"),
        ("fp17", "has no level `fp17` that could be the reference"),
        ({"engine": "llama-server", "variant": "fast"}, "has no variant `fast` here"),
    ],
)
def test_a_reference_that_is_not_there(reference: Any, sentence: str) -> None:
    """One sentence says why."""
    assert sentence in chosen({"reference": reference})


def test_each_engine_with_its_own_level_where_only_a_level_is_named() -> None:
    """The variant of the cell, where it has that level."""
    engines = [
        {"engine": "llama-server", "quantization": ["f16", "q4_0"], "variants": {"a": {}, "b": {"n_ctx": 512}}},
    ]
    wanted = scenario({"reference": "f16"}, engines=engines)
    cells = [one for one in expand(wanted) if isinstance(one, Cell)]
    last = next(one for one in cells if (one.level, one.variant) == ("q4_0", "b"))
    assert wanted.quality is not None
    found = choose(last, cells, wanted.quality)
    assert isinstance(found, Choice)
    assert (found.cell.variant, found.level) == ("b", "f16")


def test_a_reference_that_cannot_be_had_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may have taken long to fail; every cell that needs it is told the reason."""
    wanted, made = scenario({}), []

    async def failing(_: References, choice: Choice, *__: Any) -> ReferenceEntry:
        made.append(choice.id)
        return ReferenceEntry(reason="it hung")

    monkeypatch.setattr(References, "_made", failing)
    cells = [one for one in expand(wanted) if isinstance(one, Cell)]
    references = References(wanted.quality, cells, tmp_path, wanted.resolved(), {})
    said = [asyncio.run(references.order_for(one, StopRequest(), lambda _: None)) for one in cells]
    assert made == ["tiny-llama-server-f16"]
    assert said == ["the reference tiny-llama-server-f16 could not be scored: it hung"] * 3


def test_a_reference_is_chosen_from_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where only some cells run, theirs stays the same: a level is not compared with itself."""
    wanted, made = scenario({}), []

    async def failing(_: References, choice: Choice, *__: Any) -> ReferenceEntry:
        made.append(choice.id)
        return ReferenceEntry(reason="not now")

    monkeypatch.setattr(References, "_made", failing)
    cells = [one for one in expand(wanted) if isinstance(one, Cell)]
    few = [one for one in expand(wanted, only={"quantization": "q4_0"}) if isinstance(one, Cell)]
    references = References(wanted.quality, few, tmp_path, wanted.resolved(), {}, every=cells)
    asyncio.run(references.order_for(few[0], StopRequest(), lambda _: None))
    assert made == ["tiny-llama-server-f16"]


def test_only_the_first_repetition_is_scored() -> None:
    """The text is the same in all."""
    wanted = scenario({}, repetitions=3)
    cells = [one for one in expand(wanted) if isinstance(one, Cell)]
    references = References(wanted.quality, cells, Path("run"), wanted.resolved(), {})
    assert {one.repetition for one in cells if references.wants(one)} == {1}
    later = [one for one in cells if one.repetition > 1]
    assert all(
        References(wanted.quality, later, Path("run"), {}, {}).wants(one) == (one.repetition == 2) for one in later
    )
    assert not References(None, cells, Path("run"), {}, {}).wants(cells[0])


def test_the_checkpoints_own_precision_replaces_the_cells_level() -> None:
    """With the model that the scenario names, also where the level has a checkpoint of its own, or an adapter is on."""
    own = {"level": "q4_0", "model": "gpt2-small"}
    wanted = scenario({}, engines=[{"engine": "llama-server", "quantization": [own]}])
    (cell,) = [one for one in expand(wanted) if isinstance(one, Cell)]
    assert cell.spec.model == ModelReference("gpt2-small")
    found = with_level(cell, None)
    assert (found.level, found.spec.level, found.spec.model) == (None, None, ModelReference("tiny"))
    adapted = scenario({}, model={"name": "tiny", "lora": "some/adapter.gguf"})
    (first, *_) = [one for one in expand(adapted) if isinstance(one, Cell)]
    assert first.model == "tiny+adapter"
    assert with_level(first, None).spec.model == ModelReference("tiny", lora=first.spec.model.lora)  # type: ignore[union-attr]


@pytest.mark.parametrize(("level", "found"), [("bf16", 16), ("q4_k_m", 4), ("f32", 32), ("awq", 0), (None, 0)])
def test_bits(level: str | None, found: int) -> None:
    """The number in a level's name."""
    assert bits(level) == found


def test_the_section_of_a_file(tmp_path: Path) -> None:
    """Texts are files beside the scenario; what it resolves to is read back the same."""
    (tmp_path / "in_domain.txt").write_text("A text.")
    path = tmp_path / "one.yaml"
    base = "model: tiny\nengines: [{engine: llama-server}]\nload: [{kind: single_user, requests: 1}]\n"
    path.write_text(base + "quality: {reference: llama-server/f16, text: in_domain.txt, tokens: 4096}\n")
    found = load(path)
    assert found.quality is not None
    assert found.quality.text == tmp_path / "in_domain.txt"
    assert restore(found.resolved(), path).quality == found.quality
    path.write_text(base + "quality: {text: builtin}\n")
    assert load(path).quality.text is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ("{text: nowhere.txt}", "nowhere.txt is not a file"),
        ("{tokens: 10}", "at least 64"),
        ("{chunk: 1024}", "at most 512"),
        ("{reference: /f16}", "is not a reference"),
        ("{refrence: f16}", "did you mean `reference`?"),
    ],
)
def test_what_is_wrong_in_the_section(tmp_path: Path, section: str, sentence: str) -> None:
    """Every mistake has its place and what to write instead."""
    path = tmp_path / "one.yaml"
    path.write_text(
        f"engines: [{{engine: simulated}}]\nload: [{{kind: single_user, requests: 1}}]\nquality: {section}\n"
    )
    with pytest.raises(ScenarioError, match="quality") as raised:
        load(path)
    assert sentence in str(raised.value)
