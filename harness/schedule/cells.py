"""Cells of trials, cells that cannot be run, and the identity by which a trial is known again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engines.base import EngineSpec, ModelReference
from harness.scenario.limits import Slo
from harness.scenario.loads import Load, Trace
from harness.scenario.metrics_urls import MetricsPage
from harness.scenario.quality import Quality
from harness.scenario.workload import TrafficClass, Workload

_LONGEST_SLUG = 40


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """One load on one cell.

    index: its number among the cell's loads.   id: its folder, "000-single_user".   load: without lists.
    workload, slo: of requests without a class.   classes: for `mixed` only, each with its whole workload and slo.
    limits: those that this trial must hold.   seed: the same for every engine, level and variant.
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
        """After this long a request has failed."""
        return self.load.timeout_s

    @property
    def workloads(self) -> list[Workload]:
        """What is asked, by each class where there are classes."""
        return [one.workload for one in self.classes.values() if one.workload is not None] or [self.workload]

    def left_to_the_server(self) -> TrialPlan:
        """The same for a server that refuses temperature 0."""
        classes = {
            name: one.model_copy(update={"workload": one.workload and one.workload.left_to_the_server()})
            for name, one in self.classes.items()
        }
        return replace(self, workload=self.workload.left_to_the_server(), classes=classes)


@dataclass(frozen=True, slots=True)
class Cell:
    """What is started once.

    scope: "server" where readings of this machine are the server's, else "client".   interpreter: of its process, where
    that is another than ours.   start_timeout_s: how long its engine may take to start.
    salt: of its made-up prompts, see `prompts.WordPrompts`.
    refusal: the words of a server that refuses temperature 0, so that its trials are without.
    pages: those for Prometheus that are to be read beside the engine's own; (): none at all; None: none are named.
    """

    index: int
    id: str
    model: str | None
    engine: str
    level: str | None
    variant: str | None
    repetition: int
    spec: EngineSpec
    trials: tuple[TrialPlan, ...]
    scope: str = "server"
    interpreter: str | None = None
    start_timeout_s: float = 900.0
    pages: tuple[MetricsPage, ...] | None = None
    salt: int = 0
    refusal: str | None = None

    @property
    def stays_up(self) -> bool:
        """Whether its server runs before and after this run, and may remember what it was asked."""
        return bool(self.spec.options.get("url"))

    @property
    def own_model(self) -> ModelReference | None:
        """The model that the scenario names, also where the level has a checkpoint of its own."""
        given = self.spec.model
        if self.model is None or given is None:
            return given
        name = self.model.removesuffix(f"+{last_part(given.lora)}") if given.lora else self.model
        return given if given.name == name else ModelReference(name, lora=given.lora)

    def refused(self, words: str) -> Cell:
        """The cell of a server that refused temperature 0 with these words."""
        return replace(self, trials=tuple(plan.left_to_the_server() for plan in self.trials), refusal=words)


@dataclass(frozen=True, slots=True)
class Skip:
    """A cell that cannot be run, and why. variable: an environment variable that it needs and that is not set."""

    index: int
    id: str
    model: str | None
    engine: str
    level: str | None
    variant: str | None
    repetition: int
    reason: str
    variable: str | None = None


def slug(text: str) -> str:
    """A text as part of a folder's name, of which file systems allow no more than 255 characters in all."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text)[:_LONGEST_SLUG].strip("-.") or "x"


def bits(level: str | None) -> int:
    """The bits in a level's name, 16 of "bf16", 4 of "q4_k_m"; 0 where it tells none."""
    found = re.search(r"\d+", level or "")
    return int(found[0]) if found else 0


FULL_BITS = 16
"""A level of so many bits or more is no quantization."""


def is_full(level: str | None) -> bool:
    """Whether a level that was loaded keeps full precision; not where its name does not tell."""
    return bits(level) >= FULL_BITS


def last_part(name: str) -> str:
    """Of a hub id or a path, what it calls the model."""
    return name.rstrip("/").rpartition("/")[2].removesuffix(".gguf")


def identity(cell: Cell, plan: TrialPlan, model_hash: str | None = None) -> str:
    """SHA-256 over everything that decides what a trial measures: equal ones need not be run again."""
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
        "classes": {name: [one.weight, _json(one.workload), *_priority(one)] for name, one in plan.classes.items()},
        "seed": plan.seed,
        "repetition": cell.repetition,
    }
    if cell.spec.devices:
        facts["devices"] = cell.spec.devices
    if cell.spec.model is not None and cell.spec.model.lora:
        facts["lora"] = cell.spec.model.lora
    contents = file_hashes(plan)
    facts |= {"files": contents} if contents else {}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _priority(one: TrafficClass) -> list[int]:
    return [] if one.priority is None else [one.priority]


def file_hashes(plan: TrialPlan) -> dict[str, str | None]:
    """SHA-256 of the files that give prompts and traces; None for one that is no longer there."""
    workloads = [plan.workload, *(one.workload for one in plan.classes.values() if one.workload is not None)]
    paths = [one.prompts for one in workloads if one.prompts is not None]
    paths += [plan.load.file] if isinstance(plan.load, Trace) else []
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None for path in paths}


def text_hash(quality: Quality | None) -> str | None:
    """SHA-256 of the file that is scored; None where it is the shipped one, or no longer there."""
    path = None if quality is None else quality.text
    return None if path is None or not path.is_file() else hashlib.sha256(path.read_bytes()).hexdigest()


def _json(model: Any) -> Any:
    return None if model is None else model.model_dump(mode="json", by_alias=True, exclude={"slo", "limits", "name"})
