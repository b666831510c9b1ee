"""Expected speed of a cell before it runs: stated by its engine, or typical of its kind, model and device.

Decoding reads all weights for each token, and reading a prompt takes two operations per weight and token. Typical
speeds therefore follow from the size of the model, which its name usually states, and are right within a small factor.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from engines import engine_class
from engines.base import EngineError, PredictableEngine, Speed
from engines.cores import usable_cores
from engines.models.source import built_in
from harness.schedule.cells import Cell, bits
from harness.schedule.devices import kinds_here

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?) ?(?P<unit>[MB])(?![A-Za-z])", re.IGNORECASE)
_UNITS = {"M": 1e6, "B": 1e9}
COMMON_PARAMETERS = 1e9  # of a model whose name states no size
SERVER = Speed(start_s=0.0, first_s=0.1, prompt_token_s=0.0002, token_s=0.02, slots=32)  # behind `url`


@dataclass(frozen=True, slots=True)
class Device:
    """Typical bytes read and operations per second, and requests that it generates side by side."""

    bytes_per_s: float
    operations_per_s: float
    slots: int


GPU = Device(bytes_per_s=8e11, operations_per_s=5e13, slots=64)


def processor() -> Device:
    """Return the typical speed of the usable cores; memory limits more than ten of them."""
    cores = usable_cores()
    return Device(bytes_per_s=4e9 * min(cores, 10), operations_per_s=2.5e10 * cores, slots=1)


@dataclass(frozen=True, slots=True)
class Overhead:
    """Time that an engine's software adds to its start and to each token."""

    start_s: float
    token_s: float


OVERHEADS = {"transformers": Overhead(8.0, 0.01), "vllm": Overhead(40.0, 0.005), "vllm-server": Overhead(40.0, 0.005)}
LLAMA = Overhead(0.5, 0.0005)


def speed_of(cell: Cell) -> Speed:
    """Return the expected speed of a cell's engine."""
    try:
        engine = engine_class(cell.engine)(cell.spec)
    except EngineError:  # the start of the engine reports it
        return typical(cell)
    if isinstance(engine, PredictableEngine):
        return engine.speed()
    if cell.stays_up or cell.engine == "http":
        return SERVER
    return typical(cell)


def typical(cell: Cell) -> Speed:
    """Return the speed of an engine on this machine, from the size of its model."""
    kinds = kinds_here(cell.spec.devices, {**os.environ, **cell.spec.env})
    device = GPU if "cuda" in kinds and not cell.engine.startswith("llama") else processor()
    overhead = OVERHEADS.get(cell.engine, LLAMA)
    weights = parameters("" if cell.spec.model is None else cell.spec.model.name)
    size_bytes = weights * (bits(cell.level) or 16) / 8
    return Speed(
        start_s=overhead.start_s + size_bytes / 1e9,
        first_s=0.005,
        prompt_token_s=2 * weights / device.operations_per_s,
        token_s=overhead.token_s + size_bytes / device.bytes_per_s,
        slots=device.slots,
    )


def parameters(model: str) -> float:
    """Return the number of weights that the name of a model states, as in `Llama-3.1-8B` or `llama-160m`."""
    found = _SIZE.search(built_in().get(model, model.rpartition("/")[2]))
    return COMMON_PARAMETERS if found is None else float(found["number"]) * _UNITS[found["unit"].upper()]
