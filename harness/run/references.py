"""References of quality: which cell the others are compared with, scored once before the first that needs it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engines import engine_class
from harness.run.child import CellSpec
from harness.run.scoring import QualityOrder, cannot_score
from harness.run.supervisor import TRIAL_PATIENCE_S, ChildCommand, StopRequest, supervise
from harness.scenario.quality import Quality
from harness.schedule.cells import FULL_BITS, Cell, bits, is_full, slug
from harness.store.manifest import ReferenceEntry

FOLDER = "quality"
OWN = "own"
"""In the name of a reference's folder: the checkpoint's own precision, which no cell has."""
OWN_PRECISION = 24
"""Bits that a cell without a level counts as: the checkpoint's own precision is no less than any 16 bits that are made
of it, and no more than 32."""
MADE_BEFOREHAND = ("awq", "gptq", "compressed-tensors")
_CACHE_TYPES = ("cache_type_k", "cache_type_v", "kv_cache_dtype")
Hear = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """A cell to be the reference, at its own level or at one that is not measured; None: the checkpoint's own."""

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
        names = self.name if self.level is not None or self.cell.level is None else self.name | {"level": OWN}
        return "-".join(slug(part.rpartition("/")[2] or part) for part in names.values() if part)


def choose(cell: Cell, cells: Sequence[Cell], section: Quality) -> Choice | str:
    """What a cell is compared with; a sentence where there is nothing."""
    wanted = section.reference
    same = [one for one in cells if one.model == cell.model]
    if wanted is None or not (wanted.quantization or wanted.engine or wanted.variant):
        return _most_precise(same)
    engine, level = wanted.engine or cell.engine, wanted.quantization
    found = [one for one in same if one.engine == engine]
    if not found:
        return f"the reference's engine {engine} is not in the scenario, or cannot be run here"
    of_variant = [one for one in found if wanted.variant is None or one.variant == wanted.variant]
    if not of_variant:
        return f"{engine} has no variant `{wanted.variant}` here that could be the reference"
    own = [one for one in of_variant if one.variant == cell.variant] or of_variant
    if level is None:
        return _most_precise(own)
    measured = next((one for one in own if one.level == level), None)
    if measured is not None:
        return Choice(measured, level)
    levels = engine_class(engine).levels()
    if level not in levels:
        return f"{engine} has no level `{level}` that could be the reference; it has {', '.join(levels) or 'none'}"
    return Choice(own[0], level)


def _most_precise(cells: Sequence[Cell]) -> Choice:
    """Never a quantized cell of its own accord: where all are, the checkpoint's own precision, which is no cell.

    A checkpoint may itself be quantized; then nothing else exists.
    """
    able = [one for one in cells if hasattr(engine_class(one.engine), "score")] or list(cells)
    full = [one for one in able if _precision(one) >= FULL_BITS]
    if full:
        best = max(full, key=lambda one: (not _narrow_cache(one), _precision(one)))
        return Choice(best, best.level)
    stored = [one for one in able if one.level in MADE_BEFOREHAND and one.spec.model == one.own_model]
    return Choice(stored[0], stored[0].level) if stored else Choice(able[0], None)


def _precision(cell: Cell) -> int:
    """Bits of a cell's weights, 0 where they are quantized; by the names that the scenario gives."""
    level = cell.level or cell.spec.options.get("quantization")
    if level is None:
        return OWN_PRECISION
    return bits(str(level)) if is_full(str(level)) else 0


def _narrow_cache(cell: Cell) -> bool:
    """Whether keys and values are kept in fewer bits, which costs as much quality as weights may."""
    kept = [bits(str(cell.spec.options.get(name))) for name in _CACHE_TYPES]
    return any(0 < count < FULL_BITS for count in kept)


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
    told: dict[str, ReferenceEntry]
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
            if self.told[choice.id].quantized:
                loaded = self.told[choice.id].level
                hear({"event": "notice", "text": f"the reference {choice.id} is itself quantized: {loaded}"})
        reason = self.told[choice.id].reason
        if reason:
            own = choice.level == choice.cell.level
            advice = "" if own else "; name a level that is measured as `quality.reference`"
            return f"the reference {choice.id} could not be scored: {reason}{advice}"
        return QualityOrder(str(folder.absolute()), False, *sizes, choice.name, text)

    async def _made(
        self, choice: Choice, order: QualityOrder, folder: Path, stop: StopRequest, hear: Hear
    ) -> ReferenceEntry:
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
        return ReferenceEntry.model_validate(heard)

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
