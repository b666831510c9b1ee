"""Locust in a run: options of its process, and the loads that it sends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.drivers.locust.seals import check_exposed
from harness.errors import UsageError
from harness.scenario.loads.kinds import Load
from harness.scenario.model import Scenario

LOOPBACK_BIND = ("127.0.0.1", 5557)  # default address for workers
MASTER_SILENT_S = 10.0  # longest silence of the master before a worker exits


@dataclass(frozen=True, slots=True)
class Options:
    """Options of Locust's process."""

    expect_workers: int = 0  # 0: send the load from this process
    bind_host: str = "127.0.0.1"
    bind_port: int = 0
    patience_s: float = 120.0  # longest wait for workers
    page: bool = False  # show Locust's web page
    more: bool = False  # another trial follows for the workers


def options(
    scenario: Scenario, *, expect_workers: int, web: bool, bind: tuple[str, int], workers_within_s: float
) -> dict[str, Any]:
    """Return `Options` as JSON. Raises UsageError for options that no load of the run needs, and for a divided cap.

    Raises it too if workers would connect from elsewhere without a shared secret.
    """
    loads = [*scenario.load, *(load for block in scenario.engines for load in block.load or ())]
    if not any(load.driver == "locust" for load in loads):
        for given, option in ((expect_workers, "--expect-workers"), (web, "--web")):
            if given:
                raise UsageError(f"{option} is for loads that Locust sends; add --driver locust")
    if bind != LOOPBACK_BIND and not expect_workers:
        raise UsageError("--master-bind-host and --master-bind-port are where workers connect; add --expect-workers N")
    if expect_workers and any(load.driver == "locust" and load.cap is not None for load in loads):
        raise UsageError("`max_concurrency` is kept by one process; leave --expect-workers or `max_concurrency` out")
    if expect_workers:
        check_exposed(bind[0], "--master-bind-host", os.environ)
    return asdict(Options(expect_workers, *bind, patience_s=workers_within_s, page=web))


def driven_by(scenario: Scenario, driver: str) -> Scenario:
    """Return the scenario with this driver for all loads."""

    def driven(loads: Sequence[Load]) -> tuple[Load, ...]:
        return tuple(load.model_copy(update={"driver": driver}) for load in loads)

    blocks = (one.model_copy(update={"load": driven(one.load)}) if one.load else one for one in scenario.engines)
    return scenario.model_copy(update={"load": driven(scenario.load), "engines": tuple(blocks)})
