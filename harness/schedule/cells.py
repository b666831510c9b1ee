"""What a scenario expands to: cells of trials, and cells that cannot be run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from engines.base import EngineSpec, ModelReference
from harness.scenario.limits import Slo
from harness.scenario.loads import Load
from harness.scenario.metrics_urls import MetricsPage
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
