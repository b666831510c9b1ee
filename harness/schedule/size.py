"""How much memory a plan takes, asked before it is made: one that does not fit would take the machine with it."""

from __future__ import annotations

from engines.cores import usable_cores
from harness.scenario.loads import Trace
from harness.schedule.cells import TrialPlan
from harness.schedule.estimate import all_requests
from harness.telemetry.cgroup import free_memory_bytes
from harness.units import format_bytes

BYTES_PER_REQUEST = 128  # at most, while it is made; tests/harness/schedule/test_size.py measures it
BYTES_PER_USER = 2048
BYTES_PER_BYTE_OF_A_TRACE = 16
SHARE_OF_FREE_MEMORY = 0.5


def plan_too_large(plan: TrialPlan, plans: int = 1, free_bytes: int | None = None) -> str | None:
    """Why a plan cannot be made here, in one sentence; None where it can.

    plans: how many processes make it.   free_bytes: None: what is free on this machine.
    """
    free_bytes = free_memory_bytes() if free_bytes is None else free_bytes
    allowed = int(free_bytes * SHARE_OF_FREE_MEMORY / plans)
    needed, what, instead = _needed(plan, allowed)
    if needed <= allowed:
        return None
    shared = "" if plans == 1 else f", shared by {plans} processes"
    return (
        f"{what} need about {format_bytes(needed)} of memory, and {format_bytes(allowed)} may be used for a plan (half "
        f"of what is free here{shared}): {instead}"
    )


def processes_of(plan: TrialPlan, *, served: bool) -> int:
    """How many processes of this machine make a plan. served: the engine is behind a socket."""
    if not served:
        return 1
    if plan.load.driver == "locust":
        return 2
    workers = usable_cores() - 1 if plan.load.workers == "auto" else int(plan.load.workers)
    return 1 if workers <= 1 else 1 + workers


def _needed(plan: TrialPlan, allowed: int) -> tuple[float, str, str]:
    """Bytes, what needs them, and what to write instead."""
    load = plan.load
    if isinstance(load, Trace):
        size = load.file.stat().st_size if load.file.exists() else 0
        return float(size * BYTES_PER_BYTE_OF_A_TRACE), f"the requests of {load.file}", "write a part of them into it"
    users = load.user_count
    if users is not None:  # their requests are made as they go on
        return float(users * BYTES_PER_USER), f"{users:,} users", f"write {_rounded(allowed // BYTES_PER_USER)} at most"
    most = all_requests(plan).high or 0.0
    fewer = f"lower the rate, or shorten the load, until there are {_rounded(allowed // BYTES_PER_REQUEST)} at most"
    number = f"{most:,.0f}" if most < 1e15 else f"{most:.2g}"
    return most * BYTES_PER_REQUEST, f"about {number} planned requests", fewer


def _rounded(number: int) -> str:
    """Down to two digits: what is free changes."""
    return f"{number - number % 10 ** max(0, len(str(number)) - 2):,}"
