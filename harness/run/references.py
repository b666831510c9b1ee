"""References of quality: choose the cell that others are compared with, and score it once when first needed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engines import engine_class
from harness.run.child import CellSpec
from harness.run.scoring import QualityOrder, cannot_score
from harness.run.supervisor import TRIAL_PATIENCE_S, ChildCommand, StopRequest, supervise
from harness.scenario.quality import Quality
from harness.schedule.cells import FULL_BITS, Cell, bits, is_full, slug
from harness.store.manifest import Manifest, ReferenceEntry

FOLDER, FACTS = "quality", "facts.json"
OWN_PRECISION = 24
"""Bits of a cell without a level: the checkpoint's own precision, between 16 and 32 bits."""
MADE_BEFOREHAND = ("awq", "gptq", "compressed-tensors")
_CACHE_TYPES = ("cache_type_k", "cache_type_v", "kv_cache_dtype")
Notify = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """Cell that is the reference."""

    cell: Cell
    level: str | None  # may differ from the cell's; None for the checkpoint's own precision

    @property
    def name(self) -> dict[str, Any]:
        """Its names, for the manifest."""
        cell = self.cell
        return {"model": cell.model, "engine": cell.engine, "level": self.level, "variant": cell.variant}

    @property
    def id(self) -> str:
        """Name of its folder; a digest tells shortened names apart, such as the same file in two folders."""
        names = self.name if self.level is not None or self.cell.level is None else self.name | {"level": "own"}
        whole = [part for part in names.values() if part]
        short = [slug(part.rpartition("/")[2] or part) for part in whole]
        digest = hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:6]
        return "-".join(short if short == whole else [*short, digest])


def choose(cell: Cell, cells: Sequence[Cell], section: Quality) -> Choice | str:
    """Return the reference of a cell, or the reason why there is none."""
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
    """Return the most precise reference: no quantized cell, unless the checkpoint itself is quantized.

    If all cells are quantized, the reference is the checkpoint's own precision, which is no cell.
    """
    able = [one for one in cells if hasattr(engine_class(one.engine), "score")] or list(cells)
    full = [one for one in able if _precision(one) >= FULL_BITS]
    if full:
        best = max(full, key=lambda one: (not _narrow_cache(one), _precision(one)))
        return Choice(best, best.level)
    stored = [one for one in able if one.level in MADE_BEFOREHAND and one.spec.model == one.own_model]
    return Choice(stored[0], stored[0].level) if stored else Choice(able[0], None)


def _precision(cell: Cell) -> int:
    """Return the bits of a cell's weights by its level in the scenario, 0 if they are quantized."""
    level = cell.level or cell.spec.options.get("quantization")
    if level is None:
        return OWN_PRECISION
    return bits(str(level)) if is_full(str(level)) else 0


def _narrow_cache(cell: Cell) -> bool:
    """Return whether the KV cache is quantized, which may cost as much quality as quantized weights."""
    kept = [bits(str(cell.spec.options.get(name))) for name in _CACHE_TYPES]
    return any(0 < count < FULL_BITS for count in kept)


@dataclass(frozen=True, slots=True)
class Kept:
    """Reference whose scores another run has kept."""

    id: str
    folder: Path
    entry: ReferenceEntry


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a run scores, where several runs are compared with one reference.

    Attributes:
        wanted: Whether its cells are scored, if the scenario asks for it.
        keeps: Whether the reference's scores stay for another run.
        never: Variant that is not the reference, for it is what the base is compared with.
        given: References to use instead of own ones, by model and engine.
    """

    wanted: bool = True
    keeps: bool = False
    never: str | None = None
    given: Mapping[tuple[str | None, str], Kept] = field(default_factory=dict)


def kept_references(run: Path, manifest: Manifest) -> dict[tuple[str | None, str], Kept]:
    """Return the references whose scores a run has kept, by model and engine of the cells that they are for."""
    ids = {json.dumps(entry.name.stored()): (id_, entry) for id_, entry in manifest.quality.items()}
    found = {}
    for cell in manifest.cells:
        named = cell.quality and cell.quality.reference
        if named and (known := ids.get(json.dumps(named.stored()))):
            id_, entry = known
            if (run / FOLDER / id_ / FACTS).exists():
                found[cell.model, cell.engine] = Kept(id_, run / FOLDER / id_, entry)
    return found


def delete_scores(run: Path) -> None:
    """Delete the scores of a run's references: they are large, and can be computed again."""
    for file in (run / FOLDER).glob("*/*"):
        if file.suffix in (".f32", ".i32", ".npy") or file.name in (FACTS, "child.json"):
            file.unlink()
    for folder in (run / FOLDER).glob("*"):
        log = folder / "log.txt"
        if not log.exists() or not log.stat().st_size:
            shutil.rmtree(folder)


