"""Accelerators of this machine, and the environment that limits a process to some of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache

from harness.telemetry.gpus import find_gpus, visibility
from harness.telemetry.gpus.base import Visibility

CPU = "cpu"


@cache
def gpus_here() -> tuple[tuple[str, str], ...]:
    """Return name and UUID of each GPU in the driver's order; empty without a driver."""
    gpus, _ = find_gpus()
    states = gpus.environment()["gpus"] if gpus else ()
    return tuple((str(state.get("name", "")), str(state.get("uuid", ""))) for state in states)


@cache
def _visibility() -> Visibility:
    return visibility(find_gpus()[0])


def gpu_count() -> int:
    """Return the number of GPUs; 0 without a driver."""
    return len(gpus_here())


def visible_gpus(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return the GPUs that a process with this environment may use, by the driver's numbers; None: all.

    As in CUDA, the variable lists numbers and beginnings of UUIDs, up to the first entry that names no GPU. Raises
    ValueError for ambiguous entries.
    """
    (order, as_driver), variable = _visibility().order, _visibility().variable
    listed, here = environment.get(variable), gpus_here()
    if listed is None or not here:
        return None
    entries = [entry.strip() for entry in listed.split(",")]
    found: list[int] = []
    for entry in entries:
        if (number := _number_of(entry, here)) is None:
            break
        found.append(number)
    by_number = any(entry.isdecimal() for entry in entries)
    if by_number and environment.get(order) != as_driver and len({name for name, _ in here}) > 1:
        why = f"{variable}={listed} counts GPUs of several kinds in CUDA's order, so all are read"
        raise ValueError(f"{why}; set {order}={as_driver}, or list them in `devices`")
    return tuple(dict.fromkeys(found))


def _number_of(entry: str, here: Sequence[tuple[str, str]]) -> int | None:
    """Return the GPU that an entry of the variable names; None if it ends the list."""
    if entry.isdecimal():
        return int(entry) if int(entry) < len(here) else None
    if entry in ("", "-1"):
        return None
    named = [number for number, (_, uuid) in enumerate(here) if entry.startswith("GPU-") and uuid.startswith(entry)]
    if len(named) != 1:
        raise ValueError(f"{_visibility().variable} names {entry}, which is not one GPU of this machine; all are read")
    return named[0]


def kinds_here(devices: Sequence[str], environment: Mapping[str, str] | None = None) -> frozenset[str]:
    """Return the kinds of devices that an engine can use: "cpu", and such as "cuda" if it can see a GPU."""
    hidden = (os.environ if environment is None else environment).get(_visibility().variable) in ("", "-1")
    seen = devices != (CPU,) and (bool(devices) or not hidden) and gpu_count() > 0
    return frozenset({CPU, _visibility().kind} if seen else {CPU})


def absent(devices: Sequence[str]) -> str | None:
    """Return a sentence about the first missing device; None if all are available."""
    gone = next((one for one in devices if one != CPU and int(one) >= gpu_count()), None)
    if gone is None:
        return None
    there = f"there are {gpu_count()}, counted from 0" if gpu_count() else "no GPU is visible"
    return f"`devices` names GPU {gone}, which is not available: {there}"


def environment_of(devices: Sequence[str]) -> dict[str, str]:
    """Return the environment that limits a process to these devices, in the driver's order."""
    if not devices:
        return {}
    (order, as_driver), variable = _visibility().order, _visibility().variable
    return {order: as_driver, variable: "" if devices == (CPU,) else ",".join(devices)}
