"""Names of series: their fields as words, and the series that a user means by some of them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import UsageError
from harness.history.series import Key
from harness.metrics import SCALAR, find

_PLACES = (
    "load",
    "class_name",
    "metric",
    "statistic",
    "model",
    "engine",
    "level",
    "variant",
    "scenario",
    "machine",
    "tool",
)
_MOST_LISTED = 12


def words(key: Key) -> tuple[str, ...]:
    """Return the fields of a series that say something, in the order of its name."""
    found = (getattr(key, place) for place in _PLACES)
    return tuple(word for word in found if word and word != SCALAR)


def name_of(key: Key) -> str:
    """Return the whole name of a series."""
    return " ".join(words(key))


def short_names(keys: Sequence[Key]) -> list[str]:
    """Return names without the fields that all of several series share; never without load and metric."""
    kept = ("load", "metric", "statistic")
    telling = [place for place in _PLACES if place in kept or len({getattr(key, place) for key in keys}) > 1]
    silent = ("", "all", SCALAR)
    return [" ".join(word for place in telling if (word := getattr(key, place)) not in silent) for key in keys]


def shared(keys: Sequence[Key]) -> str:
    """Return the fields that all of several series share, which `short_names` leaves out."""
    same = [place for place in _PLACES if len({getattr(key, place) for key in keys}) == 1]
    kept = ("load", "metric", "statistic")
    return " ".join(word for place in same if place not in kept and (word := getattr(keys[0], place)))


def fitting(text: str, keys: Sequence[Key]) -> list[int]:
    """Return the places of the series that a text names: the number in the list, or words of their names.

    Each word fits a field that it is a part of. If some series have each word as a whole field, only these are meant.
    """
    wanted = text.split()
    if len(wanted) == 1 and wanted[0].isascii() and wanted[0].isdecimal():
        number = int(wanted[0])
        return [number - 1] if 1 <= number <= len(keys) else []
    parts = [place for place, key in enumerate(keys) if all(_is_part(word, key) for word in wanted)]
    return [place for place in parts if all(_is_whole(word, keys[place]) for word in wanted)] or parts


def the_one(text: str, keys: Sequence[Key]) -> int:
    """Return the place of the only series that a text names. Raises UsageError, with the candidates, otherwise."""
    found = fitting(text, keys)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"there is no series {text!r}; `harness history list` shows all {len(keys)}")
    names = short_names([keys[place] for place in found])
    listed = [f"  {place + 1}  {name}" for place, name in list(zip(found, names, strict=True))[:_MOST_LISTED]]
    more = len(found) - len(listed)
    lines = [*listed, *([f"  and {more} more"] if more else [])]
    raise UsageError("\n".join([f"{text!r} fits {len(found)} series; add a word, or write the number:", *lines]))


def _is_part(word: str, key: Key) -> bool:
    asked = word.lower()
    return any(asked in field.lower() for field in words(key)) or _is_whole(word, key)


def _is_whole(word: str, key: Key) -> bool:
    asked = word.lower()
    metric = find(asked) or find(f"{asked}_ms")
    return asked in (field.lower() for field in words(key)) or (metric is not None and metric.name == key.metric)