@dataclass(slots=True)
class References:
    """References of one run."""

    section: Quality | None
    cells: Sequence[Cell]
    folder: Path
    scenario: dict[str, Any]
    entries: dict[str, ReferenceEntry]  # for the manifest, by id; filled as references are scored
    tried: set[str] = field(default_factory=set)  # ids scored in this session, failed ones included
    every: Sequence[Cell] = ()  # cells to choose from, if only some of them run
    scoring: Scoring = Scoring()

    def wants(self, cell: Cell) -> bool:
        """Return whether a cell is scored: only the first repetition is, since the text stays the same."""
        if self.section is None or not self.scoring.wanted:
            return False
        alike = [one for one in self.cells if _names(one) == _names(cell)]
        return min(one.repetition for one in alike) == cell.repetition

    def refusal(self, cell: Cell) -> str | None:
        """Return why a cell cannot be scored, None if no reason is known."""
        if (cell.model, cell.engine) in self.scoring.given:
            return None if hasattr(engine_class(cell.engine), "score") else cannot_score(cell.engine)
        choice = self._choice(cell)
        if isinstance(choice, str):
            return choice
        engines = [one.engine for one in (cell, choice.cell)]
        silent = next((name for name in engines if not hasattr(engine_class(name), "score")), None)
        return None if silent is None else cannot_score(silent)

    def _choice(self, cell: Cell) -> Choice | str:
        assert self.section is not None
        cells = self.every or self.cells
        allowed = [one for one in cells if self.scoring.never is None or one.variant != self.scoring.never]
        return choose(cell, allowed, self.section)

    async def order_for(self, cell: Cell, stop: StopRequest, notify: Notify) -> QualityOrder | str:
        """Return the order for the cell's child, once the reference is scored; a sentence if that failed."""
        assert self.section is not None
        text = None if self.section.text is None else str(self.section.text.absolute())
        sizes = (self.section.tokens, self.section.chunk, self.section.first)
        if (kept := self.scoring.given.get((cell.model, cell.engine))) is not None:
            self.entries[kept.id] = kept.entry
            return QualityOrder(str(kept.folder.absolute()), False, *sizes, kept.entry.name.stored(), text)
        choice = self._choice(cell)
        if isinstance(choice, str):
            return choice
        folder = self.folder / FOLDER / choice.id
        order = QualityOrder(str(folder.absolute()), True, *sizes, choice.name, text, choice.level)
        if choice.id not in self.tried:
            self.tried.add(choice.id)
            notify({"event": "notice", "text": f"scoring the reference first: {choice.id}"})
            self.entries[choice.id] = await self._made(choice, order, folder, stop, notify)
            if self.entries[choice.id].quantized:
                loaded = self.entries[choice.id].level
                notify({"event": "notice", "text": f"the reference {choice.id} is itself quantized: {loaded}"})
        reason = self.entries[choice.id].reason
        if reason:
            own = choice.level == choice.cell.level
            advice = "" if own else "; name a level that is measured as `quality.reference`"
            return f"the reference {choice.id} could not be scored: {reason}{advice}"
        return QualityOrder(str(folder.absolute()), False, *sizes, choice.name, text)

    async def _made(
        self, choice: Choice, order: QualityOrder, folder: Path, stop: StopRequest, notify: Notify
    ) -> ReferenceEntry:
        folder.mkdir(parents=True, exist_ok=True)
        spec = CellSpec(self.scenario, choice.cell.index, str(folder.absolute()), (), quality=asdict(order))
        spec.save(folder / "child.json")
        entry: dict[str, Any] = {}

        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "quality":
                entry.update(event["quality"])
            elif event["event"] in ("failed", "skipped", "stopped"):
                entry["reason"] = event.get("reason") or "the run was stopped"
            notify(event)

        command = ChildCommand.of(choice.cell, folder, TRIAL_PATIENCE_S)
        reason = await supervise(command, stop, lambda _: None, listen)
        if "positions" not in entry:
            entry.setdefault("reason", reason or "its process exited without output")
        return ReferenceEntry.model_validate(entry)

    def close(self) -> None:
        """Delete the scores, unless another run needs them."""
        if not self.scoring.keeps:
            delete_scores(self.folder)


def _names(cell: Cell) -> tuple[str | None, ...]:
    return cell.model, cell.engine, cell.level, cell.variant
