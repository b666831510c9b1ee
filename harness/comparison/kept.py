"""What a comparison needs of a run, kept beside it in `derived.cache` once it was derived.

All of it follows from the records, so the file saves time and nothing else: it is used only if the same code would
derive it from the same manifest, records and readings. Names, times and labels of the run do not count. A file that is
none of ours, or cannot be written, is as good as no file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from harness.analysis.paired import OfRequests
from harness.analysis.stats import Floats, Measured
from harness.comparison.measured import BY_REQUEST, Figure, Measurement, Start
from harness.metrics import SCALAR
from harness.store.baselines import is_kept
from harness.store.manifest import CellEntry, Manifest, TrialEntry
from harness.store.run import MANIFEST, Run

FILE = "derived.cache"
MOST_OBSERVATIONS = 200_000
READ_WHOLE_BYTES = 4 * 2**20
_ENDS_BYTES = 64 * 2**10
_IGNORED = ("name", "description", "created_utc", "labels", "command", "sessions", "notes", "provenance")
_CODE = ("analysis", "comparison", "quality", "saturation", "scenario", "schedule", "store", "telemetry", "verdict")
_OVER = ("complete", "failed", "interrupted")


def identity(run: Run) -> str:
    """Return what the numbers of a run follow from, as a hash: code, manifest, and the content of its files.

    A large file counts by its size, the time of its last change, and its beginning and end. "" if one cannot be read.
    """
    try:
        return _identity(run)
    except OSError:
        return ""


def _identity(run: Run) -> str:
    whole = hashlib.sha256(code().encode())
    stored = orjson.loads((run.path / MANIFEST).read_bytes())
    facts = {key: value for key, value in stored.items() if key not in _IGNORED}
    facts["calibration"] = (stored.get("provenance") or {}).get("calibration")
    whole.update(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS))
    for file in _files(run):
        whole.update(str(file.relative_to(run.path) if file.is_relative_to(run.path) else file).encode())
        whole.update(_content(file) if file.exists() else b"-")
    return whole.hexdigest()


def _files(run: Run) -> Iterator[Path]:
    """Yield the files of a run that its numbers follow from, each once."""
    folders = [run.path / trial.path for _, trial in run.manifest.trials()]
    yield from dict.fromkeys(file for one in folders for file in (one / "records.parquet", _samples(one)))


def _samples(trial: Path) -> Path:
    return trial.parent / "samples.parquet"


def _content(file: Path) -> bytes:
    facts = file.stat()
    if facts.st_size <= READ_WHOLE_BYTES:
        return hashlib.sha256(file.read_bytes()).digest()
    with file.open("rb") as opened:
        first = opened.read(_ENDS_BYTES)
        opened.seek(-_ENDS_BYTES, 2)
        ends = hashlib.sha256(first + opened.read()).hexdigest()
    return f"{facts.st_size} {facts.st_mtime_ns} {ends}".encode()


@cache
def code() -> str:
    """Return a hash of the code that derives the numbers, and of the libraries that it computes with."""
    import scipy

    room, whole = Path(__file__).parents[1], hashlib.sha256(f"{np.__version__} {scipy.__version__}".encode())
    files = [*room.glob("*.py"), *(file for name in _CODE for file in (room / name).rglob("*.py"))]
    for file in sorted(files):
        whole.update(file.read_bytes())
    return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class _Content:
    """Measurements of a run, with the ids of cells and trials in the place of their entries."""

    measurements: tuple[Measurement, ...]
    ids: tuple[tuple[tuple[str, str], ...], ...]

    def fits(self, manifest: Manifest) -> bool:
        """Return whether a manifest has an entry for each id."""
        have = {(cell.id, trial.id) for cell, trial in manifest.trials()}
        return all(id_ in have for ids in self.ids for id_ in ids)

    def of(self, manifest: Manifest) -> tuple[Measurement, ...]:
        """Return the measurements with the entries of a manifest that fits."""
        entries = {(cell.id, trial.id): (cell, trial) for cell, trial in manifest.trials()}
        found = []
        for one, ids in zip(self.measurements, self.ids, strict=True):
            pairs = [entries[id_] for id_ in ids]
            starts = (
                replace(start, cell=cell, trial=trial) for start, (cell, trial) in zip(one.starts, pairs, strict=True)
            )
            found.append(replace(one, starts=tuple(starts)))
        return tuple(found)


_known: dict[str, _Content] = {}
"""Contents by identity: copies of a run share theirs, so that what is computed of them is remembered."""
_MOST_KNOWN = 256


def load(run: Run, key: str, statistics: Collection[tuple[str, str]] = ()) -> tuple[Measurement, ...] | None:
    """Return the measurements that were kept of a run; None if there are none, or they lack one of the statistics."""
    if not key or any(metric not in BY_REQUEST and one != SCALAR for metric, one in statistics):
        return None
    content = _known.get(key) or _read(run.path / FILE, key)
    if content is None or not content.fits(run.manifest):
        return None
    _remember(key, content)
    found = content.of(run.manifest)
    have = {(metric, statistic) for one in found for _, metric, statistic in one.pooled}
    return found if all(one in have or one[1] == SCALAR for one in statistics) else None


def _remember(key: str, content: _Content) -> None:
    if len(_known) >= _MOST_KNOWN:
        del _known[next(iter(_known))]
    _known[key] = content


def save(run: Run, key: str, measurements: Sequence[Measurement]) -> None:
    """Keep the measurements of a run that is over, beside it; of a long run or a baseline nothing is kept."""
    starts = [start for one in measurements for start in one.starts]
    long = sum(len(one.values) for start in starts for one in start.requests.values()) > MOST_OBSERVATIONS
    if not key or long or run.manifest.status not in _OVER:
        return
    ids = tuple(tuple((start.cell.id, start.trial.id) for start in one.starts) for one in measurements)
    _remember(key, _Content(tuple(measurements), ids))
    if not is_kept(run.path):
        _write(run.path / FILE, _packed(key, measurements))


def _write(path: Path, content: bytes) -> bool:
    """Replace the file; return whether that was possible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a killed process with the same number
        with temporary.open("xb") as file:  # follows no link
            file.write(content)
        temporary.replace(path)
    except OSError:
        return False
    return True


