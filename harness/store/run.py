"""A run on disk: a folder that is never overwritten and that any newer version can read.

`docs/architecture.md` draws the folder. Nothing here measures or judges.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from harness.errors import RunDirectoryExists, RunUnreadable, StorageFailed, UsageError
from harness.records import FORMAT_VERSION, Record, Sample, Status, record_schema, sample_schema, to_columns
from harness.store.categories import frame_of
from harness.store.manifest import CellEntry, Manifest, TrialEntry
from harness.store.streams import StreamWriter, read_batches, read_parquet, storage_errors, to_parquet, write_atomically

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MANIFEST = "manifest.json"
RUNS = Path("runs")
BATCH_ELEMENTS = 2**20
_SENTENCE = 200
_PLANNED = (
    "request", "class_name", "session", "turn", "user", "phase", "loop", "after", "think_ns", "repeats",
    "planned_cancel_ns", "due_ns", "dispatched_ns", "sent_ns", "done_ns", "requested_prompt_tokens",
    "requested_output_tokens", "worker",
)  # fmt: skip


def refuse_existing(path: Path) -> None:
    """Raises RunDirectoryExists unless a new run may be stored there."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunDirectoryExists(f"{path} exists and results are never overwritten; choose another folder with --out")


class RunWriter:
    """A run that is being made. Its folder must be new; the manifest is replaced atomically whenever it changes."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self.manifest.format = FORMAT_VERSION
        with storage_errors(path):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                refuse_existing(path)
        self.save()

    @classmethod
    def reopen(cls, path: Path) -> RunWriter:
        """A stored run, to go on with it. Raises RunUnreadable as `Run.open` does."""
        writer = cls.__new__(cls)
        writer.path, writer.manifest = path, Run.open(path).manifest
        writer.manifest.format = FORMAT_VERSION
        return writer

    def save(self) -> None:
        """Write the manifest."""
        write_atomically(self.path / MANIFEST, self.manifest.text())

    def folder(self, relative: str) -> Path:
        """A folder inside the run, made if need be."""
        made = self.path / relative
        with storage_errors(made):
            made.mkdir(parents=True, exist_ok=True)
        return made

    def samples(self, cell_folder: Path) -> StreamWriter[Sample]:
        """Where the readings of a cell go."""
        return StreamWriter(cell_folder / "samples.arrows", sample_schema(), sample_columns, flush_s=2.0)

    def finish_samples(self, cell_folder: Path) -> int:
        """Close the readings of a cell; returns their number."""
        return to_parquet([cell_folder / "samples.arrows"], cell_folder / "samples.parquet", sample_schema())

    def finish_records(self, trial_folder: Path, recounted: Mapping[int, int] | None = None) -> int:
        """Put the records of a trial into one file, however it ended and whoever wrote them; returns their number.

        recounted: their `retokenized_tokens` by request, which are known only when the load is over.
        """
        streams, completed = record_streams(trial_folder), partial(with_recounted, recounted=recounted or {})
        return to_parquet(streams, trial_folder / "records.parquet", record_schema(), completed) if streams else 0


def with_recounted(records: pa.Table, recounted: Mapping[int, int]) -> pa.Table:
    """Records with `retokenized_tokens`, by request."""
    import pyarrow as pa

    if not recounted:
        return records
    place = records.schema.get_field_index("retokenized_tokens")
    tokens = [recounted.get(request) for request in records.column("request").to_pylist()]
    return records.set_column(place, records.schema.field(place), pa.array(tokens, records.schema.field(place).type))


def is_complete(run: Path, trial: TrialEntry) -> bool:
    """Whether a trial came to its end and its records are there, whole: a loss of power may have cut them off."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return trial.status == "complete" and bool(pq.read_metadata(run / trial.path / "records.parquet"))
    except (OSError, pa.ArrowException):
        return False


def record_writer(trial_folder: Path, part: str | None = None) -> StreamWriter[Record]:
    """Where the records of a trial go. part: who writes them, where several do."""
    return StreamWriter(
        record_stream(trial_folder, part), record_schema(), to_columns, size=_elements, instead=failed_row
    )


def failed_row(record: Record, error: Exception) -> Record:
    """What takes the place of a record that cannot be stored: when and what was asked, and that it failed."""
    kept = {name: getattr(record, name) for name in _PLANNED}
    why = f"the reply cannot be stored: {type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    return Record(**kept, status=Status.STREAM_ERROR, error=" ".join(why.split())[:_SENTENCE])


def flush_or_end(writer: StreamWriter[Record], end: Callable[[], None]) -> None:
    """Store the records that have waited long enough; where that is not possible any more, end the load.

    Raises StorageFailed.
    """
    try:
        writer.flush_if_due()
    except StorageFailed:
        end()
        raise


def _elements(record: Record) -> int:
    """Of the lists of a record."""
    return 0 if record.chunk_ns is None else len(record.chunk_ns)


def record_stream(trial_folder: Path, part: str | None = None) -> Path:
    """The file to which the records of a trial, or of a part of it, stream."""
    return trial_folder / ("records.arrows" if part is None else f"records-{part}.arrows")


def record_streams(trial_folder: Path) -> list[Path]:
    """All such files of a trial that is not closed."""
    return sorted(trial_folder.glob("records*.arrows"))


class Told(NamedTuple):
    """What is known of a request that has a record: when it was over, as an offset from T0, and its phase."""

    done_ns: int | None
    phase: str


