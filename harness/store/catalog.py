"""Catalog of the stored runs in a folder: from manifests and stored verdicts alone, which is quick for thousands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

MANIFEST, SUMMARY = "manifest.json", "summary.json"
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
    return sorted(found, key=lambda one: (one.created_utc, one.path.name), reverse=True), damaged


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
