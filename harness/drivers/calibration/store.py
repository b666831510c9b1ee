"""Calibrations: the largest load that the load generator measures accurately on this machine, and their storage.

A calibration is valid only for the machine, the cores and the interpreter with which it was made.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from engines.cores import cpu_quota_cores, own_processors
from engines.models.cache import directory
from harness import __version__
from harness.errors import StorageFailed
from harness.store.manifest import CalibrationEntry
from harness.telemetry.provenance import cpu_model

FORMAT = 1
_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@dataclass(frozen=True, slots=True)
class StreamLevel:
    """Absolute errors of the recorded arrivals with `streams` concurrent replies."""

    streams: int
    requests: int
    events_per_s: float  # tokens sent, by the server's own times
    ttft_error_p50_ms: float  # of the first token's arrival
    ttft_error_p99_ms: float
    ttft_error_max_ms: float
    itl_error_p50_ms: float  # of the time between two tokens
    itl_error_p99_ms: float
    itl_error_max_ms: float
    cpu_share: float  # of one core, by the load generator
    server_cpu_share: float
    merged_read_share: float
    clock: str  # source of the arrival times, "kernel" or "loop"
    held: bool  # the errors were within the thresholds
    reason: str | None = None  # set if not


@dataclass(frozen=True, slots=True)
class RateLevel:
    """Send lag of an open loop at a request rate."""

    requests_per_s: float
    requests: int
    send_lag_p50_ms: float
    send_lag_p99_ms: float
    send_lag_max_ms: float
    held: bool
    reason: str | None = None


Level = TypeVar("Level", StreamLevel, RateLevel)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Largest load that one load generator measures accurately on this machine, and everything that was tried."""

    created_utc: str
    identity: dict[str, Any]
    streams: int  # the largest level that held; 0 if none did; the next two likewise
    events_per_s: float
    requests_per_s: float
    ttft_error_p99_ms: float | None  # the largest at the levels that held; the next two likewise
    itl_error_p99_ms: float | None
    send_lag_p99_ms: float | None
    levels: tuple[StreamLevel, ...] = ()
    rates: tuple[RateLevel, ...] = ()
    notes: tuple[str, ...] = ()  # reasons for which further levels were not tried
    quick: bool = False
    shared: bool = True  # the server ran on the same cores: the load generator alone may reach more
    busy_share: float = 0.0  # of CPU time, used by other processes just before

    def as_dict(self) -> dict[str, Any]:
        return {"format": FORMAT} | asdict(self)

    def summary(self) -> CalibrationEntry:
        """Return the part that a run's manifest stores."""
        kept = asdict(self)
        return CalibrationEntry.model_validate({name: kept[name] for name in CalibrationEntry.model_fields})

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Calibration:
        """Restore the result of `as_dict`. Raises ValueError or AttributeError for other content."""
        if stored.get("format") != FORMAT:
            raise ValueError("another format")
        return TypeAdapter(cls).validate_python(stored)


def conclude(
    levels: Sequence[StreamLevel],
    rates: Sequence[RateLevel],
    notes: Sequence[str],
    created_utc: str,
    *,
    quick: bool = False,
    busy_share: float = 0.0,
) -> Calibration:
    """Return the calibration that follows from the levels tried."""
    good, on_time = _trusted(levels, attrgetter("streams")), _trusted(rates, attrgetter("requests_per_s"))
    return Calibration(
        created_utc=created_utc,
        identity=identity(),
        streams=max((level.streams for level in good), default=0),
        events_per_s=max((level.events_per_s for level in good), default=0.0),
        requests_per_s=max((rate.requests_per_s for rate in on_time), default=0.0),
        ttft_error_p99_ms=max((level.ttft_error_p99_ms for level in good), default=None),
        itl_error_p99_ms=max((level.itl_error_p99_ms for level in good), default=None),
        send_lag_p99_ms=max((rate.send_lag_p99_ms for rate in on_time), default=None),
        levels=tuple(levels),
        rates=tuple(rates),
        notes=tuple(notes),
        quick=quick,
        busy_share=busy_share,
    )


def _trusted(tried: Sequence[Level], size: Callable[[Level], float]) -> list[Level]:
    """Return the last success at each size below the smallest size that never held."""
    held = {size(level): level for level in tried if level.held}
    failed = min((size(level) for level in tried if size(level) not in held), default=math.inf)
    return [level for at, level in held.items() if at < failed]


def identity() -> dict[str, Any]:
    """Return the properties of the machine and the software for which a calibration is valid."""
    return {
        "machine": machine_id(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(own_processors()),
        "quota_cores": cpu_quota_cores(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "harness": __version__,
    }


def machine_id() -> str:
    """Return a hash of the system's identity, which is confidential; without one, the name of the machine."""
    for path in _MACHINE_IDS:
        try:
            own = Path(path).read_text().strip()
        except OSError:
            continue
        if own:
            return hashlib.sha256(f"harness {own}".encode()).hexdigest()[:16]
    return platform.node()


def cache_path(known: dict[str, Any] | None = None) -> Path:
    """Return the file of a machine's calibration in the user's cache folder; known: an `identity`, default: ours."""
    key = hashlib.sha256(json.dumps(known or identity(), sort_keys=True).encode()).hexdigest()[:16]
    return directory().parent / "calibration" / f"{key}.json"


def cached() -> Calibration | None:
    """Return this machine's calibration; None if it is missing, damaged or of another format."""
    try:
        return Calibration.from_dict(json.loads(cache_path().read_text()))
    except (OSError, ValueError, AttributeError):
        return None


def summary_for_runs() -> CalibrationEntry | None:
    """Return this machine's calibration for a run's manifest, if there is one."""
    known = cached()
    return known.summary() if known else None


def save(calibration: Calibration) -> Path:
    """Store a calibration; return its file. Raises StorageFailed if the cache folder is not writable."""
    path = Path("the calibration")
    try:
        path = cache_path(calibration.identity)
        partial = path.with_suffix(f".{os.getpid()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(calibration.as_dict(), indent=1) + "\n")
        partial.replace(path)
    except OSError as error:
        why = f"{path} cannot be written: {error.strerror}; set HARNESS_CACHE to a folder that can"
        raise StorageFailed(why) from error
    return path
