"""The accelerators that a scenario lets an engine use: what is here, and how a process is told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache

from harness.telemetry.gpus import find_gpus, visibility
from harness.telemetry.gpus.base import Visibility

CPU = "cpu"


@cache
def gpus_here() -> tuple[tuple[str, str], ...]:
    """Name and identifier (UUID) of each GPU, in the driver's order; empty where there is no driver."""
    gpus, _ = find_gpus()
    states = gpus.environment()["gpus"] if gpus else ()
    return tuple((str(state.get("name", "")), str(state.get("uuid", ""))) for state in states)


@cache
def _visibility() -> Visibility:
    return visibility(find_gpus()[0])


def gpu_count() -> int:
    """How many GPUs the driver names here; 0 where there is no driver."""
    return len(gpus_here())


def visible_gpus(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """The GPUs that a process with this environment may use, as the driver counts them; None: all.

    As CUDA reads its variable: numbers and beginnings of identifiers, until the first that names no GPU.
    Raises ValueError, with one sentence, where it cannot be told which they are.
    """
    (order, as_driver), variable = _visibility().order, _visibility().variable
    told, here = environment.get(variable), gpus_here()
    if told is None or not here:
        return None
    found: list[int] = []
    for entry in told.split(","):
        number = _number_of(entry.strip(), here)
        if number is None:
            break
        found.append(number)
    by_number = any(entry.strip().isdecimal() for entry in told.split(","))
    if by_number and environment.get(order) != as_driver and len({name for name, _ in here}) > 1:
        raise ValueError(
            f"{variable}={told} counts GPUs of several kinds in CUDA's order, so all are read: "
            f"set {order}={as_driver}, or name them in `devices`"
        )
    return tuple(dict.fromkeys(found))


def _number_of(entry: str, here: Sequence[tuple[str, str]]) -> int | None:
    """Which GPU an entry of the variable names; None where it ends the list."""
    if entry.isdecimal():
        return int(entry) if int(entry) < len(here) else None
    if entry in ("", "-1"):
        return None
    named = [number for number, (_, uuid) in enumerate(here) if entry.startswith("GPU-") and uuid.startswith(entry)]
    if len(named) != 1:
        raise ValueError(f"{_visibility().variable} names {entry}, which is no one GPU of those here, so all are read")
    return named[0]


def kinds_here(devices: Sequence[str], environment: Mapping[str, str] | None = None) -> frozenset[str]:
    """Where an engine with these devices can compute: "cpu", and such as "cuda" where it may and can see a GPU."""
    hidden = (os.environ if environment is None else environment).get(_visibility().variable) in ("", "-1")
    seen = devices != (CPU,) and (bool(devices) or not hidden) and gpu_count() > 0
    return frozenset({CPU, _visibility().kind} if seen else {CPU})


def absent(devices: Sequence[str]) -> str | None:
    """Which of the devices is not here, in one sentence; None where all are."""
    gone = next((one for one in devices if one != CPU and int(one) >= gpu_count()), None)
    if gone is None:
        return None
    there = f"there are {gpu_count()}, counted from 0" if gpu_count() else "no GPU can be seen"
    return f"`devices` names GPU {gone}, which is not here: {there}"


def environment_of(devices: Sequence[str]) -> dict[str, str]:
    """What a process finds in its environment so that it sees these devices only, in the driver's order."""
    if not devices:
        return {}
    (order, as_driver), variable = _visibility().order, _visibility().variable
    return {order: as_driver, variable: "" if devices == (CPU,) else ",".join(devices)}
