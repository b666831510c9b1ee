"""Baseline from a run: the files that a later comparison reads, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from harness.errors import RunUnreadable, StorageFailed, UsageError
from harness.store.baselines import Kept, add, copy_file
from harness.store.run import MANIFEST, Run


def keep(name: str, path: Path, folder: Path) -> Kept:
    """Keep a stored run of any format as the newest baseline of a name.

    Raises UsageError for a run that is not over or measured nothing, RunUnreadable if it is damaged, StorageFailed if
    the baseline cannot be written.
    """
    run = Run.open(path)
    if run.manifest.status in ("running", ""):
        raise UsageError(f"{path} is not over: `harness run --resume {path}` measures the rest")
    files = [*_files(run)]
    if not any(file.name == "records.parquet" for file in files):
        raise UsageError(f"{path} measured nothing, so it cannot be a baseline")
    try:
        return add(name, path.resolve().name, folder, lambda new: _copy(path, files, new))
    except OSError as error:
        why = f"{folder}: cannot write: {error.strerror or error}"
        raise StorageFailed(f"{why}; choose another folder of baselines with --dir") from error


def _copy(run: Path, files: list[Path], new: Path) -> None:
    for file in files:
        copy_file(run / file, new / file)


def _files(run: Run) -> Iterator[Path]:
    """Yield the files of a run that a comparison reads, each once: manifest, records, readings and scores."""
    yield Path(MANIFEST)
    named = [f"{trial.path}/records.parquet" for _, trial in run.manifest.trials()]
    named += [f"{PurePosixPath(trial.path).parent}/samples.parquet" for _, trial in run.manifest.trials()]
    named += [str(cell.quality.path) for cell in run.manifest.cells if cell.quality is not None and cell.quality.path]
    for name in dict.fromkeys(("summary.parquet", *named)):
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise RunUnreadable(f"{run.path / MANIFEST} names a file outside of the run: {name}")
        if (run.path / name).is_file():
            yield Path(name)
