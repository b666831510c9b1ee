"""Plans of gates, bisections and tunings: a JSON file in the folder of their runs, with a version of its form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import RunUnreadable
from harness.store.streams import storage_errors, write_atomically

T = TypeVar("T")


def save_plan(file: Path, version: int, content: Mapping[str, Any]) -> None:
    """Store a plan. Raises StorageFailed if it cannot be written."""
    with storage_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({"format": version, **content}, indent=2).encode())


def read_plan(file: Path, version: int, what: str, made: Callable[[dict[str, Any]], T]) -> T:
    """Return a stored plan. Raises RunUnreadable, one sentence, if it is none.

    Args:
        what: What it is a plan of, such as "a gate".
        made: Makes it of the content without `format`.
    """
    try:
        stored = json.loads(file.read_bytes())
        if stored.pop("format") > version:
            raise RunUnreadable(f"{file} is of a newer version of harness; use that")
        return made(stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunUnreadable(f"{file} is no plan of {what}: {type(error).__name__}: {error}") from error
