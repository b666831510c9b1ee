"""The use of Locust in a run: its options, and the loads that Locust sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import UsageError
from harness.scenario.loads import Load
from harness.scenario.model import Scenario

LOOPBACK_BIND = ("127.0.0.1", 5557)
"""The address for workers unless another is asked for."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of Locust's process.

    expect_workers: 0 to send the load from here.   patience_s: how long workers are waited for.
    page: whether Locust's web page is shown.   more: whether the workers shall wait for another trial.
    """

    expect_workers: int = 0
    bind_host: str = "127.0.0.1"
    bind_port: int = 0
    patience_s: float = 120.0
    page: bool = False
    more: bool = False


def options(
    scenario: Scenario, *, expect_workers: int, web: bool, bind: tuple[str, int], workers_within_s: float
) -> dict[str, Any]:
    """Return `Options` as JSON. bind: where workers connect.

    Raises UsageError for options that no load of the run needs.
    """
    if not any(load.driver == "locust" for load in all_loads(scenario)):
        for asked, option in ((expect_workers, "--expect-workers"), (web, "--web")):
            if asked:
                raise UsageError(f"{option} is for loads that Locust sends; add --driver locust")
    if bind != LOOPBACK_BIND and not expect_workers:
        raise UsageError("--master-bind-host and --master-bind-port are where workers connect; add --expect-workers N")
    return asdict(Options(expect_workers, *bind, patience_s=workers_within_s, page=web))


def all_loads(scenario: Scenario) -> list[Load]:
    """Return the loads of a scenario and those that engines have of their own."""
    return [*scenario.load, *(load for block in scenario.engines for load in block.load or ())]


def driven_by(scenario: Scenario, driver: str) -> Scenario:
    """Return the scenario with all its loads sent by this driver."""

    def driven(loads: Sequence[Load]) -> tuple[Load, ...]:
        return tuple(load.model_copy(update={"driver": driver}) for load in loads)

    blocks = [
        block if block.load is None else block.model_copy(update={"load": driven(block.load)})
        for block in scenario.engines
    ]
    return scenario.model_copy(update={"load": driven(scenario.load), "engines": tuple(blocks)})