def told_in(streams: Iterable[Path], worker: int | None = None) -> dict[int, Told]:
    """The requests that have records in some files so far; only a worker's, if one is given."""
    found: dict[int, Told] = {}
    for batch in chain.from_iterable(read_batches(stream) for stream in streams if stream.exists()):
        columns = [batch.column(name).to_pylist() for name in ("request", "done_ns", "phase", "worker")]
        found |= {
            request: Told(done_ns, phase)
            for request, done_ns, phase, of in zip(*columns, strict=True)
            if worker is None or of == worker
        }
    return found


def sample_columns(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """Readings as columns."""
    return {name: [getattr(sample, name) for sample in samples] for name in sample_schema().names}


@dataclass(frozen=True, slots=True)
class TrialData:
    """What is stored of one trial: its entry and its cell's in the manifest, and the tables on request."""

    run: Path
    cell: CellEntry
    trial: TrialEntry

    def records(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per request, under the names of `harness.records`; only `columns` if given."""
        import pyarrow as pa

        chosen = [f for f in record_schema() if columns is None or f.name in columns]
        batches = self.batches([column.name for column in chosen])
        frame: pd.DataFrame = pa.Table.from_batches(batches, schema=pa.schema(chosen)).to_pandas()
        return frame

    def batches(self, columns: Sequence[str], parts: int | None = None) -> Iterator[pa.RecordBatch]:
        """The same rows in the same order, some columns only, in batches of bounded size.

        parts: only about so many parts of the file, spread evenly.
        """
        folder = self.run / self.trial.path
        finished = folder / "records.parquet"
        if finished.exists():
            batches = read_parquet(finished, columns, BATCH_ELEMENTS, parts)
        else:  # the run is still going on, or was killed before it could be closed
            batches = chain.from_iterable(map(read_batches, record_streams(folder)))
        yield from (whole(batch, columns) for batch in batches)

    def samples(self) -> pd.DataFrame:
        """The readings of the trial's cell: at_ns, source, name, value, scope, width_ns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = (self.run / self.trial.path).parent
        finished = folder / "samples.parquet"
        if finished.exists():
            table = pq.read_table(finished)
        else:
            stream = folder / "samples.arrows"
            batches = list(read_batches(stream)) if stream.exists() else []
            table = pa.Table.from_batches(batches, schema=batches[0].schema if batches else sample_schema())
        frame = frame_of(table)
        return frame if "width_ns" in frame else frame.assign(width_ns=0)  # an older version did not store it

    def has_records(self) -> bool:
        """Whether anything was stored of the trial."""
        folder = self.run / self.trial.path
        return (folder / "records.parquet").exists() or bool(record_streams(folder))


def whole(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """These columns of a batch of records; null where an older version of this program did not store one."""
    import pyarrow as pa

    schema = record_schema()
    fields = [schema.field(name) for name in columns]
    stored = set(batch.schema.names)
    arrays = [batch.column(f.name) if f.name in stored else pa.nulls(batch.num_rows, f.type) for f in fields]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


@dataclass(frozen=True, slots=True)
class Run:
    """A stored run."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read a run's manifest.

        Raises RunUnreadable if there is none, if it is damaged, or if a newer version of this program wrote it.
        """
        file = path / MANIFEST
        try:
            stored = json.loads(file.read_bytes())
            found = int(stored["format"])
        except FileNotFoundError:
            raise RunUnreadable(f"{path} is not a run: it has no {MANIFEST}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunUnreadable(f"{file} cannot be read: {error}") from error
        if found > FORMAT_VERSION:
            raise RunUnreadable(
                f"{path} has format {found}, this program reads up to {FORMAT_VERSION}; use a newer version of harness"
            )
        if not isinstance(stored.get("cells"), list):
            raise RunUnreadable(f"{file} cannot be read: it has no list of cells")
        try:
            return cls(path, Manifest.model_validate(stored))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunUnreadable(f"{file} cannot be read: {where}: {first['msg']}") from None

    def trials(self) -> list[TrialData]:
        """The trials of which something was stored, in the order they were run."""
        every = [TrialData(self.path, cell, trial) for cell, trial in self.manifest.trials()]
        return [data for data in every if data.has_records()]


def new_run_path(name: str, *, runs: Path = RUNS, now: datetime | None = None) -> Path:
    """The folder of a run that was given none: runs/<time>-<name>."""
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    path = runs / f"{moment}-{name}"
    number = 2
    while path.exists():  # two runs within one second
        path = runs / f"{moment}-{name}-{number}"
        number += 1
    return path


def find_run(reference: str, *, runs: Path = RUNS) -> Path:
    """The run that a user means: a path, a run's name (whole or its last part), or "latest".

    Raises UsageError if there is no such run, or if a name fits several.
    """
    path = Path(reference)
    if (path / MANIFEST).exists():
        return path
    stored = sorted(found.parent for found in runs.glob(f"*/{MANIFEST}"))
    if reference == "latest":
        if not stored:
            raise UsageError(f"there is no run in {runs}/ yet; make one with `harness run scenario.yaml`")
        return stored[-1]
    fits = [run for run in stored if run.name == reference or run.name.split("-", 1)[-1] == reference]
    if len(fits) > 1:
        raise UsageError(
            f"{reference!r} fits {len(fits)} runs ({', '.join(run.name for run in fits)}); give one in full"
        )
    if not fits:
        raise UsageError(f"there is no run {reference!r}: neither a folder with a {MANIFEST} nor a name in {runs}/")
    return fits[0]
