"""From a scenario to what will be run: every model x engine x level x variant x repetition, and the loads of each."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from engines import engine_class
from engines.addresses import is_loopback
from engines.base import EngineError, EngineSpec, ModelReference
from engines.dialects import DIALECTS
from engines.dialects import get as dialect_of
from engines.http import DEFAULT_DIALECT
from harness.engine_section import EngineBlock, Level, ModelEntry, Variant
from harness.errors import UsageError
from harness.limits import override
from harness.loads import Load, Sessions, SingleUser, Slo, Steps, Trace
from harness.scenario import Scenario
from harness.scenario_problems import near
from harness.strict_model import listed
from harness.traffic_section import TrafficClass, Workload


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


@dataclass(frozen=True, slots=True)
class Cell:
    """What is started once. scope: "server" where readings of this machine are the server's, else "client"."""

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


@dataclass(frozen=True, slots=True)
class _Combination:
    block: EngineBlock
    model: ModelEntry | None
    level: Level | None
    variant: str | None
    repetition: int
    place: str | None = None

    @property
    def names(self) -> tuple[str | None, ...]:
        """What tells its results from those of other cells: model, engine, level, variant."""
        level = None if self.level is None else self.level.level
        return self.model_name, self.block.engine, level, self.shown_variant

    @property
    def shown_variant(self) -> str | None:
        """The variant, after the place of its block where that is needed to tell blocks apart."""
        return ".".join(part for part in (self.place, self.variant) if part) or None

    @property
    def reference(self) -> ModelReference | None:
        """The model to load: the level's own where it has one."""
        if self.level is not None and self.level.model is not None:
            return ModelReference(self.level.model)
        return None if self.model is None else ModelReference(self.model.name, self.model.revision)

    @property
    def model_name(self) -> str | None:
        """The model as the scenario names it, whatever checkpoint a level has."""
        if self.model is not None:
            return self.model.name
        return None if self.reference is None else self.reference.name


_LONGEST_SLUG = 40
_ONLY = {
    "model": "model",
    "engine": "engine",
    "quantization": "level",
    "variant": "variant",
    "repetition": "repetition",
}


