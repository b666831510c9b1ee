"""Notes of a store: what people know of a night, each a file of its own, so that several writers lose nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from harness.errors import RunUnreadable
from harness.history.series import Event, Key, Point
from harness.history.store.events import NOTE
from harness.history.store.files import FORMAT, put
from harness.history.store.night import clean, digest


@dataclass(frozen=True, slots=True)
class Note:
    """Note on a night.

    Attributes:
        night: The day, or the moment, in ISO 8601 and UTC.
        key: Fields of the series that it is about; all series that have these. None: all of the store.
        by: Who wrote it; "" if unknown.
    """

    night: str
    text: str
    key: Mapping[str, str]
    written_utc: str
    by: str = ""

    def is_about(self, facts: Mapping[str, str]) -> bool:
        """Return whether it is about a series with these facts."""
        return all(facts.get(name) == value for name, value in self.key.items())

    def event(self, points: Sequence[Point]) -> Event:
        """Return the event of it: at the first point of that day, or at the moment that it names."""
        at = moment(self.night)
        if len(self.night) > len("2026-11-30"):
            return Event(at, NOTE, self.text)
        same = [point.at for point in points if point.at.date() == at.date()]
        return Event(same[0] if same else at, NOTE, self.text)


def moment(text: str) -> datetime:
    """Return a day or a moment in UTC. Raises ValueError, with the fix, if it is none."""
    try:
        if len(text) == len("2026-11-30"):
            return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date; write it as 2026-11-30") from None
    return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)


def key_facts(key: Key) -> dict[str, str]:
    """Return the fields of a series by name."""
    return {name: str(getattr(key, name)) for name in Key.__dataclass_fields__}


def write_note(folder: Path, note: Note) -> Path:
    """Store a note. Raises StorageFailed."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "night": note.night,
        "text": clean(note.text),
        "key": dict(note.key),
        "written_utc": note.written_utc,
        "by": note.by,
    }
    day = moment(note.night)
    path = folder / f"{day:%Y%m%d}-{digest(content)[:16]}.json"
    put(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
    return path


def read_note(path: Path) -> Note:
    """Return the note of a file.

    Raises RunUnreadable, one sentence, if it is damaged or of a newer version; FileNotFoundError if it is gone.
    """
    content = path.read_bytes()
    try:
        stored = json.loads(content)
        if stored["format"] > FORMAT:
            raise RunUnreadable(f"{path} is of a newer version of harness; use that")
        key = {str(name): str(value) for name, value in stored["key"].items()}
        note = Note(str(stored["night"]), clean(stored["text"]), key, str(stored["written_utc"]), str(stored["by"]))
        moment(note.night)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunUnreadable(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    return note
