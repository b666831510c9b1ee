"""Mistakes in a scenario that only its engines reveal: wrong options, levels, references and adapters.

Engines are constructed without starting them. An engine that cannot be imported here is not checked; its cells are
skipped with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engines import engine_class
from engines.base import EngineError, EngineSpec, ModelReference, UnknownOption
from engines.dialects import DIALECTS
from engines.dialects import get as dialect_of
from engines.process.placeholders import MODEL, labels_in, names_in
from harness.errors import Problem
from harness.scenario.base import near
from harness.scenario.engines import EngineBlock, Level, Variant
from harness.scenario.model import Scenario
from harness.scenario.quality import Reference
from harness.scenario.workload import TrafficClass


def engine_problems(scenario: Scenario) -> list[Problem]:
    """Return wrong options, adapters and references, each with its key."""
    model = ModelReference(scenario.model[0].name) if scenario.model else None
    options = [problem for number, block in enumerate(scenario.engines) for problem in _of_block(block, number, model)]
    added = [*_class_problems(scenario), *_image_problems(scenario)]
    found = [*options, *_command_problems(scenario), *_adapter_problems(scenario)]
    return [*found, *_reference_problems(scenario), *added]


def level_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield each level that its engine lacks; a run skips such a cell."""
    for number, block in enumerate(scenario.engines):
        for place, level in enumerate(block.quantization):
            if (why := lacking_level(block, level)) is not None:
                yield Problem(why, f"engines.{number}.quantization.{place}")


def without_effect(scenario: Scenario) -> Iterator[str]:
    """Yield a sentence for each engine whose dialect generates no tokens: some keys of the workload mean nothing."""
    for number, block in enumerate(scenario.engines):
        dialect = block.http_options().get("dialect")
        if dialect in DIALECTS and not dialect_of(dialect).generates:
            what = f"engines.{number}: {dialect} generates no tokens"
            yield f"{what}, so `output_tokens`, `sampling` and `stream` have no effect"


def lacking_level(block: EngineBlock, level: Level) -> str | None:
    """Return a sentence for a level that the engine lacks or cannot choose, else None."""
    levels = _levels(block)
    if levels and level.level not in levels:
        return f"{block.engine} has no level `{level.level}`; {near(level.level, levels)}"
    if block.engine == "http" and level.model is None:
        why = "engine `http` cannot set the quantization level of an external server"
        return f"{why}; remove `quantization`, or give each level its own `model`"
    return None


def _of_block(block: EngineBlock, number: int, model: ModelReference | None) -> Iterator[Problem]:
    try:
        kind = engine_class(block.engine)
    except EngineError:
        return
    own = next((level.model for level in block.quantization if level.model), None)
    model = model or (ModelReference(own) if own else None)
    for name, variant in (block.variants or {"": Variant()}).items():
        merged = variant.merged_options()
        try:
            kind(EngineSpec(block.engine, model, options={**block.options, **block.http_options(), **merged}))
        except EngineError as error:
            key = f"engines.{number}.variants.{name}" if merged else f"engines.{number}.options"
            yield _of_options(error, key)


def _of_options(error: EngineError, key: str) -> Problem:
    """Return the problem of an engine with its options, which may hold a key of the block itself."""
    if isinstance(error, UnknownOption) and error.name in EngineBlock.known_keys():
        return Problem(f"`{error.name}` is no option; write it beside `engine`, in the block", f"{key}.{error.name}")
    return Problem(str(error), key)


def _command_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield each command that names a label, or a model, that the scenario lacks."""
    for number, block in enumerate(scenario.engines):
        has_model = scenario.model or any(level.model for level in block.quantization)
        commands = {"command": block.command, "stop": block.stop}
        for name, variant in block.variants.items():
            commands |= {f"variants.{name}.command": variant.command, f"variants.{name}.stop": variant.stop}
        for key, command in commands.items():
            place = f"engines.{number}.{key}"
            if command is not None and MODEL in names_in(command) and not has_model:
                yield Problem("contains `{model}`, and the scenario names none; add `model`", place)
            for label in dict.fromkeys(labels_in(command or "")):
                if not scenario.labels.get(label):
                    why = f"contains `{{label.{label}}}`, which is not set; add --label {label}=VALUE, or `labels`"
                    yield Problem(why, place)


def _levels(block: EngineBlock) -> tuple[str, ...]:
    """Return the levels of an engine; () if the server decides them, or the engine cannot be imported."""
    try:
        return tuple(engine_class(block.engine).levels())
    except EngineError:
        return ()


def _adapter_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield the adapters that do not exist; a name such as `org/adapter` may be a hub id."""
    for number, model in enumerate(scenario.model):
        if model.lora is None:
            continue
        path = Path(model.lora).expanduser()
        for engine in dict.fromkeys(block.engine for block in scenario.engines):
            if (why := _wrong_adapter(engine, model.lora, path)) is not None:
                yield Problem(why, f"model.{number}.lora")