def expand(
    scenario: Scenario, *, only: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None
) -> list[Cell | Skip]:
    """Every cell of a scenario in the order in which they run; those that cannot run as Skip.

    only: patterns by `model`, `engine`, `quantization`, `variant` or `repetition`, such as {"quantization": "q4_*"};
    a cell stays if it fits all. Numbers and seeds stay those of the whole matrix.
    env: where secrets are looked up by name.
    Raises UsageError if no cell fits, for an unknown key, or if two cells could not be told apart.
    """
    secrets = os.environ if env is None else env
    combinations = _told_apart(scenario, _combinations(scenario))
    planned = [_cell_or_skip(scenario, one, index, secrets) for index, one in enumerate(combinations)]
    return planned if not only else _chosen(planned, only)


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
    contents = _file_hashes(plan)
    facts |= {"files": contents} if contents else {}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def trial_seed(scenario_seed: int, load_index: int, repetition: int) -> int:
    """The seed of a trial, below 2^63; engine, level and variant are not in it, so that all meet the same requests."""
    digest = hashlib.sha256(f"trial {scenario_seed} {load_index} {repetition}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def check_runnable(planned: Sequence[Cell | Skip]) -> None:
    """Whether this can be run: raises UsageError with the reasons if every cell is skipped, or one lacks its key."""
    lacking = [cell for cell in planned if isinstance(cell, Skip) and cell.variable is not None]
    if lacking:
        raise UsageError(f"{lacking[0].id} cannot be run: {lacking[0].reason}; set it, or leave the engine out")
    if not any(isinstance(cell, Cell) for cell in planned):
        reasons = dict.fromkeys(cell.reason for cell in planned if isinstance(cell, Skip))
        raise UsageError(f"nothing of this scenario can be run: {'; '.join(reasons)}")


def needs_the_machine(planned: Sequence[Cell | Skip]) -> bool:
    """Whether another run here would disturb this one: not if it only loads servers elsewhere, or a simulation."""
    return any(isinstance(cell, Cell) and cell.scope == "server" and cell.engine != "simulated" for cell in planned)


def slug(text: str) -> str:
    """A text as part of a folder's name, of which file systems allow no more than 255 characters in all."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text)[:_LONGEST_SLUG].strip("-.") or "x"


def _combinations(scenario: Scenario) -> list[_Combination]:
    models: tuple[ModelEntry | None, ...] = scenario.model or (None,)
    cells = [
        (block, model, level, variant)
        for model, block in itertools.product(models, scenario.engines)
        for level in (block.quantization or (None,))
        for variant in (block.variants or (None,))
    ]
    repetitions = range(1, scenario.repetitions + 1)
    if scenario.order == "blocks":
        return [_Combination(*cell, repetition) for cell in cells for repetition in repetitions]
    return [_Combination(*cell, repetition) for repetition in repetitions for cell in cells]


def _told_apart(scenario: Scenario, combinations: list[_Combination]) -> list[_Combination]:
    """The same, where blocks of one engine are called by their place if nothing else distinguishes their cells: under
    one name they would be taken for repetitions of each other.
    """
    blocks: dict[tuple[str | None, ...], list[EngineBlock]] = {}
    for one in combinations:
        blocks.setdefault(one.names, []).append(one.block)
    places = {id(block): f"engines.{number}" for number, block in enumerate(scenario.engines)}
    several = {names for names, found in blocks.items() if len({id(block) for block in found}) > 1}
    told = [replace(one, place=places[id(one.block)]) if one.names in several else one for one in combinations]
    for names, times in Counter((*one.names, one.repetition) for one in told).items():
        if times > 1:
            name = ", ".join(str(part) for part in names[:-1] if part)
            raise UsageError(f"the scenario holds {name} {times} times; name each once, and repeat with `repetitions`")
    return told


def _cell_or_skip(scenario: Scenario, one: _Combination, index: int, secrets: Mapping[str, str]) -> Cell | Skip:
    level = None if one.level is None else one.level.level
    model, engine = one.model_name, one.block.engine
    cell_id = _cell_id(scenario, one, index)
    spec = _engine_spec(one, secrets)
    reason = _cannot(one, spec, secrets) or _no_priority(scenario, one.block, spec) or _no_wire(scenario, one.block)
    if reason is not None:
        variable = next((name for name in one.block.variables() if name not in secrets), None)
        return Skip(index, cell_id, model, engine, level, one.shown_variant, one.repetition, reason, variable)
    elsewhere = engine == "http" and not all(is_loopback(url) for url in listed(spec.options.get("url") or ()))
    scope = "client" if elsewhere else "server"
    trials = tuple(_trials(scenario, one))
    return Cell(index, cell_id, model, engine, level, one.shown_variant, one.repetition, spec, trials, scope)


def _cell_id(scenario: Scenario, one: _Combination, index: int) -> str:
    model = "" if one.model_name is None else one.model_name.rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    parts = [model, one.block.engine, one.level.level if one.level else "", one.shown_variant or ""]
    parts += [f"r{one.repetition}"] if scenario.repetitions > 1 else []
    return "-".join([f"{index:03d}", *(slug(part) for part in parts if part)])


def _engine_spec(one: _Combination, secrets: Mapping[str, str]) -> EngineSpec:
    block = one.block
    variant = Variant() if one.variant is None else block.variants[one.variant]
    options: dict[str, Any] = {**block.options, **block.http_options(), **variant.merged_options()}
    # A variant that says where the server is replaces whatever the block says about it.
    if variant.url is not None:
        options.pop("command", None)
    elif variant.command is not None:
        options.pop("url", None)
    return EngineSpec(
        engine=block.engine,
        model=one.reference,
        level=None if one.level is None else one.level.level,
        options=options,
        python=None if block.python is None else os.path.expanduser(block.python),
        env=dict(block.env),
        headers={header: secrets[name] for header, name in block.headers_env.items() if name in secrets},
        api_key=None if block.api_key_env is None else secrets.get(block.api_key_env),
    )


def _cannot(one: _Combination, spec: EngineSpec, secrets: Mapping[str, str]) -> str | None:
    """Why a cell cannot run; None where nothing speaks against it."""
    block = one.block
    for name in block.variables():
        if name not in secrets:
            return f"the environment variable {name}, which the scenario names, is not set"
    try:
        levels = engine_class(block.engine).levels()
    except EngineError as error:
        return str(error)
    if one.level is None:
        return None
    if levels and one.level.level not in levels:
        return f"{block.engine} has no level `{one.level.level}`; {near(one.level.level, levels)}"
    if block.engine == "http" and one.level.model is None:
        return (
            f"whoever starts the server decides its level, so `{one.level.level}` would change nothing; "
            "leave `quantization` out, or give each level a `model` of its own"
        )
    return None


def _no_priority(scenario: Scenario, block: EngineBlock, spec: EngineSpec) -> str | None:
    """Why the classes cannot have their priorities; None where they have none, or the server can be told."""
    loads = scenario.load if block.load is None else block.load
    named = [name for name, one in scenario.classes.items() if one.priority is not None]
    if not named or not any(load.kind == "mixed" for load in loads):
        return None
    if block.engine == "http":
        dialect = str(spec.options.get("dialect", DEFAULT_DIALECT))
        if dialect not in DIALECTS or getattr(dialect_of(dialect), "takes_priority", False):
            return None
    return f"{block.engine} takes no priority with a request; leave `classes.{named[0]}.priority` out"


def _no_wire(scenario: Scenario, block: EngineBlock) -> str | None:
    """Why neither Locust nor several processes can send the load; None where they need not, or where they can."""
    loads = scenario.load if block.load is None else block.load
    if any(load.driver == "locust" for load in loads) and hasattr(engine_class(block.engine), "generate"):
        return f"{block.engine} answers inside the client's process, where Locust cannot run: leave out `driver`"
    several = next((load.workers for load in loads if load.workers not in ("auto", 1)), None)
    if several and hasattr(engine_class(block.engine), "generate"):
        return f"{block.engine} answers inside the client's process, which cannot be {several}: leave out `workers`"
    return None


def _priority(one: TrafficClass) -> list[int]:
    return [] if one.priority is None else [one.priority]


def _trials(scenario: Scenario, one: _Combination) -> Iterator[TrialPlan]:
    loads = scenario.load if one.block.load is None else one.block.load
    for index, (load, name) in enumerate(zip(loads, _names(loads), strict=True)):
        slo = scenario.slo.overridden_by(load.slo)
        classes = {
            class_name: each.model_copy(
                update={
                    "workload": scenario.workload.overridden_by(each.workload),
                    "slo": slo.overridden_by(each.slo),
                }
            )
            for class_name, each in (scenario.classes.items() if load.kind == "mixed" else ())
        }
        yield TrialPlan(
            index=index,
            id=f"{index:03d}-{slug(name)}",
            name=name,
            load=load,
            workload=scenario.workload,
            classes=classes,
            slo=slo,
            limits=override(scenario.limits, load.limits),
            seed=trial_seed(scenario.seed, index, one.repetition),
        )


def _file_hashes(plan: TrialPlan) -> dict[str, str | None]:
    """SHA-256 of the files that give prompts and traces; None for one that is no longer there."""
    workloads = [plan.workload, *(one.workload for one in plan.classes.values() if one.workload is not None)]
    paths = [one.prompts for one in workloads if one.prompts is not None]
    paths += [plan.load.file] if isinstance(plan.load, Trace) else []
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None for path in paths}


def _names(loads: Sequence[Load]) -> list[str]:
    """A name for each load, no two alike: its own, or its kind with what tells it from others of that kind."""
    kinds = [load.kind for load in loads]
    wanted = [load.name or (load.kind if kinds.count(load.kind) == 1 else _telling_name(load)) for load in loads]
    names: list[str] = []
    for name in wanted:
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        names.append(next(one for one in candidates if one not in names))
    return names


def _telling_name(load: Load) -> str:
    if isinstance(load, SingleUser | Steps | Trace):
        return load.kind
    if isinstance(load, Sessions):
        return f"sessions-rate-{load.rate:g}" + ("" if load.cv is None else f"-cv-{load.cv:g}")
    uneven = "" if load.cv is None else f"-cv-{load.cv:g}"
    if load.kind == "burst":
        return f"burst-{load.burst_rate:g}{uneven}" if load.burst_rate is not None else "burst-spike"
    return f"{load.kind}-rate-{load.rate:g}{uneven}" if load.rate is not None else f"{load.kind}-users-{load.users}"


def _chosen(planned: list[Cell | Skip], only: Mapping[str, str]) -> list[Cell | Skip]:
    for key in only:
        if key not in _ONLY:
            raise UsageError(f"cells cannot be chosen by `{key}`; {near(key, _ONLY)}")
    kept = [cell for cell in planned if all(_fits(cell, key, pattern) for key, pattern in only.items())]
    if not kept:
        wanted = ", ".join(f"{key}={pattern}" for key, pattern in only.items())
        raise UsageError(f"no cell fits {wanted}; there are {', '.join(cell.id for cell in planned)}")
    return kept


def _fits(cell: Cell | Skip, key: str, pattern: str) -> bool:
    value = getattr(cell, _ONLY[key])
    return value is not None and fnmatchcase(str(value), pattern)


def _json(model: Any) -> Any:
    return None if model is None else model.model_dump(mode="json", by_alias=True, exclude={"slo", "limits", "name"})
