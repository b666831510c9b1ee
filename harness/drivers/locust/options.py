"""Locust in a run: options of its process, and the loads that it sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import UsageError
from harness.scenario.loads import Load
from harness.scenario.model import Scenario

LOOPBACK_BIND = ("127.0.0.1", 5557)
"""Default address for workers."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of Locust's process.

    Attributes:
        expect_workers: Number of workers; 0: send the load from this process.
        patience_s: Longest wait for workers.
        page: Show Locust's web page.
        more: Workers wait for another trial.
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
    """Return `Options` as JSON. bind: address for workers.

    Raises UsageError for options that no load of the run needs.
    """
    if not any(load.driver == "locust" for load in all_loads(scenario)):
        for given, option in ((expect_workers, "--expect-workers"), (web, "--web")):
            if given:
                raise UsageError(f"{option} is for loads that Locust sends; add --driver locust")
    if bind != LOOPBACK_BIND and not expect_workers:
        raise UsageError("--master-bind-host and --master-bind-port are where workers connect; add --expect-workers N")
    return asdict(Options(expect_workers, *bind, patience_s=workers_within_s, page=web))


def all_loads(scenario: Scenario) -> list[Load]:
    """Return the loads of a scenario, including those of single engines."""
    return [*scenario.load, *(load for block in scenario.engines for load in block.load or ())]


def driven_by(scenario: Scenario, driver: str) -> Scenario:
    """Return the scenario with this driver for all loads."""

    def driven(loads: Sequence[Load]) -> tuple[Load, ...]:
        return tuple(load.model_copy(update={"driver": driver}) for load in loads)

    blocks = [
        block if block.load is None else block.model_copy(update={"load": driven(block.load)})
        for block in scenario.engines
    ]
    return scenario.model_copy(update={"load": driven(scenario.load), "engines": tuple(blocks)})
