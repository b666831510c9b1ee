"""Matrix of a scenario: every model x engine x level x variant x repetition, with the loads of each.

The speed of a machine drifts, and each cell inherits the caches and temperatures of the cell before it. Therefore the
order of the cells changes from repetition to repetition. Repetitions come in pairs. The second has the opposite order,
which cancels a steady drift. Over n pairs of n cells (n/2 for even n), each cell has each position equally often, and
follows each other cell equally often: the rows of a square balanced for carry-over (E. J. Williams, 1949). The first
row is the order of the file; the seed shuffles the others.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from engines.base import EngineSpec
from engines.http.addresses import is_loopback
from engines.secrets import hide, hide_environment
from harness.errors import UsageError
from harness.scenario.base import listed, near
from harness.scenario.engines import Variant
from harness.scenario.limits import override, parse_limit
from harness.scenario.loads.kinds import Load, load_names
from harness.scenario.metrics_urls import pages_of
from harness.scenario.model import Scenario
from harness.schedule.availability import answers_in_process, lacking_variable, refusal, variable_missing
from harness.schedule.cells import Cell, Combination, Skip, TrialPlan, combinations, last_part, slug


def in_run_order(planned: Sequence[Cell | Skip], seed: int) -> list[Cell | Skip]:
    """Return cells, which are sorted by repetition, in the order in which they run; skips keep their places."""
    ordered: list[Cell | Skip] = []
    for repetition, group in groupby(planned, key=lambda one: one.repetition):
        entries = list(group)
        cells = [one for one in entries if isinstance(one, Cell)]
        turns = iter([cells[place] for place in places(len(cells), repetition, seed)])
        ordered += [next(turns) if isinstance(one, Cell) else one for one in entries]
    return ordered


def places(count: int, repetition: int, seed: int) -> list[int]:
    """Return the numbers 0 to count - 1 in the order of a repetition, which counts from 1."""
    pair, backwards = divmod(repetition - 1, 2)
    rows = max(1, count if count % 2 else count // 2)
    others = list(range(1, rows))
    random.Random(seed).shuffle(others)
    row = [0, *others][pair % rows]
    zigzag = [(place + 1) // 2 if place % 2 else (count - place // 2) % count for place in range(count)]
    number_of = {value: number for number, value in enumerate(zigzag)}
    found = [number_of[(value + row) % count] for value in zigzag]
    return found[::-1] if backwards else found


KEYS = {"model": "model", "engine": "engine", "quantization": "level", "variant": "variant", "repetition": "repetition"}


def chosen(planned: list[Cell | Skip], only: Mapping[str, str]) -> list[Cell | Skip]:
    """Return the cells that match all patterns, such as {"quantization": "q4_*|q8_0"}; the keys are those of `KEYS`.

    Raises:
        UsageError: A key is unknown, or no cell matches.
    """
    for key in only:
        if key not in KEYS:
            raise UsageError(f"configurations cannot be selected by `{key}`; {near(key, KEYS)}")
    kept = [cell for cell in planned if all(_matches(cell, key, pattern) for key, pattern in only.items())]
    if not kept:
        wanted = ", ".join(f"{key}={pattern}" for key, pattern in only.items())
        raise UsageError(f"no configuration matches {wanted}; known are {', '.join(cell.id for cell in planned)}")
    return kept


def _matches(cell: Cell | Skip, key: str, pattern: str) -> bool:
    value = getattr(cell, KEYS[key])
    return value is not None and any(fnmatchcase(str(value).lower(), one.strip().lower()) for one in pattern.split("|"))


def expand(
    scenario: Scenario, *, only: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None
) -> list[Cell | Skip]:
    """Return every cell of a scenario in run order (`in_run_order`); cells that cannot run are `Skip`.

    Args:
        only: Patterns of `chosen`. The cells keep the numbers and seeds of the whole matrix.
        env: Environment variables of secrets.

    Raises:
        UsageError: No cell matches, a key of `only` is unknown, or two cells have the same names.
    """
    secrets = os.environ if env is None else env
    planned = [
        _cell_or_skip(
            scenario, one, index, secrets, refusal(scenario, one, engine_spec(one, secrets, scenario.labels), secrets)
        )
        for index, one in enumerate(combinations(scenario))
    ]
    kept = planned if not only else chosen(planned, only)
    return kept if scenario.order == "blocks" else in_run_order(kept, scenario.seed)


def cell_at(scenario: Scenario, index: int, env: Mapping[str, str] | None = None) -> Cell | Skip | None:
    """Return a cell by its number, for the process that runs it; only environment variables are checked again."""
    secrets = os.environ if env is None else env
    every = combinations(scenario)
    if not 0 <= index < len(every):
        return None
    return _cell_or_skip(scenario, every[index], index, secrets, variable_missing(every[index], secrets))


def check_runnable(planned: Sequence[Cell | Skip]) -> None:
    """Raise UsageError with the reasons if every cell is skipped, or a cell lacks an environment variable."""
    check_variables(planned)
    reasons = dict.fromkeys(cell.reason for cell in planned if isinstance(cell, Skip))
    if not any(isinstance(cell, Cell) for cell in planned):
        raise UsageError(f"no configuration of this scenario can be run: {'; '.join(reasons)}")


def check_variables(planned: Sequence[Cell | Skip]) -> None:
    """Raise UsageError if a cell lacks an environment variable that the scenario names."""
    lacking = [cell for cell in planned if isinstance(cell, Skip) and cell.variable is not None]
    if lacking:
        raise UsageError(f"{lacking[0].id} cannot be run: {lacking[0].reason}; set it, or remove the engine")


def needs_the_machine(planned: Sequence[Cell | Skip]) -> bool:
    """Return True if another run would disturb this one: a cell serves on this machine and is not simulated."""
    return any(isinstance(cell, Cell) and cell.scope == "server" and cell.engine != "simulated" for cell in planned)


def _cell_or_skip(
    scenario: Scenario, one: Combination, index: int, secrets: Mapping[str, str], reason: str | None
) -> Cell | Skip:
    names = (index, _cell_id(scenario, one, index), *one.names, one.repetition)
    if reason is not None:
        return Skip(*names, reason, lacking_variable(one, secrets))
    engine, spec = one.block.engine, engine_spec(one, secrets, scenario.labels)
    elsewhere = engine == "http" and not all(is_loopback(url) for url in listed(spec.options.get("url") or ()))
    python = spec.python if spec.python and answers_in_process(engine) else None
    timeout_s = max(one.block.start_timeout_s, float(dict(spec.options.get("ready") or {}).get("timeout_s", 0)))
    pages = pages_of(one.block.metrics_urls, scenario.telemetry.metrics_urls)
    scope = "client" if elsewhere else "server"
    trials = tuple(trial_plans(scenario, one))
    return Cell(*names, spec, trials, scope, python, timeout_s, pages, named=one.named)


def _cell_id(scenario: Scenario, one: Combination, index: int) -> str:
    model = "+".join(last_part(part) for part in (one.model_name or "").split("+"))
    parts = [model, *one.names[1:], f"r{one.repetition}" if scenario.repetitions > 1 else None]
    return "-".join([f"{index:03d}", *(slug(part) for part in parts if part)])


def engine_spec(one: Combination, secrets: Mapping[str, str], labels: Mapping[str, str]) -> EngineSpec:
    """Return the specification of a combination's engine. Its secrets, which are read here, are hidden."""
    block = one.block
    headers = {header: secrets[name] for header, name in block.headers_env.items() if secrets.get(name)}
    api_key = None if block.api_key_env is None else secrets.get(block.api_key_env) or None
    hide(api_key, *headers.values())
    hide_environment(block.env)
    variant = Variant() if one.variant is None else block.variants[one.variant]
    options: dict[str, Any] = {**block.options, **block.http_options(), **variant.merged_options()}
    # The server of a variant replaces that of the block.
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
        devices=block.devices,
        env=dict(block.env),
        headers=headers,
        api_key=api_key,
        labels=dict(labels),
    )