def _wrong_adapter(engine: str, name: str, path: Path) -> str | None:
    try:
        suffix = getattr(engine_class(engine), "adapter_suffix", None)
    except EngineError:
        return None
    may_be_hub_id = suffix is None and name.count("/") == 1 and not name.startswith((".", "~"))
    if not path.exists():
        return None if may_be_hub_id else f"there is no adapter `{name}`; correct the path, it counts from {Path.cwd()}"
    if suffix is not None and path.suffix != suffix:
        return f"{engine} takes a `{suffix}` file, not `{name}`; convert it with llama.cpp's convert_lora_to_gguf.py"
    return None


def _class_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield what classes add to requests and an engine cannot carry."""
    for name, one in scenario.classes.items():
        for block in scenario.engines if one.on_the_wire else ():
            if (why := _not_carried(block, one)) is not None:
                key = next(key for key in ("request", "headers", "served_model") if getattr(one, key) is not None)
                yield Problem(why, f"classes.{name}.{key}")
                break


def _not_carried(block: EngineBlock, one: TrafficClass) -> str | None:
    try:
        if hasattr(engine_class(block.engine), "generate"):
            return f"{block.engine} has no requests with a model, headers and a body; leave it out"
    except EngineError:
        return None
    from engines.http.engine import DEFAULT_DIALECT  # asyncio is heavy, and `harness list` does not need it

    for options in [variant.merged_options() for variant in block.variants.values()] or [{}]:
        given = {**block.http_options(), **options}
        request = {**given.get("request", {}), **(one.request or {})}
        try:
            dialect_of(given.get("dialect", DEFAULT_DIALECT), request, given.get("rename"))
        except (EngineError, ValueError) as error:
            return str(error)
    return None


def _image_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield the images that an engine cannot be sent."""
    parts = {"workload": scenario.workload}
    parts |= {f"classes.{name}.workload": one.workload for name, one in scenario.classes.items() if one.workload}
    without = next(filter(None, map(_imageless, scenario.engines)), None)
    for key, workload in parts.items() if without is not None else ():
        if workload.images is not None:
            yield Problem(
                f"{without}; leave it out, or write `engine: http` with `dialect: openai-chat`", f"{key}.images"
            )


def _imageless(block: EngineBlock) -> str | None:
    """Return a sentence for an engine that takes no images, else None."""
    if block.engine != "http":
        try:
            return (
                None
                if getattr(engine_class(block.engine), "takes_images", False)
                else f"{block.engine} takes no images"
            )
        except EngineError:
            return None
    from engines.http.engine import DEFAULT_DIALECT  # asyncio is heavy, and `harness list` does not need it

    given = block.http_options()
    options = [variant.merged_options() for variant in block.variants.values()] or [{}]
    named = [{**given, **one}.get("dialect", DEFAULT_DIALECT) for one in options]
    without = [name for name in named if name in DIALECTS and not dialect_of(name).takes_images]
    return f"the dialect {without[0]} carries no images" if without else None


def _reference_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield what the reference of quality names and no engine of the scenario has."""
    wanted = None if scenario.quality is None else scenario.quality.reference
    blocks = [] if wanted is None else [one for one in scenario.engines if wanted.engine in (None, one.engine)]
    if wanted is not None and (why := _wrong_reference(wanted, blocks, scenario)) is not None:
        yield Problem(why, "quality.reference")


def _wrong_reference(wanted: Reference, blocks: list[EngineBlock], scenario: Scenario) -> str | None:
    if not blocks and not any(map(_scores, _engines(scenario))):
        return None  # The results say that these engines cannot be scored.
    if not blocks:
        return f"the scenario has no engine `{wanted.engine}`; {near(str(wanted.engine), _engines(scenario))}"
    variants = [name for block in blocks for name in block.variants]
    if wanted.variant is not None and wanted.variant not in variants:
        hint = near(wanted.variant, variants) if variants else "there are no `variants`"
        return f"no engine has a variant `{wanted.variant}`; {hint}"
    levels = [{*_levels(block), *(one.level for one in block.quantization)} for block in blocks]
    if wanted.quantization is None or not all(levels) or any(wanted.quantization in one for one in levels):
        return None
    return f"no engine has a level `{wanted.quantization}`; {near(wanted.quantization, set().union(*levels))}"


def _scores(engine: str) -> bool:
    try:
        return hasattr(engine_class(engine), "score")
    except EngineError:
        return False


def _engines(scenario: Scenario) -> set[str]:
    return {block.engine for block in scenario.engines}
