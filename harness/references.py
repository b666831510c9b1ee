"""References of quality: which cell the others are compared with, scored once before the first that needs it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engines import engine_class
from harness.cells import Cell, bits, slug
from harness.quality_child import QualityOrder, cannot_score
from harness.quality_section import Quality
from harness.supervisor import TRIAL_PATIENCE_S, ChildCommand, StopRequest, supervise
from harness.trial import CellSpec

FOLDER = "quality"
Hear = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """A cell to be the reference, at its own level or at one that is not measured."""

    cell: Cell
    level: str | None

    @property
    def name(self) -> dict[str, Any]:
        """What it is, for the manifest."""
        cell = self.cell
        return {"model": cell.model, "engine": cell.engine, "level": self.level, "variant": cell.variant}

    @property
    def id(self) -> str:
        """Its folder's name."""
        return "-".join(slug(part.rpartition("/")[2] or part) for part in self.name.values() if part)


def choose(cell: Cell, cells: Sequence[Cell], section: Quality) -> Choice | str:
    """What a cell is compared with; a sentence where there is nothing."""
    wanted = section.reference
    same = [one for one in cells if one.model == cell.model]
    if wanted is None or not (wanted.quantization or wanted.engine or wanted.variant):
        best = max(same, key=lambda one: bits(one.level))
        return Choice(best, best.level)
    engine, level = wanted.engine or cell.engine, wanted.quantization
    found = [one for one in same if one.engine == engine]
    if not found:
        return f"the reference's engine {engine} is not in the scenario, or cannot be run here"
    of_variant = [one for one in found if wanted.variant is None or one.variant == wanted.variant]
    if not of_variant:
        return f"{engine} has no variant `{wanted.variant}` here that could be the reference"
    own = [one for one in of_variant if one.variant == cell.variant] or of_variant
    measured = [one for one in own if level is None or one.level == level]
    if measured:
        best = max(measured, key=lambda one: bits(one.level))
        return Choice(best, best.level)
    levels = engine_class(engine).levels()
    if level not in levels:
        return f"{engine} has no level `{level}` that could be the reference; it has {', '.join(levels) or 'none'}"
    return Choice(own[0], level)


def refusal(cell: Cell, cells: Sequence[Cell], section: Quality) -> str | None:
    """Why a cell cannot be compared, whatever happens; None where nothing is known against it."""
    choice = choose(cell, cells, section)
    if isinstance(choice, str):
        return choice
    silent = next((one.engine for one in (cell, choice.cell) if not hasattr(engine_class(one.engine), "score")), None)
    return None if silent is None else cannot_score(silent)


@dataclass(slots=True)
class References:
    """Those of one run. told: for the manifest, by id; filled as they are made.   tried: the ids of those that were
    made in this session, well or badly: none is made twice.   every: the cells that a reference is chosen from, where
    only some of them run.
    """

    section: Quality | None
    cells: Sequence[Cell]
    folder: Path
    scenario: dict[str, Any]
    told: dict[str, Any]
    tried: set[str] = field(default_factory=set)
    every: Sequence[Cell] = ()

    def wants(self, cell: Cell) -> bool:
        """Whether a cell is to be scored: the first repetition of each is, since the text stays the same."""
        if self.section is None:
            return False
        alike = [one for one in self.cells if _names(one) == _names(cell)]
        return min(one.repetition for one in alike) == cell.repetition

    def refusal(self, cell: Cell) -> str | None:
        """Why a cell that is wanted cannot be scored."""
        assert self.section is not None
        return refusal(cell, self.every or self.cells, self.section)

    async def order_for(self, cell: Cell, stop: StopRequest, hear: Hear) -> QualityOrder | str:
        """What to tell the cell's child, the reference made first if need be; a sentence where it cannot be had."""
        assert self.section is not None
        choice = choose(cell, self.every or self.cells, self.section)
        if isinstance(choice, str):
            return choice
        text = None if self.section.text is None else str(self.section.text.absolute())
        sizes = (self.section.tokens, self.section.chunk, self.section.first)
        folder = self.folder / FOLDER / choice.id
        order = QualityOrder(str(folder.absolute()), True, *sizes, choice.name, text, choice.level)
        if choice.id not in self.tried:
            self.tried.add(choice.id)
            hear({"event": "notice", "text": f"scoring the reference first: {choice.id}"})
            self.told[choice.id] = await self._made(choice, order, folder, stop, hear)
        reason = self.told[choice.id].get("reason")
        if reason:
            return f"the reference {choice.id} could not be scored: {reason}"
        return QualityOrder(str(folder.absolute()), False, *sizes, choice.name, text)

    async def _made(
        self, choice: Choice, order: QualityOrder, folder: Path, stop: StopRequest, hear: Hear
    ) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        spec = CellSpec(self.scenario, choice.cell.index, str(folder.absolute()), (), quality=asdict(order))
        spec.save(folder / "child.json")
        heard: dict[str, Any] = {}

        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "quality":
                heard.update(event["quality"])
            elif event["event"] in ("failed", "skipped", "stopped"):
                heard["reason"] = event.get("reason") or "the run was stopped"
            hear(event)

        command = ChildCommand.of(choice.cell, folder, TRIAL_PATIENCE_S)
        reason = await supervise(command, stop, lambda _: None, listen)
        if "positions" not in heard:
            heard.setdefault("reason", reason or "its process ended without a word")
        return heard

    def close(self) -> None:
        """Delete the scores: they are large, and made again where they are needed again."""
        for file in (self.folder / FOLDER).glob("*/*"):
            if file.suffix in (".f32", ".i32", ".npy") or file.name in ("facts.json", "child.json"):
                file.unlink()
        for folder in (self.folder / FOLDER).glob("*"):
            log = folder / "log.txt"
            if not log.exists() or not log.stat().st_size:
                shutil.rmtree(folder)


def _names(cell: Cell) -> tuple[str | None, ...]:
    return cell.model, cell.engine, cell.level, cell.variant
