"""From a scenario to what will be run: every model x engine x level x variant x repetition, and the loads of each.

A machine warms up and slows down, and a cell finds the caches and temperatures that its predecessor left. So the order
of the cells changes from repetition to repetition. Repetitions come in pairs, the second in the opposite order, which
cancels a steady drift. Over n pairs of n cells (n/2 where n is even) each cell stands equally often at each place and
directly behind each other cell: the rows of a square that is balanced for carry-over (E. J. Williams, 1949). The first
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
from harness.errors import UsageError
from harness.scenario.base import listed, near
from harness.scenario.engines import Variant
from harness.scenario.limits import override
from harness.scenario.loads import load_names
from harness.scenario.metrics_urls import pages_of
from harness.scenario.model import Scenario
from harness.schedule.availability import answers_in_process, refusal, variable_missing
from harness.schedule.cells import Cell, Skip, TrialPlan, last_part, slug
from harness.schedule.combinations import Combination, combinations


def in_run_order(planned: Sequence[Cell | Skip], seed: int) -> list[Cell | Skip]:
    """Cells that stand repetition by repetition, in the order in which they run; skips keep their places."""
    ordered: list[Cell | Skip] = []
    for repetition, group in groupby(planned, key=lambda one: one.repetition):
        entries = list(group)
        cells = [one for one in entries if isinstance(one, Cell)]
        turns = iter([cells[place] for place in places(len(cells), repetition, seed)])
        ordered += [next(turns) if isinstance(one, Cell) else one for one in entries]
    return ordered


def places(count: int, repetition: int, seed: int) -> list[int]:
    """The numbers 0 to count - 1 in the order of this repetition, which counts from 1."""
    pair, backwards = divmod(repetition - 1, 2)
    rows = max(1, count if count % 2 else count // 2)
    others = list(range(1, rows))
    random.Random(seed).shuffle(others)
    row = [0, *others][pair % rows]
    zigzag = [(place + 1) // 2 if place % 2 else (count - place // 2) % count for place in range(count)]
    number_of = {value: number for number, value in enumerate(zigzag)}
    found = [number_of[(value + row) % count] for value in zigzag]
    return found[::-1] if backwards else found


KEYS = {
    "model": "model",
    "engine": "engine",
    "quantization": "level",
    "variant": "variant",
    "repetition": "repetition",
}


def chosen(planned: list[Cell | Skip], only: Mapping[str, str]) -> list[Cell | Skip]:
    """Those that fit a pattern of every key, such as {"quantization": "q4_*|q8_0"}; keys are those of `KEYS`.

    Raises UsageError if none fits, or for an unknown key.
    """
    for key in only:
        if key not in KEYS:
            raise UsageError(f"cells cannot be chosen by `{key}`; {near(key, KEYS)}")
    kept = [cell for cell in planned if all(_fits(cell, key, pattern) for key, pattern in only.items())]
    if not kept:
        wanted = ", ".join(f"{key}={pattern}" for key, pattern in only.items())
        raise UsageError(f"no cell fits {wanted}; there are {', '.join(cell.id for cell in planned)}")
    return kept


def _fits(cell: Cell | Skip, key: str, pattern: str) -> bool:
    value = getattr(cell, KEYS[key])
    return value is not None and any(fnmatchcase(str(value), one.strip()) for one in pattern.split("|"))


def expand(
    scenario: Scenario, *, only: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None
) -> list[Cell | Skip]:
    """Every cell of a scenario in the order in which they run (`in_run_order`); those that cannot run as Skip.

    only: patterns by `model`, `engine`, `quantization`, `variant` or `repetition`, such as {"quantization": "q4_*"};
    a cell stays if it fits all. Numbers and seeds stay those of the whole matrix.
    env: where secrets are looked up by name.
    Raises UsageError if no cell fits, for an unknown key, or if two cells could not be told apart.
    """
    secrets = os.environ if env is None else env
    planned = [
        _cell_or_skip(scenario, one, index, secrets, refusal(scenario, one, engine_spec(one, secrets), secrets))
        for index, one in enumerate(combinations(scenario))
    ]
    kept = planned if not only else chosen(planned, only)
    return kept if scenario.order == "blocks" else in_run_order(kept, scenario.seed)


def cell_at(scenario: Scenario, index: int, env: Mapping[str, str] | None = None) -> Cell | Skip | None:
    """One cell by its number, for a process that was told to run it: whether it can be run here is not asked again,
    but for the environment variables that it needs. None if there is no such cell.
    """
    secrets = os.environ if env is None else env
    every = combinations(scenario)
    if not 0 <= index < len(every):
        return None
    reason = variable_missing(every[index], secrets)
    return _cell_or_skip(scenario, every[index], index, secrets, reason)


def check_runnable(planned: Sequence[Cell | Skip]) -> None:
    """Whether this can be run: raises UsageError with the reasons if every cell is skipped, or one lacks its key."""
    check_variables(planned)
    if not any(isinstance(cell, Cell) for cell in planned):
        reasons = dict.fromkeys(cell.reason for cell in planned if isinstance(cell, Skip))
        raise UsageError(f"nothing of this scenario can be run: {'; '.join(reasons)}")


def check_variables(planned: Sequence[Cell | Skip]) -> None:
    """Raises UsageError if a cell lacks an environment variable: whoever named it meant that cell to run."""
    lacking = [cell for cell in planned if isinstance(cell, Skip) and cell.variable is not None]
    if lacking:
        raise UsageError(f"{lacking[0].id} cannot be run: {lacking[0].reason}; set it, or leave the engine out")


def needs_the_machine(planned: Sequence[Cell | Skip]) -> bool:
    """Whether another run here would disturb this one: not if it only loads servers elsewhere, or a simulation."""
    return any(isinstance(cell, Cell) and cell.scope == "server" and cell.engine != "simulated" for cell in planned)


def _cell_or_skip(
    scenario: Scenario, one: Combination, index: int, secrets: Mapping[str, str], reason: str | None
) -> Cell | Skip:
    level = None if one.level is None else one.level.level
    model, engine = one.model_name, one.block.engine
    cell_id = _cell_id(scenario, one, index)
    if reason is not None:
        variable = next((name for name in one.block.variables() if name not in secrets), None)
        return Skip(index, cell_id, model, engine, level, one.shown_variant, one.repetition, reason, variable)
    spec = engine_spec(one, secrets)
    elsewhere = engine == "http" and not all(is_loopback(url) for url in listed(spec.options.get("url") or ()))
    scope = "client" if elsewhere else "server"
    trials = tuple(trial_plans(scenario, one))
    python = spec.python if spec.python and answers_in_process(engine) else None
    patience_s = max(one.block.start_timeout_s, float(dict(spec.options.get("ready") or {}).get("timeout_s", 0)))
    names = (index, cell_id, model, engine, level, one.shown_variant, one.repetition)
    pages = pages_of(one.block.metrics_urls, scenario.telemetry.metrics_urls)
    return Cell(*names, spec, trials, scope, python, patience_s, pages)


def _cell_id(scenario: Scenario, one: Combination, index: int) -> str:
    model = "" if one.model_name is None else "+".join(last_part(part) for part in one.model_name.split("+"))
    parts = [model, one.block.engine, one.level.level if one.level else "", one.shown_variant or ""]
    parts += [f"r{one.repetition}"] if scenario.repetitions > 1 else []
    return "-".join([f"{index:03d}", *(slug(part) for part in parts if part)])


def engine_spec(one: Combination, secrets: Mapping[str, str]) -> EngineSpec:
    """What the engine of a combination is made from."""
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
        devices=block.devices,
        env=dict(block.env),
        headers={header: secrets[name] for header, name in block.headers_env.items() if name in secrets},
        api_key=None if block.api_key_env is None else secrets.get(block.api_key_env),
    )


def trial_plans(scenario: Scenario, one: Combination) -> Iterator[TrialPlan]:
    """The loads of one cell, in the order of the file."""
    loads = scenario.load if one.block.load is None else one.block.load
    for index, (load, name) in enumerate(zip(loads, load_names(loads), strict=True)):
        slo = scenario.slo.overridden_by(load.slo)
        classes = {
            class_name: each.model_copy(
                update={
                    "workload": scenario.workload.overridden_by(each.workload),
                    "slo": slo.overridden_by(each.slo),
                }
            )
            for class_name, each in (scenario.classes.items() if load.mixes_classes else ())
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


def trial_seed(scenario_seed: int, load_index: int, repetition: int) -> int:
    """The seed of a trial, below 2^63; engine, level and variant are not in it, so that all meet the same requests."""
    digest = hashlib.sha256(f"trial {scenario_seed} {load_index} {repetition}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
