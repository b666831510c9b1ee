"""Values in the JSON of servers, taken only where they are what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import Any

from engines.base import Chunk, ChunkKind

_MOST = 2**53


def text_at(event: Mapping[str, Any], *names: str) -> str:
    """The first of these that is there and not empty, else "". Raises TypeError where it is no text."""
    for name in names:
        found = event.get(name)
        if found:
            if not isinstance(found, str):
                raise TypeError(f"{name} is no text")
            return found
    return ""


def count_at(event: Mapping[str, Any], name: str) -> int | None:
    """A number of tokens; None where there is none."""
    found = event.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < _MOST else None


def amount_at(event: Mapping[str, Any], name: str, factor: float = 1.0) -> float | None:
    """A number that is not negative, times the factor that makes it ours; None where there is none."""
    found = event.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < _MOST * 1e6:
        return None
    return float(found) * factor if isfinite(found) else None


def reported_of(**amounts: float | None) -> dict[str, float] | None:
    """What a server reports, without what it is silent about; None for nothing at all."""
    return {name: amount for name, amount in amounts.items() if amount is not None} or None


@lru_cache(maxsize=20_000)
def piece(kind: ChunkKind, text: str) -> Chunk:
    """A piece of text; few differ, and to look one up costs less than to make it."""
    return Chunk(kind, text)
