"""A run on disk: a folder that is never overwritten and that later versions can read (docs/architecture.md)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from engines.secrets import masked
from harness.errors import FileUnreadable, RunDirectoryExists, RunUnreadable, StorageFailed, UsageError, shortened
from harness.records import FORMAT_VERSION, Record, Sample, Status, record_schema, sample_schema, to_columns
from harness.store import baselines
from harness.store.categories import frame_of
from harness.store.manifest import METHOD, CellEntry, Manifest, TrialEntry
from harness.store.streams import (
    StreamWriter,
    check_columns,
    read_batches,
    read_parquet,
    reading_errors,
    storage_errors,
    to_parquet,
    write_atomically,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MANIFEST = "manifest.json"
IMPORTED = "foreign.json"
"""Entry of an imported result of another tool, in a folder of its own."""
RUNS = Path("runs")
_LATEST = re.compile(r"latest(?:~(?P<before>[0-9]+))?")
NEEDED = (
    "request", "phase", "due_ns", "sent_ns", "first_token_ns", "last_token_ns", "done_ns", "status", "output_tokens",
    "chunk_ns", "chunk_tokens", "chunk_kind",
)  # fmt: skip
"""Columns of the records without which numbers would be missing or wrong."""
BATCH_ELEMENTS = 2**20
_PLANNED = (
    "request", "class_name", "session", "turn", "user", "phase", "loop", "after", "think_ns", "repeats",
    "planned_cancel_ns", "due_ns", "dispatched_ns", "sent_ns", "done_ns", "requested_prompt_tokens",
    "requested_output_tokens", "worker",
)  # fmt: skip


def put_aside(place: Path) -> None:
    """Rename a run that is not whole, so that nothing is lost."""
    number = 1
    while (other := place.with_name(f"{place.name}-ended-{number}")).exists():
        number += 1
    place.rename(other)


def refuse_existing(path: Path) -> None:
    """Raise RunDirectoryExists unless a new run may be stored there, UsageError if it cannot be looked at."""
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise UsageError(f"{shortened(str(path))}: {error.strerror}; choose another folder with --out") from error
    if taken:
        raise RunDirectoryExists(f"{path} exists and results are never overwritten; choose another folder with --out")


class RunWriter:
    """Writer of a run. Its folder must be new; the manifest is replaced atomically whenever it changes."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self.manifest.format, self.manifest.method = FORMAT_VERSION, METHOD
        with storage_errors(path):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                refuse_existing(path)
        self.save()

    @classmethod
    def reopen(cls, path: Path) -> RunWriter:
        """Open a stored run to resume it. Raises RunUnreadable as `Run.open` does."""
        writer = cls.__new__(cls)
        writer.path, writer.manifest = path, Run.open(path).manifest
        writer.manifest.format, writer.manifest.method = FORMAT_VERSION, METHOD
        return writer

    def save(self) -> None:
        """Write the manifest."""
        write_atomically(self.path / MANIFEST, self.manifest.text())

    def folder(self, relative: str) -> Path:
        """Return a folder inside the run; create it if it does not exist."""
        made = self.path / relative
        with storage_errors(made):
            made.mkdir(parents=True, exist_ok=True)
        return made

    def samples(self, cell_folder: Path) -> StreamWriter[Sample]:
        """Return the writer for the readings of a cell."""
        return StreamWriter(cell_folder / "samples.arrows", sample_schema(), sample_columns, flush_s=2.0)

    def finish_samples(self, cell_folder: Path) -> int:
        """Convert the readings of a cell to Parquet; return their number."""
        return to_parquet([cell_folder / "samples.arrows"], cell_folder / "samples.parquet", sample_schema())

    def finish_records(self, trial_folder: Path, recounted: Mapping[int, int] | None = None) -> int:
        """Convert the streams of all load processes of a trial to one Parquet file; return the number of records.

        Args:
            recounted: `retokenized_tokens` by request, known only after the load.
        """
        streams, completed = record_streams(trial_folder), partial(_with_recounted, recounted=recounted or {})
        return to_parquet(streams, trial_folder / "records.parquet", record_schema(), completed) if streams else 0


def _with_recounted(records: pa.Table, recounted: Mapping[int, int]) -> pa.Table:
    import pyarrow as pa

    if not recounted:
        return records
    place = records.schema.get_field_index("retokenized_tokens")
    tokens = [recounted.get(request) for request in records.column("request").to_pylist()]
    return records.set_column(place, records.schema.field(place), pa.array(tokens, records.schema.field(place).type))