def trial_plans(scenario: Scenario, one: Combination) -> Iterator[TrialPlan]:
    """Yield the trials of a cell in the order of the file."""
    loads = scenario.load if one.block.load is None else one.block.load
    for index, (load, name) in enumerate(zip(loads, load_names(loads), strict=True)):
        slo, classes = scenario.slo.overridden_by(load.slo), {}
        for class_name, each in scenario.classes.items() if load.mixes_classes else ():
            whole = {"workload": scenario.workload.overridden_by(each.workload), "slo": slo.overridden_by(each.slo)}
            classes[class_name] = each.model_copy(update=whole)
        yield TrialPlan(
            index=index,
            id=f"{index:03d}-{slug(name)}",
            name=name,
            load=load,
            workload=load.workload_of(scenario.workload),
            classes=classes,
            slo=slo,
            limits=_limits_of(scenario, load),
            seed=trial_seed(scenario.seed, index, one.repetition),
        )


def _limits_of(scenario: Scenario, load: Load) -> tuple[str, ...]:
    """Return the limits of a load, without those on classes that it lacks."""
    absent = set() if load.mixes_classes else set(scenario.classes)
    return tuple(text for text in override(scenario.limits, load.limits) if parse_limit(text).class_name not in absent)


def trial_seed(scenario_seed: int, load_index: int, repetition: int) -> int:
    """Return the seed of a trial, below 2^63; all engines, levels and variants get the same requests."""
    digest = hashlib.sha256(f"trial {scenario_seed} {load_index} {repetition}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
