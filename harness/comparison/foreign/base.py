"""What a result file of another load generator says, in one form for all of them; and how its values are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from harness.errors import RunUnreadable
from harness.metrics import SCALAR

T = TypeVar("T")
NAN = math.nan
FROM_SENT = "TTFT and E2E count from sending: time that a request waits in the client is in neither."
WHOLE_RUN = "Rates are over the whole run, its start and its end included."
INTERPOLATED = "Percentiles are interpolated."
CANCELLED = "The run was cancelled before its end."
PROMPT_TOKENS, OUTPUT_TOKENS = "workload.prompt_tokens.value", "workload.output_tokens.value"
NO_LOAD = "unknown-load"
UNKNOWN_LOAD = "The file does not say its load."
_MS_PER_S = 1000.0


class ForeignUnreadable(RunUnreadable):
    """File that is no whole result of a known load generator; the message does not name the file."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What was measured of each request, in the order of sending.

    Attributes:
        failed: Whether each failed.
        values: By metric, one value for each request; NaN where it has none.
        gaps_ms: Gaps between the chunks of each reply; none if the file has none.
        sent_s, ended_s: Times on one clock; none if the file has none.
    """

    failed: tuple[bool, ...]
    values: Mapping[str, tuple[float, ...]]
    gaps_ms: tuple[tuple[float, ...], ...] = ()
    sent_s: tuple[float, ...] = ()
    ended_s: tuple[float, ...] = ()

    def ordered(self) -> Rows:
        """Return the same in the order of sending."""
        if not self.sent_s:
            return self
        order = sorted(range(len(self.failed)), key=self.sent_s.__getitem__)
        values = {name: _picked(column, order) for name, column in self.values.items()}
        return Rows(
            _picked(self.failed, order),
            values,
            _picked(self.gaps_ms, order) if self.gaps_ms else (),
            _picked(self.sent_s, order),
            _picked(self.ended_s, order),
        )


def _picked(column: Sequence[T], order: Sequence[int]) -> tuple[T, ...]:
    return tuple(column[place] for place in order)


@dataclass(frozen=True, slots=True)
class ForeignLoad:
    """One load of a file.

    Attributes:
        rate: Requests per second that an open loop asks for.
        users: Requests in flight that a closed loop keeps up.
        facts: What else the file says of the load.
        values: Numbers as the file has them, by (metric, statistic).
        requests, failed: Their numbers; None if the file does not say.
        rows: What was measured of each request; None if the file has values only.
        at_once: Whether all requests are sent at once, as the file says.
    """

    rate: float | None = None
    users: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[tuple[str, str], float] = field(default_factory=dict)
    requests: int | None = None
    failed: int | None = None
    rows: Rows | None = None
    at_once: bool = False

    @property
    def name(self) -> str:
        """Name that equal loads of two files share."""
        most = self.facts.get("max_concurrency")
        if self.rate is not None:
            return f"rate-{self.rate:g}" + (f"-most-{most}" if most else "")
        if self.users is not None:
            return f"users-{self.users}"
        return "all-at-once" if self.at_once else NO_LOAD


@dataclass(frozen=True, slots=True)
class ForeignRun:
    """A result file.

    Attributes:
        version: Of the tool; None if the file does not say.
        created_utc: When it ran, as the file says; None if it does not.
        loads: Several equal ones are runs of the same load.
        notes: Sentences on what its numbers mean, where that is not what they mean here.
    """

    tool: str
    loads: tuple[ForeignLoad, ...]
    version: str | None = None
    model: str | None = None
    created_utc: str | None = None
    notes: tuple[str, ...] = ()


# Values of a file:


def number(data: Any, key: str) -> float:
    """Return a finite number at or above zero; NaN for anything else."""
    value = data.get(key) if isinstance(data, Mapping) else None
    return value_of(value)


def value_of(value: Any) -> float:
    """Return a value as a finite number at or above zero; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NAN
    return float(value) if 0 <= value < math.inf else NAN


def latency(data: Any, key: str, factor: float = 1.0) -> float:
    """Return a time in ms; NaN for 0 too, which tools write where nothing was measured."""
    value = number(data, key)
    return value * factor if value > 0 else NAN


def whole(data: Any, key: str) -> int | None:
    """Return a whole number at or above zero; None for anything else."""
    value = number(data, key)
    return int(value) if value.is_integer() else None


def text(data: Any, key: str) -> str | None:
    """Return a text that is not empty; None for anything else."""
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, str) and value.strip() else None


def section(data: Any, *keys: str) -> Mapping[str, Any]:
    """Return a mapping inside of others; an empty one if there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def items(data: Any, key: str) -> list[Any]:
    """Return a list; an empty one if there is none."""
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, list) else []


def lengths(prompt: float, output: float) -> dict[str, int]:
    """Return fixed lengths of prompts and replies as facts of a load, by the scenario's keys; NaN for others."""
    found = {PROMPT_TOKENS: prompt, OUTPUT_TOKENS: output}
    return {name: int(value) for name, value in found.items() if value > 0 and value.is_integer()}


def known(values: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Return the numbers that are known."""
    return {figure: value for figure, value in values.items() if math.isfinite(value)}


def rates(requests_per_s: float, tokens_per_s: float) -> dict[tuple[str, str], float]:
    """Return both rates by (metric, statistic)."""
    return {("completed_rps", SCALAR): requests_per_s, ("output_tokens_per_s", SCALAR): tokens_per_s}


def error_share(requests: int | None, failed: int | None) -> dict[tuple[str, str], float]:
    """Return the share of failed requests by (metric, statistic); empty if it is unknown."""
    return {("error_rate", SCALAR): failed / requests} if requests and failed is not None else {}


def tpot_ms(ttft_ms: float, e2e_ms: float, tokens: float) -> float:
    """Return the time per output token after the first; NaN for fewer than two, or if all came at once."""
    span = e2e_ms - ttft_ms
    return span / (tokens - 1) if tokens >= 2 and span > 0 else NAN


def in_ms(seconds: float) -> float:
    """Return seconds in ms."""
    return seconds * _MS_PER_S


def check_any(values: Mapping[tuple[str, str], float], rows: Rows | None) -> None:
    """Raise ForeignUnreadable for a result without any number."""
    if rows is not None and not all(rows.failed):
        return
    if not any(metric not in ("error_rate", "completed_rps", "output_tokens_per_s") for metric, _ in values):
        raise ForeignUnreadable("it has no latency of any request: nothing to compare")


def utc(seconds: float) -> str | None:
    """Return a time of day, in seconds since 1970, as text; None if it is unknown."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds > 0 else None
    except (OverflowError, OSError, ValueError):
        return None
