"""The loads of a cell, each with its name, its seed and what its requests must hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from harness.scenario.limits import override
from harness.scenario.loads import load_names
from harness.scenario.model import Scenario
from harness.schedule.cells import TrialPlan, slug
from harness.schedule.combinations import Combination


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
