"""Series: one number of one configuration on one machine, night by night."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from harness.analysis.stats import Floats


@dataclass(frozen=True, slots=True)
class Key:
    """What a series measures. Limits do not belong to it; plan and method do neither, their changes are events.

    Attributes:
        class_name: Class of traffic; "" for all.
        machine: Identity of the hardware, as the manifest's part "must match" has it.
        tool: Load generator of another project; "" for ours.
    """

    scenario: str
    load: str
    class_name: str
    metric: str
    statistic: str
    model: str
    engine: str
    level: str
    variant: str
    machine: str
    tool: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """The number of one night.

    Attributes:
        at: Begin of the run, UTC.
        value: In the metric's unit: the pooled number over all starts of the run.
        low, high: Its 95 % interval; NaN if unknown.
        starts: Starts of the configuration in this run.
        labels: Labels of the run, such as the commit.
        run: Name of the stored run.
        plan: Hash of the plan of requests.
        method: Version of the definitions of the metrics.
        doubt: Why the data of this number is poor; "" if it is not.
    """

    at: datetime
    value: float
    low: float = math.nan
    high: float = math.nan
    starts: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    run: str = ""
    plan: str = ""
    method: int = 2
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something known that explains a change from a night on.

    Attributes:
        kind: "plan", "method", "machine", "version" (of what is under test, or its options), "release" or "note".
    """

    at: datetime
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """Nights of one number, oldest first.

    Attributes:
        better: "lower" or "higher".
        control: Whether it is of something that never changes, so that only the machine can move it.
        resets: Indices of points from which on earlier ones are no measure: after a change of plan, method or machine.
    """

    key: Key
    better: str
    points: tuple[Point, ...]
    events: tuple[Event, ...] = ()
    control: bool = False
    resets: tuple[int, ...] = ()

    @property
    def values(self) -> Floats:
        """Values in the metric's unit."""
        return np.array([point.value for point in self.points], dtype=np.float64)
