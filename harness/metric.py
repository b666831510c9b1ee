"""What a metric is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SCALAR = "value"
STATISTICS = ("p50", "p90", "p95", "p99", "max", "mean", "min")


class Direction(StrEnum):
    """Which way is better."""

    LOWER = "lower"
    HIGHER = "higher"
    NONE = "none"


class Show(StrEnum):
    """How a value is formatted."""

    TIME = "time"
    NUMBER = "number"
    SHARE = "share"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. takes_statistics: it has a distribution; otherwise one value. unmeasured: why nothing measures it
    yet.
    """

    name: str
    unit: str
    definition: str
    direction: Direction
    show: Show
    takes_statistics: bool
    unmeasured: str | None = None

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names under `statistic` in the summary."""
        return STATISTICS if self.takes_statistics else (SCALAR,)


def latency(name: str, definition: str) -> Metric:
    """A distribution of milliseconds, lower is better."""
    return Metric(name, "ms", definition, Direction.LOWER, Show.TIME, takes_statistics=True)


def scalar(
    name: str, unit: str, definition: str, direction: Direction, show: Show, unmeasured: str | None = None
) -> Metric:
    """A metric of one value."""
    return Metric(name, unit, definition, direction, show, takes_statistics=False, unmeasured=unmeasured)


def quality(name: str, unit: str, definition: str) -> Metric:
    """A number that grows with what quantizing lost."""
    return scalar(name, unit, definition, Direction.LOWER, Show.NUMBER)
