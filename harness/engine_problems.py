"""What is wrong with the options of engines, found by making each engine without starting it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engines import engine_class
from engines.base import EngineError, EngineSpec, ModelReference
from harness.errors import Problem

if TYPE_CHECKING:
    from harness.engine_section import EngineBlock
    from harness.scenario import Scenario


def engine_problems(scenario: Scenario) -> list[Problem]:
    """Options that the engines do not know or cannot have, each with its key; an engine that cannot be imported here
    says nothing (its cells are skipped, with the reason).
    """
    model = ModelReference(scenario.model[0].name) if scenario.model else None
    return [problem for number, block in enumerate(scenario.engines) for problem in _of_block(block, number, model)]


def _of_block(block: EngineBlock, number: int, model: ModelReference | None) -> Iterator[Problem]:
    own = next((level.model for level in block.quantization if level.model), None)
    model = model or (ModelReference(own) if own else None)
    shared = {**block.options, **block.http_options()}
    if not block.variants:
        yield from _wrong(block, shared, model, f"engines.{number}.options")
    for name, variant in block.variants.items():
        merged = variant.merged_options()
        key = f"engines.{number}.variants.{name}" if merged else f"engines.{number}.options"
        yield from _wrong(block, {**shared, **merged}, model, key)


def _wrong(block: EngineBlock, options: Mapping[str, Any], model: ModelReference | None, key: str) -> Iterator[Problem]:
    try:
        kind = engine_class(block.engine)
    except EngineError:
        return
    try:
        kind(EngineSpec(block.engine, model, options=options))
    except EngineError as error:
        yield Problem(str(error), key=key)
