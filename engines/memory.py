"""How much memory an engine will need, told before it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What an engine will need at its peak.

    device: where: "cpu" is the host's memory, "cuda" that of its GPUs together.
    parts: bytes by what they are for ("weights", "kv_cache", "runtime"); the need is their sum.
    """

    device: Literal["cpu", "cuda"]
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@runtime_checkable
class EstimatingEngine(Protocol):
    """An engine that can say what it will need."""

    def memory_needed(self) -> MemoryEstimate | None:
        """An estimate from below, after prepare() and before start(); None where nothing is known.

        From below: a cell is skipped because of it, which must not happen to one that would have fitted.
        """
        ...


__all__ = ["EstimatingEngine", "MemoryEstimate"]