def is_complete(run: Path, trial: TrialEntry) -> bool:
    """Return whether a trial ended and its records are intact: a loss of power may have truncated them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return trial.status == "complete" and bool(pq.read_metadata(run / trial.path / "records.parquet"))
    except (OSError, pa.ArrowException):
        return False


def complete_trials(run: Path) -> set[tuple[str, int]]:
    """Return the trials of a stored run that `is_complete`, as (cell id, number of the load)."""
    return {(cell.id, trial.index) for cell, trial in Run.open(run).manifest.trials() if is_complete(run, trial)}


def record_writer(trial_folder: Path, part: str | None = None) -> StreamWriter[Record]:
    """Return the writer for the records of a trial, or for the part of them that one of several processes writes."""
    stream = record_stream(trial_folder, part)
    return StreamWriter(stream, record_schema(), to_columns, size=_list_elements, instead=failed_row)


def failed_row(record: Record, error: Exception) -> Record:
    """Return the substitute for a record that cannot be stored: its request, marked as failed."""
    kept = {name: getattr(record, name) for name in _PLANNED}
    why = f"the reply cannot be stored: {type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    return Record(**kept, status=Status.STREAM_ERROR, error=masked(" ".join(why.split()), 200))


def flush_or_end(writer: StreamWriter[Record], end: Callable[[], None]) -> None:
    """Store the records that are due. If that fails, call `end`, which ends the load, and raise StorageFailed."""
    try:
        writer.flush_if_due()
    except StorageFailed:
        end()
        raise


def _list_elements(record: Record) -> int:
    return 0 if record.chunk_ns is None else len(record.chunk_ns)


def record_stream(trial_folder: Path, part: str | None = None) -> Path:
    """Return the file to which the records of a trial, or of a part of it, stream."""
    return trial_folder / ("records.arrows" if part is None else f"records-{part}.arrows")


def record_streams(trial_folder: Path) -> list[Path]:
    """Return the streams of a trial whose records are not in Parquet yet."""
    return sorted(trial_folder.glob("records*.arrows"))


def forget_records(trial_folder: Path) -> None:
    """Delete the streams of a trial that begins again."""
    for stream in record_streams(trial_folder):
        stream.unlink()


class Ended(NamedTuple):
    """End (offset from T0) and phase of a request that has a record."""

    done_ns: int | None
    phase: str


def recorded_in(streams: Iterable[Path], worker: int | None = None) -> dict[int, Ended]:
    """Return the requests recorded in some streams so far; only those of `worker`, if given."""
    found: dict[int, Ended] = {}
    for batch in chain.from_iterable(read_batches(stream) for stream in streams if stream.exists()):
        columns = [batch.column(name).to_pylist() for name in ("request", "done_ns", "phase", "worker")]
        found |= {
            request: Ended(done_ns, phase)
            for request, done_ns, phase, of in zip(*columns, strict=True)
            if worker is None or of == worker
        }
    return found


def sample_columns(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """Return readings as columns."""
    return {name: [getattr(sample, name) for sample in samples] for name in sample_schema().names}


@dataclass(frozen=True, slots=True)
class TrialData:
    """Stored trial: its entry and its cell's in the manifest; its tables are read on request."""

    run: Path
    cell: CellEntry
    trial: TrialEntry

    def records(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row per request with the columns of `harness.records`; only `columns` if given."""
        import pyarrow as pa

        schema = pa.schema([f for f in record_schema() if columns is None or f.name in columns])
        frame: pd.DataFrame = pa.Table.from_batches(self.batches(schema.names), schema=schema).to_pandas()
        return frame

    def batches(self, columns: Sequence[str], parts: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, with some columns only, in batches of bounded size. Raises FileUnreadable.

        Args:
            parts: Approximate number of row groups to read, spread evenly over the file; None for all.
        """
        import pyarrow.parquet as pq

        folder = self.run / self.trial.path
        finished = folder / "records.parquet"
        with reading_errors(finished):
            if finished.exists():
                check_columns(pq.read_schema(finished), record_schema(), NEEDED)
                batches = read_parquet(finished, columns, BATCH_ELEMENTS, parts)
            else:  # the run has not ended, or was killed
                batches = chain.from_iterable(map(read_batches, record_streams(folder)))
            yield from (_completed(batch, columns) for batch in batches)

    def samples(self) -> pd.DataFrame:
        """Return the readings of the trial's cell: at_ns, source, name, value, scope, width_ns.

        Raises FileUnreadable.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = (self.run / self.trial.path).parent
        finished = folder / "samples.parquet"
        if finished.exists():
            with reading_errors(finished):
                table = pq.read_table(finished, page_checksum_verification=True)
                wanted = sample_schema()
                check_columns(table.schema, wanted, [name for name in wanted.names if name != "width_ns"])
        else:
            stream = folder / "samples.arrows"
            if not stream.exists() and self.cell.sampler is not None:
                raise FileUnreadable(f"{shortened(str(finished))} is missing")
            batches = list(read_batches(stream)) if stream.exists() else []
            table = pa.Table.from_batches(batches, schema=batches[0].schema if batches else sample_schema())
        frame = frame_of(table)
        return frame if "width_ns" in frame else frame.assign(width_ns=0)  # an older version did not store it


def _completed(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Return these columns of a batch of records; null if an older version did not store one."""
    import pyarrow as pa

    schema = record_schema()
    fields = [schema.field(name) for name in columns]
    stored = set(batch.schema.names)
    arrays = [batch.column(f.name) if f.name in stored else pa.nulls(batch.num_rows, f.type) for f in fields]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


@dataclass(frozen=True, slots=True)
class Run:
    """Stored run."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read a run's manifest. Raises RunUnreadable if it is missing, damaged, or of a newer version of harness."""
        file = path / MANIFEST
        stored = _manifest_at(file)
        if (found := stored["format"]) > FORMAT_VERSION:
            raise RunUnreadable(
                f"{path} has format {found}, this program reads up to {FORMAT_VERSION}; use a newer version of harness"
            )
        try:
            manifest = Manifest.model_validate(stored)
            _ = manifest.scenario_keys
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunUnreadable(f"{file} cannot be read: {where}: {first['msg']}") from None
        if (why := _contradiction(manifest)) is not None:
            raise RunUnreadable(f"{file} cannot be read: {why}")
        return cls(path, manifest)

    def trials(self) -> list[TrialData]:
        """Return the trials that have records, in the order in which they ran."""
        every = ((TrialData(self.path, cell, trial), self.path / trial.path) for cell, trial in self.manifest.trials())
        return [data for data, folder in every if (folder / "records.parquet").exists() or record_streams(folder)]


def _manifest_at(file: Path) -> dict[str, Any]:
    """Return the content of a manifest. Raises RunUnreadable unless it has a format and a list of cells."""
    try:
        stored = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise RunUnreadable(f"{file.parent} is not a run: it has no {MANIFEST}") from None
    except OSError as error:
        raise RunUnreadable(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else f"it is no JSON ({error})"
        raise RunUnreadable(f"{file} cannot be read: {why}; restore it, or measure again") from error
    if not isinstance(stored, dict) or "format" not in stored:
        raise RunUnreadable(f"{file} cannot be read: it is no manifest of harness, for it has no `format`")
    found = stored["format"]
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise RunUnreadable(f"{file} cannot be read: its format is {str(found)[:40]}, which is no version of a run")
    if found <= FORMAT_VERSION and not isinstance(stored.get("cells"), list):
        raise RunUnreadable(f"{file} cannot be read: it has no list of cells")
    return stored


def _contradiction(manifest: Manifest) -> str | None:
    """Return why a manifest cannot be that of a run: entries without a name, twice, or outside of the run's folder."""
    seen: set[str] = set()
    for place, cell in enumerate(manifest.cells):
        names = [(f"cells.{place}.id", cell.id)]
        names += [(f"cells.{place}.trials.{n}.path", one.path) for n, one in enumerate(cell.trials)]
        for key, name in names:
            if not name:
                return f"{key} is missing"
            if name in seen:
                return f"{key} is {shortened(name)}, as of another entry"
            seen.add(name)
        if cell.quality is not None and cell.quality.path:
            names.append((f"cells.{place}.quality.path", cell.quality.path))
        for key, name in names[1:]:
            parts = Path(name).parts
            if Path(name).is_absolute() or ".." in parts or "\0" in name or any(len(part) > 255 for part in parts):
                return f"{key} is {shortened(name)!r}, which is no place in a run"
        for number, trial in enumerate(cell.trials):
            if trial.t0_ns is not None and not 0 <= trial.t0_ns < 2**63:
                return f"cells.{place}.trials.{number}.t0_ns is no time"
            if (wrong := _wrong_limit(trial.limits)) is not None:
                return f"cells.{place}.trials.{number}.limits: {wrong}"
    return None


def _wrong_limit(limits: Sequence[str]) -> str | None:
    from harness.scenario.limits import parse_limit

    try:
        for text in limits:
            parse_limit(text)
    except ValueError as error:
        return str(error)
    return None


def new_run_path(name: str, *, runs: Path = RUNS, now: datetime | None = None) -> Path:
    """Return the default folder of a new run: runs/<time>-<name>."""
    path = first = runs / f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}"
    number = 1
    while path.exists():  # two runs within one second
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


def _created_utc(run: Path) -> str:
    """Return when a run was created; "" if its manifest cannot be read."""
    try:
        return str(_stored(run)["created_utc"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _stored(run: Path) -> Any:
    """Return the content of a manifest, or of an import's entry."""
    return json.loads((run / (MANIFEST if (run / MANIFEST).exists() else IMPORTED)).read_bytes())


def _newest(stored: Sequence[Path], before: int, runs: Path) -> Path:
    """Return the newest run but `before`."""
    if not stored:
        raise UsageError(f"there is no run in {runs}/ yet; make one with `harness run scenario.yaml`")
    if before >= len(stored):
        raise UsageError(f"latest~{before}: {runs}/ has {len(stored)} run{'' if len(stored) == 1 else 's'}")
    return sorted(stored, key=lambda run: (_created_utc(run), run.name))[-1 - before]


def _labels(run: Path) -> set[str]:
    """Return the labels of a run as "key=value"; none if it cannot be read."""
    try:
        labels = _stored(run)["labels"]
        return {f"{name}={value}" for name, value in labels.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def find_run(reference: str, *, runs: Path = RUNS, imports: bool = False) -> Path:
    """Return the run of a path, of a name (whole, or without its time), or the newest of some by its creation.

    "latest" is the newest of all, "latest~1" the one before it, "branch=main" the newest with that label, and
    "baseline:main" the baseline of that name. A name without "baseline:" is one too, if no run has it.

    Args:
        imports: Whether imported results of other tools count, too.

    Raises UsageError if no run or several runs fit, RunUnreadable if the baseline is damaged.
    """
    path, entries = Path(reference), (MANIFEST, IMPORTED) if imports else (MANIFEST,)
    try:
        if any((path / entry).exists() for entry in entries):
            return path
    except OSError as error:
        raise UsageError(f"{shortened(reference)}: {error.strerror}; name the folder of a run") from error
    if reference.startswith(baselines.PREFIX):
        return baselines.find(reference.removeprefix(baselines.PREFIX), baselines.default_folder()).path
    if (asked := _LATEST.fullmatch(reference)) is not None:
        return _newest(_folders(runs, entries), int(asked["before"] or 0), runs)
    if "=" in reference and (labelled := [run for run in _folders(runs, entries) if reference in _labels(run)]):
        return _newest(labelled, 0, runs)
    names = os.listdir(runs) if runs.is_dir() else []  # of thousands of runs few fit, and only these are looked into
    fits = _folders(runs, entries, [name for name in names if reference in (name, name.split("-", 1)[-1])])
    return _only_one(reference, fits, _baseline(reference), runs)


def _folders(runs: Path, entries: Sequence[str], names: Sequence[str] | None = None) -> list[Path]:
    """Return the folders of runs; only those of some names, if given."""
    if names is None:
        return sorted(found.parent for entry in entries for found in runs.glob(f"*/{entry}"))
    return sorted(runs / name for name in names if any((runs / name / entry).exists() for entry in entries))


def _baseline(reference: str) -> Path | None:
    """Return the baseline of a plain name, or in the folder of a name; None if there is none."""
    if reference in ("", ".", ".."):
        return None
    return baselines.newest_in(Path(reference) if os.sep in reference else baselines.default_folder() / reference)


def _only_one(reference: str, fits: Sequence[Path], baseline: Path | None, runs: Path) -> Path:
    """Return the run or baseline that fits. Raises UsageError if none or several do."""
    if len(fits) > 1:
        names = ", ".join(run.name for run in fits)
        raise UsageError(f"{reference!r} fits {len(fits)} runs ({names}); give one in full")
    if fits and baseline is not None:
        raise UsageError(f"{reference!r} is a run and a baseline: write {fits[0]} or {baselines.PREFIX}{reference}")
    if not fits and baseline is None:
        raise UsageError(f"there is no run {reference!r}: neither a folder with a {MANIFEST} nor a name in {runs}/")
    return fits[0] if fits else baseline  # type: ignore[return-value]
