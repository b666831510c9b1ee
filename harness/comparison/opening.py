"""Opening of a side by what a user calls it: a stored run, an import, or the result file of another tool."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from harness.comparison.foreign.imports import import_labels, imported_file
from harness.comparison.foreign.reading import is_result
from harness.comparison.foreign.sides import foreign_side
from harness.comparison.sides import Side, read_side
from harness.store.run import IMPORTED, MANIFEST, find_run


def open_side(name: str, statistics: Collection[tuple[str, str]] = (), *, pictures: bool = True) -> Side:
    """Read what a name stands for.

    Args:
        name: File of another tool; folder, name, age or label of a run or an import.
        statistics: Further (metric, statistic) pairs that a margin asks for.
        pictures: Whether distributions and times are needed.

    Raises UsageError if nothing has the name, RunUnreadable, one sentence, if it cannot be read.
    """
    path = Path(name)
    if is_result(path):
        return foreign_side(name, path, statistics)
    path = find_run(name, imports=True)
    if (path / IMPORTED).exists() and not (path / MANIFEST).exists():
        side = foreign_side(name, imported_file(path), statistics)
        side.manifest.labels = {**import_labels(path)}
        return side
    return read_side(name, path, statistics, pictures=pictures)
