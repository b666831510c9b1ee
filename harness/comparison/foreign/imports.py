"""Imported results: a copy of the file of another tool in a folder of its own, which commands find by its name.

The file is kept as it was, so that a later version, which knows more of it, reads it again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from harness.comparison.foreign.base import ForeignRun
from harness.comparison.foreign.reading import files_of, read_foreign
from harness.errors import RunUnreadable
from harness.store.run import IMPORTED, refuse_existing
from harness.store.streams import storage_errors, write_atomically

FORMAT = 1


def import_result(source: Path, folder: Path, labels: Mapping[str, str] | None = None) -> ForeignRun:
    """Store a result file in a new folder; return what it says.

    Raises RunUnreadable if it cannot be read, RunDirectoryExists if the folder is in use, StorageFailed.
    """
    found = read_foreign(source)
    refuse_existing(folder)
    files = files_of(source)
    entry = {
        "format": FORMAT,
        "created_utc": datetime.now(UTC).isoformat(timespec="microseconds"),
        "file": files[0].name,
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "tool": found.tool,
        "version": found.version,
        "labels": dict(labels or {}),
        "load_generator_verified": False,
    }
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, folder / file.name)
        write_atomically(folder / IMPORTED, json.dumps(entry, indent=2).encode() + b"\n")
    return found


def imported_file(folder: Path) -> Path:
    """Return the result file of an import. Raises RunUnreadable, one sentence, if its entry is damaged."""
    entry = folder / IMPORTED
    try:
        stored = json.loads(entry.read_bytes())
        if stored["format"] > FORMAT:
            raise RunUnreadable(f"{entry} is of a newer version of harness; use that")
        return folder / Path(str(stored["file"])).name
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunUnreadable(f"{entry} cannot be read: {type(error).__name__}: {error}") from error


def import_labels(folder: Path) -> dict[str, str]:
    """Return the labels of an import; none for a folder that is none, or whose entry is damaged."""
    try:
        stored = json.loads((folder / IMPORTED).read_bytes())["labels"]
        return {str(name): str(value) for name, value in stored.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
