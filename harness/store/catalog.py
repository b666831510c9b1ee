"""Catalog of the stored runs in a folder: from manifests and stored verdicts alone, which is quick for thousands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

MANIFEST, SUMMARY = "manifest.json", "summary.json"
OF_RUNS = (
    ("gate", "gate.json", "comparison.json"),
    ("bisection", "bisect.json", "bisection.json"),
    ("tuning", "tune.json", "tuning.json"),
)
"""Folders of several runs: their kind, the file that has their plan, and the one that has their result."""
_TIME = "%Y%m%dT%H%M%SZ"
_WORDS = {1: "fail", 4: "poor data", 6: "cannot tell"}


@dataclass(frozen=True, slots=True)
class Entry:
    """Stored run.

    Attributes:
        created_utc: When it began, in ISO 8601; "" if it is unknown.
        verdict: Word of the last report about its limits; "" without limits or report.
    """

    path: Path
    name: str
    created_utc: str
    status: str
    labels: dict[str, str]
    verdict: str


def catalog(runs: Path) -> tuple[list[Entry], list[str]]:
    """Return the runs of a folder, the newest first, and a sentence for each whose manifest cannot be read."""
    found, damaged = list[Entry](), list[str]()
    for file in sorted(runs.glob(f"*/{MANIFEST}")):
        try:
            found.append(_entry(file.parent, orjson.loads(file.read_bytes())))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            damaged.append(f"{file} cannot be read: {type(error).__name__}: {error}")
    return newest_first(found), damaged


def gates(runs: Path) -> list[Entry]:
    """Return the folders of several runs, each with the word of its result; times are those in their names."""
    return [
        Entry(file.parent, file.parent.name, _time_of(file.parent), kind, {}, _word(file.with_name(result)))
        for kind, plan, result in OF_RUNS
        for file in runs.glob(f"*/{plan}")
    ]


def newest_first(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries by their time."""
    return sorted(entries, key=lambda one: (one.created_utc, one.path.name), reverse=True)


def _entry(run: Path, stored: dict[str, Any]) -> Entry:
    labels = {str(name): str(value) for name, value in (stored.get("labels") or {}).items()}
    return Entry(
        path=run,
        name=str(stored["name"]),
        created_utc=str(stored.get("created_utc") or ""),
        status=str(stored["status"]),
        labels=labels,
        verdict=_verdict(run / SUMMARY),
    )


def _verdict(file: Path) -> str:
    """Return the word of a stored summary; "" if there is none, or it cannot be read."""
    try:
        stored = orjson.loads(file.read_bytes())
        return _WORDS.get(stored["exit_code"], "pass" if stored["exit_code"] == 0 and stored["limits"] else "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _word(file: Path) -> str:
    """Return the word of a stored comparison, bisection or tuning; "" if there is none, or it cannot be read."""
    try:
        return str(orjson.loads(file.read_bytes())["word"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _time_of(folder: Path) -> str:
    """Return the time in the name of a folder, in ISO 8601; "" if it has none."""
    try:
        return datetime.strptime(folder.name.partition("-")[0], _TIME).replace(tzinfo=UTC).isoformat()
    except ValueError:
        return ""
