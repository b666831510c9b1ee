"""Store of nightly history: a folder to cache, to commit or to share, in which nothing is ever changed.

```
history/
  history.yaml            settings; may be missing
  nights/*.parquet        one file for each run that was added
  notes/*.json            one file for each note
  told/*.json             one file for each alert that was told
```

Names follow from the content, and each file is renamed into its place when it is whole. So several writers at once lose
nothing, readers never see half a file, adding a night twice is one night, and the files of two stores can be merged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from harness.errors import RunUnreadable, UsageError, shortened
from harness.history.series import Series
from harness.history.store.assembly import assembled
from harness.history.store.files import FORMAT, Reader, as_parquet, put, remove_stale, visible
from harness.history.store.night import Night, digest
from harness.history.store.notes import Note, read_note, write_note
from harness.history.store.settings import SETTINGS, Settings, read_settings
from harness.store.run import MANIFEST

ENVIRONMENT = "HARNESS_HISTORY"
NIGHTS, NOTES, TOLD = "nights", "notes", "told"
_MAKE_ONE = "`harness history add latest` makes one"

T = TypeVar("T")


def default_folder() -> Path:
    """Return the folder of the history: as HARNESS_HISTORY says, else `history`."""
    return Path(os.environ.get(ENVIRONMENT) or "history")


@dataclass(slots=True)
class Store:
    """Store of nightly history.

    Attributes:
        damage: A sentence for each file that was skipped.
    """

    folder: Path
    settings: Settings
    damage: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Return the store of a folder. Raises UsageError if there is none, ScenarioError for wrong settings."""
        if not _is_folder(folder / NIGHTS) and not (folder / SETTINGS).is_file():
            raise UsageError(f"there is no history in {shortened(str(folder))}; {_MAKE_ONE}")
        return cls(folder, read_settings(folder))

    @classmethod
    def made(cls, folder: Path) -> Store:
        """Return the store of a folder that may be new. Raises UsageError for a folder that is something else."""
        if (folder / MANIFEST).exists():
            raise UsageError(f"{folder} is a run and no history; choose another folder with --store")
        if folder.exists() and not _is_folder(folder):
            raise UsageError(f"{folder} is a file; choose a folder with --store")
        return cls(folder, read_settings(folder))

    def add(self, night: Night, *, now: datetime | None = None) -> bool:
        """Store a night, and return whether it is new. Raises StorageFailed if it cannot be written.

        A damaged file of the same night is replaced.
        """
        path = self.folder / NIGHTS / f"{night.name}.parquet"
        if _is_whole(path):
            return False
        put(path, as_parquet(night, now or datetime.now(UTC)))
        remove_stale(path.parent)
        return True

    def nights(self) -> list[Night]:
        """Return all additions. Files that cannot be read are skipped and named in `damage`."""
        reader = Reader()
        return [*self._read(NIGHTS, ".parquet", reader.night)]

    def notes(self) -> list[Note]:
        """Return all notes, oldest first. Files that cannot be read are skipped and named in `damage`."""
        return sorted(self._read(NOTES, ".json", read_note), key=lambda one: (one.night, one.written_utc, one.text))

    def series(self) -> list[Series]:
        """Return all series with their events, resets and controls. `damage` names the files that were skipped."""
        return assembled(self.nights(), self.notes(), self.settings)

    def note(self, night: str, text: str, key: Mapping[str, str], by: str = "", *, now: datetime | None = None) -> Path:
        """Store a note on a night of the series that have these fields; of all series if there are none."""
        written = (now or datetime.now(UTC)).isoformat(timespec="microseconds")
        return write_note(self.folder / NOTES, Note(night, text, dict(key), written, by))

    def told(self) -> frozenset[str]:
        """Return the identities of the alerts that were told."""
        return frozenset(self._read(TOLD, ".json", _read_told))

    def tell(self, alerts: Collection[str]) -> None:
        """Remember that alerts were told. Raises StorageFailed."""
        for alert in alerts:
            content = json.dumps({"format": FORMAT, "alert": alert}, ensure_ascii=False)
            put(self.folder / TOLD / f"{digest(alert)[:24]}.json", content.encode() + b"\n")

    def _read(self, kind: str, ending: str, read: Callable[[Path], T]) -> Iterable[T]:
        for path in visible(self.folder / kind, ending):
            try:
                yield read(path)
            except FileNotFoundError:
                continue  # somebody removed it just now
            except (RunUnreadable, OSError) as error:
                why = str(error) if isinstance(error, RunUnreadable) else f"{path} cannot be read: {error.strerror}"
                if (sentence := f"{why}; skipped") not in self.damage:
                    self.damage.append(sentence)


def _read_told(path: Path) -> str:
    try:
        stored = json.loads(path.read_bytes())
        if stored["format"] > FORMAT:
            raise RunUnreadable(f"{path} is of a newer version of harness; use that")
        return str(stored["alert"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunUnreadable(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _is_whole(path: Path) -> bool:
    """Return whether a night is stored and can be read."""
    try:
        Reader().night(path)
    except (RunUnreadable, OSError):
        return False
    return True


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise UsageError(f"{shortened(str(path))}: {error.strerror}; choose another folder with --store") from error
