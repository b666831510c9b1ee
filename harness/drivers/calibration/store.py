"""Calibrations: the largest load that the measuring client can be trusted with on this machine, and where it is kept.

A calibration belongs to the machine, the cores and the interpreter it was made with; for any other it does not exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    """So many replies at once, and how far what was recorded was from what was sent.

    events_per_s: tokens sent per second, as the server's own times say.   ttft_error, itl_error: of the first token's
    arrival, and of the time between two; absolute values.   cpu_share: of one core, the client's process.
    server_cpu_share: the server's.   clock: whose stamps the arrivals are, "kernel" or "loop".
    held: the errors were within the thresholds; otherwise `reason` says what was not.
    """

    streams: int
    requests: int
    events_per_s: float
    ttft_error_p50_ms: float
    ttft_error_p99_ms: float
    ttft_error_max_ms: float
    itl_error_p50_ms: float
    itl_error_p99_ms: float
    itl_error_max_ms: float
    cpu_share: float
    server_cpu_share: float
    merged_read_share: float
    clock: str
    held: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RateLevel:
    """An open loop at this rate, and how late it was sent."""

    requests_per_s: float
    requests: int
    send_lag_p50_ms: float
    send_lag_p99_ms: float
    send_lag_max_ms: float
    held: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one load process can be trusted with here.

    streams, events_per_s, requests_per_s: the largest that held; 0 where none did.
    ttft_error_p99_ms, itl_error_p99_ms, send_lag_p99_ms: the largest at the levels that held; None where none did.
    shared: the server ran on the same cores, so that the client alone might do more.
    busy_share: of the processors' time, what other work took just before.
    notes: what ended the search.   levels, rates: everything that was tried, in order.
    """

    created_utc: str
    identity: dict[str, Any]
    streams: int
    events_per_s: float
    requests_per_s: float
    ttft_error_p99_ms: float | None
    itl_error_p99_ms: float | None
    send_lag_p99_ms: float | None
    levels: tuple[StreamLevel, ...] = ()
    rates: tuple[RateLevel, ...] = ()
    notes: tuple[str, ...] = ()
    quick: bool = False
    shared: bool = True
    busy_share: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"format": FORMAT} | asdict(self)

    def summary(self) -> CalibrationEntry:
        """Return what a run's manifest keeps of it."""
        kept = asdict(self)
        return CalibrationEntry.model_validate({name: kept[name] for name in CalibrationEntry.model_fields})

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Calibration:
        """What `as_dict` gave. Raises ValueError, KeyError or TypeError for anything else."""
        known = dict(stored)
        if known.pop("format") != FORMAT:
            raise ValueError("another format")
        levels = tuple(StreamLevel(**level) for level in known.pop("levels"))
        rates = tuple(RateLevel(**rate) for rate in known.pop("rates"))
        return cls(**known | {"levels": levels, "rates": rates, "notes": tuple(known.pop("notes"))})


def conclude(
    levels: Sequence[StreamLevel],
    rates: Sequence[RateLevel],
    notes: Sequence[str],
    created_utc: str,
    *,
    quick: bool = False,
    busy_share: float = 0.0,
) -> Calibration:
    """The largest load that can be trusted. What lies beyond a level that did not hold is not, whatever it showed."""
    streams = {level.streams: level for level in levels if level.held}
    failed = min((level.streams for level in levels if level.streams not in streams), default=None)
    good = [level for size, level in streams.items() if failed is None or size < failed]
    sent = {rate.requests_per_s: rate for rate in rates if rate.held}
    missed = min((rate.requests_per_s for rate in rates if rate.requests_per_s not in sent), default=None)
    on_time = [rate for asked, rate in sent.items() if missed is None or asked < missed]
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


def identity() -> dict[str, Any]:
    """What a calibration belongs to."""
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
    """A hash of the system's own identity, which is not to be shown around; its name where it has none."""
    for path in _MACHINE_IDS:
        try:
            own = Path(path).read_text().strip()
        except OSError:
            continue
        if own:
            return hashlib.sha256(f"harness {own}".encode()).hexdigest()[:16]
    return platform.node()


def cache_path(known: dict[str, Any] | None = None) -> Path:
    """Where the calibration of this machine is kept: beside the models in the user's cache folder."""
    key = hashlib.sha256(json.dumps(known or identity(), sort_keys=True).encode()).hexdigest()[:16]
    return directory().parent / "calibration" / f"{key}.json"


def cached() -> Calibration | None:
    """This machine's calibration; None if there is none that can be read."""
    try:
        return Calibration.from_dict(json.loads(cache_path().read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent, damaged or of another format: the machine counts as not calibrated


def summary_for_runs() -> CalibrationEntry | None:
    """What a run's manifest says of this machine's calibration; None if there is none."""
    known = cached()
    return known.summary() if known else None


def save(calibration: Calibration) -> Path:
    """Keep it. Raises StorageFailed if the cache folder cannot be written."""
    path = cache_path(calibration.identity)
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(calibration.as_dict(), indent=1) + "\n")
        partial.replace(path)
    except OSError as error:
        why = f"{path} cannot be written: {error.strerror}; set HARNESS_CACHE to a folder that can"
        raise StorageFailed(why) from error
    return path