def _packed(key: str, measurements: Sequence[Measurement]) -> bytes:
    """Return a line of JSON with all texts and lengths, then the numbers in their order."""
    arrays: list[np.ndarray[Any, Any]] = []
    told = [_told(one, arrays) for one in measurements]
    head = orjson.dumps({"key": key, "measurements": told})
    return head + b"\n" + b"".join(array.astype("<f8").tobytes() for array in arrays)


def _told(one: Measurement, arrays: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
    numbers = [*one.pooled.values()]
    arrays += [np.array([getattr(number, end) for number in numbers]) for end in ("value", "low", "high")]
    arrays.append(np.array([one.n[figure] for figure in one.pooled]))
    starts = []
    for start in one.starts:
        arrays.append(np.array([*start.values.values()]))
        for observed in start.requests.values():
            arrays += [observed.requests, observed.values]
        sizes = [[*name, len(observed.values)] for name, observed in start.requests.items()]
        starts.append({"ids": [start.cell.id, start.trial.id], "figures": [*start.values], "requests": sizes})
    return {"keys": one.keys, "figures": [*one.pooled], "poor": one.poor, "starts": starts}


def _read(file: Path, key: str) -> _Content | None:
    """Return the content of a file; None if it is of another identity, or damaged."""
    try:
        head, _, rest = file.read_bytes().partition(b"\n")
        stored = orjson.loads(head)
        if stored["key"] != key:
            return None
        return _unpacked(stored["measurements"], np.frombuffer(rest, dtype="<f8"))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _unpacked(told: Sequence[Mapping[str, Any]], numbers: Floats) -> _Content:
    """Return the content of a file. Raises ValueError, KeyError, TypeError or IndexError if it is damaged."""
    found, ids, place = [], [], 0

    def taken(count: int) -> Floats:
        nonlocal place
        place += count
        if place > len(numbers):
            raise ValueError("the file ends too early")
        return numbers[place - count : place]

    for one in told:
        figures = [_figure(figure) for figure in one["figures"]]
        values, low, high, counts = (taken(len(figures)).tolist() for _ in range(4))
        pooled = dict(zip(figures, map(Measured, values, low, high), strict=True))
        starts = []
        for start in one["starts"]:
            own = [_figure(figure) for figure in start["figures"]]
            of_start = dict(zip(own, taken(len(own)).tolist(), strict=True))
            requests = {
                (str(class_name), str(metric)): OfRequests(taken(size).astype(np.int64), taken(size))
                for class_name, metric, size in start["requests"]
            }
            starts.append(Start(CellEntry(), TrialEntry(), requests, of_start))
        poor = tuple((str(why), tuple(map(str, about))) for why, about in one["poor"])
        n = dict(zip(figures, map(int, counts), strict=True))
        found.append(Measurement(tuple(map(str, one["keys"])), tuple(starts), pooled, n, poor))
        ids.append(tuple((str(start["ids"][0]), str(start["ids"][1])) for start in one["starts"]))
    return _Content(tuple(found), tuple(ids))


def _figure(names: Sequence[str]) -> Figure:
    class_name, metric, statistic = map(str, names)
    return class_name, metric, statistic
