"""Which engine runs which levels on which devices, and what must be installed for it; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import engines
from engines.base import EngineError

CPU_AND_GPU = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Support:
    """What is known of one engine.

    where: "in process" or "server".   levels: level to the devices that it can run on; empty where they are the
    server's.   missing: what is not installed and how to install it, None where nothing is.   broken: why the adapter
    itself cannot be used.
    """

    name: str
    where: str = "server"
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: str | None = None
    broken: str | None = None

    def by_device(self) -> dict[str, list[str]]:
        """Devices, such as "cpu, cuda", to the levels that run on just these."""
        found: dict[str, list[str]] = {}
        for level, devices in self.levels.items():
            found.setdefault(", ".join(devices), []).append(level)
        return found


def support_of(name: str) -> Support:
    """What is known of an engine here."""
    try:
        adapter = engines.engine_class(name)
    except EngineError as error:
        return Support(name, broken=str(error))
    devices = getattr(adapter, "devices", None)
    levels = {level: CPU_AND_GPU if devices is None else tuple(devices(level)) for level in adapter.levels()}
    where = "in process" if hasattr(adapter, "generate") else "server"
    return Support(name, where, levels, engines.missing_library(name))


def supported() -> list[Support]:
    """All engines that a scenario can name, by name."""
    return [support_of(name) for name in sorted(engines.names())]
