"""Options of an engine, read strictly: unknown names and wrong types are refused, defaults are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from engines.base import EngineError

Options = TypeVar("Options")
DEFAULT_CONTEXT_TOKENS = 4096
"""The longest context that an engine is given unasked, where the model was made for more."""
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "nothing"}


def read_options(kind: type[Options], given: Mapping[str, Any], engine: str) -> Options:
    """A dataclass of options from what the scenario says.

    Fields may be int, float, str, bool, a mapping or list type, or a union of these. Raises EngineError, which names
    the option and what to write instead; also for a ValueError out of the dataclass' own checks.
    """
    hints = get_type_hints(kind)
    names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in names:
            raise EngineError(f"engine {engine!r} has no option {name!r}; {_instead(name, names)}")
        accepted = _accepted(hints[name])
        if not _fits(value, accepted):
            wanted = " or ".join(_WORDS.get(one, "a mapping" if one is Mapping else "a list") for one in accepted)
            raise EngineError(f"option {name!r} of engine {engine!r} is {wanted}, not {value!r}")
        values[name] = float(value) if float in accepted and type(value) is int and int not in accepted else value
    try:
        return kind(**values)
    except ValueError as error:
        raise EngineError(f"options of engine {engine!r}: {error}") from error


def _instead(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(names))}"


def _accepted(hint: Any) -> tuple[Any, ...]:
    parts = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return tuple(get_origin(part) or part for part in parts)


def _fits(value: object, accepted: tuple[Any, ...]) -> bool:
    if isinstance(value, bool):
        return bool in accepted
    return isinstance(value, accepted) or (float in accepted and isinstance(value, int))
