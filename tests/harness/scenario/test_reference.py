"""The schema and the reference page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from harness.scenario.reference import json_schema, markdown, schema_text

ROOT = Path(__file__).resolve().parents[3]
LEAST: dict[str, Any] = {"engines": [{"engine": "simulated"}], "load": [{"kind": "single_user", "requests": 1}]}
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize(
    ("path", "text"),
    [("scenarios/schema.json", schema_text()), ("docs/scenario-reference.md", markdown())],
    ids=["schema", "page"],
)
def test_what_is_generated_is_up_to_date(path: str, text: str) -> None:
    """`python -m harness.scenario.reference` writes both."""
    assert (ROOT / path).read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "row",
    [
        "| `prompt_tokens` | length or whole number from 1 | `128` |",
        "| `think_time` | distribution or time | `0s` |",
        "| `workers` | `auto` or whole number from 1 to 256 | `auto` |",
        "| `rate` | number above 0 or list of numbers above 0 |",
        "| `tolerance` | percentage |",
    ],
)
def test_the_page_has_defaults_and_ranges(row: str) -> None:
    """As the schema has them."""
    assert row in markdown()


def test_the_schema_is_a_schema() -> None:
    """The schema is valid for the version that it names."""
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"model": "tiny"},
        {"model": ["tiny", {"name": "x"}]},
        {"workload": {"prompt_tokens": 5}},
        {"load": [{"kind": "sustained", "rate": [1, 2], "duration": "30s", "warmup": "${WARM_UP}"}]},
        {"engines": [{"engine": "simulated", "quantization": "q8_0", "variants": {"a": {"any": {"thing": 1}}}}]},
        {"labels": {"build": 3}},
    ],
)
def test_short_forms_are_in_the_schema(keys: dict[str, Any]) -> None:
    """Editors accept what the loader accepts."""
    VALIDATOR.validate({**LEAST, **keys})


@pytest.mark.parametrize(
    "keys",
    [
        {"modle": "tiny"},
        {"slo": {"ttft": 500}},
        {"compare": {}},
        {"load": [{"kind": "sustained", "rate": 0, "duration": "30s"}]},
        {"load": []},
        {"decide": "maybe"},
    ],
)
def test_mistakes_are_seen_by_the_schema(keys: dict[str, Any]) -> None:
    """Editors underline what the loader refuses."""
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({**LEAST, **keys})


def test_a_file_that_extends_another_may_be_short() -> None:
    """The schema asks for engines and load only where nothing is extended."""
    VALIDATOR.validate({"extends": "base.yaml"})
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({"name": "x"})


def test_the_page_names_every_key() -> None:
    """Nothing that can be written is undocumented."""
    schema = json_schema()
    page = markdown()
    keys = {key for model in [schema, *schema["$defs"].values()] for key in model["properties"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in page and f".{key}`" not in page] == []
