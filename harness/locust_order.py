"""What a trial under Locust is told, and what its process works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.drivers.base import Control
from harness.load_part import PartSpec
from harness.progress import Progress
from harness.workload import Schedule

Emit = Callable[[dict[str, Any]], None]


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
    """What a trial under Locust needs, alone or with workers."""

    order: Order
    part: PartSpec
    schedule: Schedule
    progress: Progress
    control: Control
    emit: Emit

    @property
    def folder(self) -> Path:
        """Where the records go."""
        return Path(self.order.folder)
