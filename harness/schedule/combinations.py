"""Every model x engine x level x variant x repetition of a scenario, with unique names."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, replace

from engines.base import ModelReference
from harness.errors import UsageError
from harness.scenario.engines import EngineBlock, Level, ModelEntry
from harness.scenario.model import Scenario
from harness.schedule.cells import last_part


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
        return None if self.model is None else ModelReference(self.model.name, self.model.revision, lora)

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
