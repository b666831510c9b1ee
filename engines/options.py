"""Strict reading of engine options: unknown names and invalid values are refused, defaults are filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from engines.base import EngineError, UnknownOption

Options = TypeVar("Options")
Positive = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=1, le=65535)]
DEFAULT_CONTEXT_TOKENS = 4096
"""Default limit of the context, for models that were made for more."""
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "nothing"}
_OTHER_TYPE = ("_type", "none_required", "is_instance_of")
_BOUNDS = {
    ("gt",): "more than {gt}",
    ("ge",): "{ge} or more",
    ("ge", "le"): "from {ge} to {le}",
    ("gt", "le"): "above {gt} and at most {le}",
}


def read_options(kind: type[Options], given: Mapping[str, Any], engine: str) -> Options:
    """Return a dataclass of options from those of the scenario.

    pydantic checks the type of each field strictly. The description of a `Field` states the valid values.

    Raises UnknownOption, or EngineError if an option is invalid or the dataclass raises ValueError. It names option and
    fix.
    """
    types = _types(kind)  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in types:
            near = get_close_matches(name, types, n=1, cutoff=0.5)
            instead = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(types)}"
            raise UnknownOption(f"engine {engine!r} has no option {name!r}; {instead}", name, tuple(types))
        hint, adapter = types[name]
        try:
            values[name] = adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise EngineError(_refusal(engine, name, value, hint, error)) from None
    try:
        return kind(**values)
    except ValueError as error:
        raise EngineError(f"options of engine {engine!r}: {error}") from error


@cache
def _types(kind: type) -> dict[str, tuple[Any, TypeAdapter[Any]]]:
    """Return the type and the validator of each option."""
    return {name: (hint, TypeAdapter(hint)) for name, hint in get_type_hints(kind, include_extras=True).items()}


def _refusal(engine: str, name: str, value: object, hint: Any, error: ValidationError) -> str:
    """Return one sentence with the option and its valid values."""
    parts = list(_parts(hint))
    described = [field.description for _, field in parts if field and field.description]
    if described:
        return f"option {name} of {engine} is {value!r}; it must be {described[0]}"
    if all(one["type"].endswith(_OTHER_TYPE) for one in error.errors()):
        words = " or ".join(_WORDS.get(kind, "a mapping" if kind is Mapping else "a list") for kind, _ in parts)
        return f"option {name!r} of engine {engine!r} is {words}, not {value!r}"
    words = next((words for kind, field in parts if (words := _limits(kind, field))), error.errors()[0]["msg"])
    return f"options of engine {engine!r}: {name} is {words}, not {value!r}"


def _parts(hint: Any) -> Iterator[tuple[Any, FieldInfo | None]]:
    """Yield the types that a hint allows, each with its field."""
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _parts(part)
    elif get_origin(hint) is Annotated:
        kind, field = get_args(hint)[:2]
        yield from ((part, field) for part, _ in _parts(kind))
    elif get_origin(hint) is Literal:
        yield hint, None
    else:
        yield get_origin(hint) or hint, None


def _limits(kind: Any, field: FieldInfo | None) -> str:
    """Return the valid values of a type; "" if all are."""
    if get_origin(kind) is Literal:
        allowed = get_args(kind)
        return " or ".join(map(repr, allowed)) if len(allowed) == 2 else f"one of {', '.join(map(str, allowed))}"
    metadata = field.metadata if field else []
    bounds = {name: getattr(one, name) for name in ("gt", "ge", "le") for one in metadata if hasattr(one, name)}
    return _BOUNDS.get(tuple(bounds), "").format(**bounds)
