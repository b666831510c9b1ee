"""Base of all sections of a scenario: frozen models that refuse unknown keys and report all mistakes at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    Strict,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from harness.units import enumerated

UNKNOWN_KEY = "unknown_key"
MISTAKEN_KEY = "mistaken_key"
"""Type of the error for one of `StrictModel.mistaken_keys`."""
MISSING_KEY = "missing_key"
WRONG_KEYS = "wrong_keys"


class AlsoAccepts:
    """Short forms that a field's validator accepts, added to its JSON Schema."""

    def __init__(self, *schemas: dict[str, Any]) -> None:
        self.schemas = schemas

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(core), *self.schemas]}


class TextOrItems:
    """JSON Schema of a list whose validator also accepts a single item, and a text for an item."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        items = handler(core)
        either = [{"type": "string"}, items["items"]]
        return {"anyOf": [*either, {**items, "items": {"anyOf": either}}]}


def listed(value: Any) -> Any:
    """Return a list unchanged and any other value as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def items_by(key: str) -> BeforeValidator:
    """Return a validator of a list that accepts a single item, and a text `x` for an item `{key: x}`."""
    return BeforeValidator(lambda value: [{key: one} if isinstance(one, str) else one for one in listed(value)])


def _text_from_number(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Number = Annotated[float, Strict()]
Integer = Annotated[int, Strict()]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Count = Annotated[Integer, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]
FreeText = Annotated[str, BeforeValidator(_text_from_number), AlsoAccepts({"type": "number"})]


class StrictModel(BaseModel):
    """Frozen mapping of the scenario file. An empty key (null) counts as absent.

    Attributes:
        exactly_one: Groups of keys; each group needs exactly one.
        at_most_one: Groups of keys; each group allows at most one.
        mistaken_keys: Likely wrong keys, each with the fix.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=False)

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = ()
    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = ()
    mistaken_keys: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each combination of keys that makes no sense."""
        problems = []
        for group in (*cls.exactly_one, *cls.at_most_one):
            present = [f"`{key}`" for key in group if key in given]
            if len(present) > 1:
                problems.append(f"{' and '.join(present)} exclude each other; keep one")
            elif not present and group in cls.exactly_one:
                problems.append(f"needs {enumerated([f'`{key}`' for key in group], 'or')}")
        return problems

    def irrelevant_keys(self) -> frozenset[str]:
        """Return the keys whose defaults have no effect beside the other keys; they are not stored."""
        return frozenset()

    @model_serializer(mode="wrap")
    def _relevant_keys(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        if info.mode != "json":
            return dumped
        known, absent = {*type(self).model_fields, *self.known_keys()}, self.irrelevant_keys()
        return {
            key: value for key, value in dumped.items() if key not in absent and (value is not None or key not in known)
        }

    @model_validator(mode="wrap")
    @classmethod
    def _report_everything(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Check keys and values together, so that one mistake does not hide another."""
        if not isinstance(data, Mapping):
            return handler(data)
        known = cls.known_keys()
        given = {key: value for key, value in data.items() if value is not None or key not in known}
        problems: list[InitErrorDetails] = [
            {"type": PydanticCustomError(WRONG_KEYS, "{why}", {"why": why}), "loc": (), "input": None}
            for why in cls.check_keys(given)
            # A key of another name is likely the one that is needed.
            if not (why.startswith("needs ") and cls.mistaken_keys.keys() & given.keys())
        ]
        try:
            model = handler(given)
        except ValidationError as error:
            problems = [*(cls._reworded(one) for one in error.errors(include_url=False)), *problems]
        else:
            if not problems:
                return model
        raise ValidationError.from_exception_data(cls.__name__, problems)

    @classmethod
    def known_keys(cls) -> dict[str, FieldInfo]:
        """Return the fields by their keys in the file."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}

    @classmethod
    def _reworded(cls, error: Any) -> InitErrorDetails:
        loc, context = error["loc"], error.get("ctx", {})
        kind, message = error["type"], error["msg"]
        if kind == "value_error":
            message = str(context["error"])
        elif kind == "extra_forbidden" and len(loc) == 1:
            kind = MISTAKEN_KEY if str(loc[0]) in cls.mistaken_keys else UNKNOWN_KEY
            message = cls._unknown(str(loc[0]), error["input"])
        elif kind == "missing" and len(loc) == 1:
            kind, message = MISSING_KEY, cls._missing(str(loc[0]))
        # Braces in a message would be read as places to fill in.
        template = "{message}" if "message" not in context else message
        custom = PydanticCustomError(kind, template, {**context, "message": message})
        return {"type": custom, "loc": loc, "input": error.get("input")}

    @classmethod
    def _unknown(cls, key: str, value: Any) -> str:
        if fix := cls.mistaken_keys.get(key):
            return fix.format(value=value if isinstance(value, str | int | float) else "...")
        match = get_close_matches(key, cls.known_keys(), n=1, cutoff=0.6)
        hint = f"did you mean `{match[0]}`?" if match else f"known are {', '.join(cls.known_keys())}"
        return f"unknown key; {hint}"

    @classmethod
    def _missing(cls, key: str) -> str:
        examples = cls.known_keys()[key].examples
        return "is missing; write it" + (f", such as `{key}: {examples[0]}`" if examples else "")


def near(wrong: str, known: Iterable[str]) -> str:
    """Return the nearest known word as a question, or else all known words."""
    words = {word.lower(): word for word in sorted(known)}
    match = get_close_matches(wrong.lower(), words, n=1, cutoff=0.5)
    return f"did you mean `{words[match[0]]}`?" if match else f"known are {', '.join(words.values())}"


def as_name(text: str) -> str:
    """Return a text reduced to the characters that names of runs allow."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
