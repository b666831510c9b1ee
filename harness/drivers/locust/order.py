"""What a trial under Locust is told, and what its process works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.drivers.base import Control
from harness.drivers.progress import Progress
from harness.drivers.workers.part import PartSpec
from harness.errors import UsageError
from harness.processes import Emit
from harness.scenario.loads import Load
from harness.scenario.model import Scenario
from harness.schedule.requests import Schedule


@dataclass(frozen=True, slots=True)
class Order:
    """What the cell's child asks for.

    part: a `PartSpec` as JSON.   headers: of every request; may hold secrets.   folder: the trial's.
    expect_workers: 0 to send the load from here.   patience_s: how long workers are waited for.
    page: whether Locust's web page is shown.   more: whether the workers shall wait for another trial.
    """

    part: Mapping[str, Any]
    folder: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    expect_workers: int = 0
    bind_host: str = "127.0.0.1"
    bind_port: int = 0
    patience_s: float = 120.0
    page: bool = False
    more: bool = False


@dataclass(slots=True)
class Work:
    """What a trial under Locust needs, alone or with workers. begun: whether requests fall due.

    flush: stores the rows that have waited long enough.
    """

    order: Order
    part: PartSpec
    schedule: Schedule
    progress: Progress
    control: Control
    emit: Emit
    begun: bool = False
    flush: Callable[[], None] = lambda: None

    @property
    def folder(self) -> Path:
        """Where the records go."""
        return Path(self.order.folder)


LOOPBACK_BIND = ("127.0.0.1", 5557)
"""Where workers connect unless something else is asked for."""


def options(
    scenario: Scenario, *, expect_workers: int, web: bool, bind: tuple[str, int], workers_within_s: float
) -> dict[str, Any]:
    """How Locust is used in a run, as `Order` has it; bind: where workers connect.

    Raises UsageError for options that no load of the run needs.
    """
    if not any(load.driver == "locust" for load in all_loads(scenario)):
        for asked, option in ((expect_workers, "--expect-workers"), (web, "--web")):
            if asked:
                raise UsageError(f"{option} is for loads that Locust sends; add --driver locust")
    if bind != LOOPBACK_BIND and not expect_workers:
        raise UsageError("--master-bind-host and --master-bind-port are where workers connect; add --expect-workers N")
    return {
        "expect_workers": expect_workers,
        "bind_host": bind[0],
        "bind_port": bind[1],
        "patience_s": workers_within_s,
        "page": web,
    }


def all_loads(scenario: Scenario) -> list[Load]:
    """The loads of a scenario and those that engines have of their own."""
    return [*scenario.load, *(load for block in scenario.engines for load in block.load or ())]


def driven_by(scenario: Scenario, driver: str) -> Scenario:
    """The same scenario, all its loads sent by this driver."""

    def driven(loads: Sequence[Load]) -> tuple[Load, ...]:
        return tuple(load.model_copy(update={"driver": driver}) for load in loads)

    blocks = [
        block if block.load is None else block.model_copy(update={"load": driven(block.load)})
        for block in scenario.engines
    ]
    return scenario.model_copy(update={"load": driven(scenario.load), "engines": tuple(blocks)})
