"""Combinations of a scenario, cells, trials, skipped cells, and the identity of a trial across runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import EngineSpec, ModelReference
from harness.errors import UsageError
from harness.scenario.files.entries import fingerprint
from harness.scenario.files.hub import HubPrompts, fetched
from harness.scenario.limits import Slo
from harness.scenario.loads.kinds import Load, Trace
from harness.scenario.metrics_urls import MetricsPage
from harness.scenario.quality import Quality
from harness.scenario.workload import TrafficClass, Workload

if TYPE_CHECKING:  # readers of reports need cells, and not the grammar of scenarios
    from harness.scenario.engines import EngineBlock, Level, ModelEntry
    from harness.scenario.model import Scenario

_LONGEST_SLUG = 40


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """Trial: one load on one cell.

    Attributes:
        index: Number among the cell's loads.
        id: Folder, such as "000-single_user".
        load: Load without lists.
        workload: Workload of requests without a class, as `slo`.
        classes: Classes with their whole workload and SLO; only for `mixed`.
        seed: Seed, equal for all engines, levels and variants.
    """

    index: int
    id: str
    name: str
    load: Load
    workload: Workload
    classes: Mapping[str, TrafficClass]
    slo: Slo
    limits: tuple[str, ...]
    seed: int

    @property
    def timeout_s(self) -> float:
        return self.load.timeout_s

    @property
    def workloads(self) -> list[Workload]:
        """Workload of each class, or the workload of a trial without classes."""
        return [one.workload for one in self.classes.values() if one.workload is not None] or [self.workload]

    def left_to_the_server(self) -> TrialPlan:
        """Return the trial for a server that refuses temperature 0."""
        classes = {
            name: one.model_copy(update={"workload": one.workload and one.workload.left_to_the_server()})
            for name, one in self.classes.items()
        }
        return replace(self, workload=self.workload.left_to_the_server(), classes=classes)


@dataclass(frozen=True, slots=True)
class _Named:
    index: int
    id: str
    model: str | None
    engine: str
    level: str | None
    variant: str | None
    repetition: int


@dataclass(frozen=True, slots=True)
class Cell(_Named):
    """Cell: an engine that is started once, with its trials.

    Attributes:
        scope: "server" if readings of this machine describe the server, else "client".
        interpreter: Interpreter of the cell's process, if it is not this one.
        pages: Prometheus pages beside the engine's own; (): read no page; None: no further page.
        salt: Salt of generated prompts, see `prompts.WordPrompts`.
        refusal: Message of a server that refuses temperature 0. The trials then carry no temperature.
        named: Model as the scenario names it, with its revision.
    """

    spec: EngineSpec
    trials: tuple[TrialPlan, ...]
    scope: str = "server"
    interpreter: str | None = None
    start_timeout_s: float = 900.0
    pages: tuple[MetricsPage, ...] | None = None
    salt: int = 0
    refusal: str | None = None
    named: ModelReference | None = None

    @property
    def stays_up(self) -> bool:
        """True if its server runs before and after this run, so that it may keep prompts in a cache."""
        return bool(self.spec.options.get("url"))

    @property
    def own_model(self) -> ModelReference | None:
        """Model of the scenario, even if the level has its own checkpoint."""
        given = self.spec.model
        if self.model is None or given is None:
            return given
        name = self.model.removesuffix(f"+{last_part(given.lora)}") if given.lora else self.model
        if given.name == name:
            return given
        return self.named if self.named is not None else ModelReference(name, lora=given.lora)

    def refused(self, words: str) -> Cell:
        """Return the cell for a server that refused temperature 0 with this message."""
        return replace(self, trials=tuple(plan.left_to_the_server() for plan in self.trials), refusal=words)


@dataclass(frozen=True, slots=True)
class Skip(_Named):
    """Cell that cannot be run, with the reason and, if that is the reason, the missing environment variable."""

    reason: str
    variable: str | None = None


def slug(text: str) -> str:
    """Return a text as part of a folder's name, short because file systems allow 255 characters in all."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text)[:_LONGEST_SLUG].strip("-.") or "x"


def bits(level: str | None) -> int:
    """Return the bits in a level's name: 16 of "bf16", 4 of "q4_k_m", 0 without a number."""
    found = re.search(r"\d+", level or "")
    return int(found[0]) if found else 0


FULL_BITS = 16  # least bits of a level that is not quantized


def is_full(level: str | None) -> bool:
    """Return True if a level keeps full precision, by its name."""
    return bits(level) >= FULL_BITS


def last_part(name: str) -> str:
    """Return the model's name at the end of a hub id or a path."""
    return name.rstrip("/").rpartition("/")[2].removesuffix(".gguf")


