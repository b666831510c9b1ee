"""Choosing cells of a matrix by name, as `--only` does."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from harness.cells import Cell, Skip
from harness.errors import UsageError
from harness.scenario_problems import near

KEYS = {
    "model": "model",
    "engine": "engine",
    "quantization": "level",
    "variant": "variant",
    "repetition": "repetition",
}


def chosen(planned: list[Cell | Skip], only: Mapping[str, str]) -> list[Cell | Skip]:
    """Those that fit a pattern of every key, such as {"quantization": "q4_*|q8_0"}; keys are those of `KEYS`.

    Raises UsageError if none fits, or for an unknown key.
    """
    for key in only:
        if key not in KEYS:
            raise UsageError(f"cells cannot be chosen by `{key}`; {near(key, KEYS)}")
    kept = [cell for cell in planned if all(_fits(cell, key, pattern) for key, pattern in only.items())]
    if not kept:
        wanted = ", ".join(f"{key}={pattern}" for key, pattern in only.items())
        raise UsageError(f"no cell fits {wanted}; there are {', '.join(cell.id for cell in planned)}")
    return kept


def _fits(cell: Cell | Skip, key: str, pattern: str) -> bool:
    value = getattr(cell, KEYS[key])
    return value is not None and any(fnmatchcase(str(value), one.strip()) for one in pattern.split("|"))