@dataclass(frozen=True, slots=True)
class Combination:
    """Cell to be planned; `place` is the key of its engine block if only that distinguishes it from another."""

    block: EngineBlock
    model: ModelEntry | None
    level: Level | None
    variant: str | None
    repetition: int
    place: str | None = None

    @property
    def names(self) -> tuple[str | None, str, str | None, str | None]:
        """Model, engine, level and variant, which distinguish its results from those of other cells."""
        level = None if self.level is None else self.level.level
        return self.model_name, self.block.engine, level, self.shown_variant

    @property
    def shown_variant(self) -> str | None:
        """Variant, after the place of its block if that is needed to distinguish blocks."""
        return ".".join(part for part in (self.place, self.variant) if part) or None

    @property
    def reference(self) -> ModelReference | None:
        """Model to load: the level's own if it has one."""
        lora = None if self.model is None else self.model.lora
        if self.level is not None and self.level.model is not None:
            return ModelReference(self.level.model, lora=lora)
        return self.named

    @property
    def named(self) -> ModelReference | None:
        """Model as the scenario names it, whatever checkpoint the level has."""
        return None if self.model is None else ModelReference(self.model.name, self.model.revision, self.model.lora)

    @property
    def model_name(self) -> str | None:
        """Model as the scenario names it, not the level's checkpoint; an adapter follows a plus sign."""
        if self.model is not None:
            return self.model.name + (f"+{last_part(self.model.lora)}" if self.model.lora else "")
        return None if self.reference is None else self.reference.name


def combinations(scenario: Scenario) -> list[Combination]:
    """Return all combinations in the order of the file, which is that of the cells' numbers.

    Raises:
        UsageError: Two combinations have the same names.
    """
    models: tuple[ModelEntry | None, ...] = scenario.model or (None,)
    cells = [
        (block, model, level, variant)
        for model, block in itertools.product(models, scenario.engines)
        for level in (block.quantization or (None,))
        for variant in (block.variants or (None,))
    ]
    repetitions = range(1, scenario.repetitions + 1)
    if scenario.order == "blocks":
        return _distinguished(scenario, [Combination(*cell, number) for cell in cells for number in repetitions])
    return _distinguished(scenario, [Combination(*cell, number) for number in repetitions for cell in cells])


def _distinguished(scenario: Scenario, product: list[Combination]) -> list[Combination]:
    """Add the place of the engine block to equal names, which would otherwise count as repetitions of each other."""
    blocks: dict[tuple[str | None, ...], list[EngineBlock]] = {}
    for one in product:
        blocks.setdefault(one.names, []).append(one.block)
    places = {id(block): f"engines.{number}" for number, block in enumerate(scenario.engines)}
    several = {names for names, found in blocks.items() if len({id(block) for block in found}) > 1}
    unique = [replace(one, place=places[id(one.block)]) if one.names in several else one for one in product]
    for names, times in Counter((*one.names, one.repetition) for one in unique).items():
        if times > 1:
            name = ", ".join(str(part) for part in names[:-1] if part)
            raise UsageError(f"the scenario lists {name} {times} times; list it once, and repeat with `repetitions`")
    return unique


def identity(cell: Cell, plan: TrialPlan, model_hash: str | None = None) -> str:
    """Return the SHA-256 of everything that determines a trial; equal trials need not be run again."""
    facts = {
        "model": None if cell.spec.model is None else [cell.spec.model.name, cell.spec.model.revision],
        "model_hash": model_hash,
        "engine": cell.engine,
        "level": cell.level,
        "variant": cell.variant,
        "options": cell.spec.options,
        "python": cell.spec.python,
        "load": _json(plan.load),
        "workload": _json(plan.workload),
        "classes": {
            name: [
                *(one.weight, _json(one.workload)),
                *([] if one.priority is None else [one.priority]),
                *([one.on_the_wire] if one.on_the_wire else []),
            ]
            for name, one in plan.classes.items()
        },
        "seed": plan.seed,
        "repetition": cell.repetition,
    }
    lora = None if cell.spec.model is None else cell.spec.model.lora
    optional = {"devices": cell.spec.devices, "lora": lora, "files": file_hashes(plan)}
    facts |= {name: value for name, value in optional.items() if value}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hashes(plan: TrialPlan) -> dict[str, str | None]:
    """Return the SHA-256 of the prompt and trace files; None for a missing file."""
    sources = [one.prompts for one in (plan.workload, *plan.workloads) if one.prompts is not None]
    paths = [file for one in sources for file in (fetched(one) if isinstance(one, HubPrompts) else [one])]
    paths += [plan.load.file] if isinstance(plan.load, Trace) else []
    return {str(path): _file_hash(path) for path in dict.fromkeys(paths)}


def text_hash(quality: Quality | None) -> str | None:
    """Return the SHA-256 of the scored text; None for the shipped text or a missing file."""
    return None if quality is None or quality.text is None else _file_hash(quality.text)


def _file_hash(path: Path) -> str | None:
    return fingerprint(path) if path.is_file() else None


def _json(model: Any) -> Any:
    return None if model is None else model.model_dump(mode="json", by_alias=True, exclude={"slo", "limits", "name"})


def without_loads(planned: Sequence[Cell | Skip]) -> list[Cell | Skip]:
    """Return the cells of the first repetition without trials; later repetitions score the same text."""
    first = min(one.repetition for one in planned)
    return [replace(one, trials=()) if isinstance(one, Cell) else one for one in planned if one.repetition == first]
