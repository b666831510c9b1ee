"""The grammar of scenarios for editors and readers, from the models: `python -m harness.scenario.reference` writes
scenarios/schema.json and docs/scenario-reference.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from harness.metrics import metric_names
from harness.scenario.loads import KINDS, LOADS_NOT_BUILT
from harness.scenario.model import Scenario
from harness.units import DURATION_PATTERN, format_duration

Schema: TypeAlias = Mapping[str, Any]
_NOUNS = {"EngineBlock": "engine", "ModelEntry": "model", "TrafficClass": "class", "Variant": "options"}
_NOUNS |= {"MetricsPage": "page"} | {load.__name__: "load" for load in KINDS.values()}
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "",
    "path": "path",
}
_INTRODUCTION = """\
# The scenario file

Written by `python -m harness.scenario.reference` from the models in `harness/`; do not edit it here.

- Times carry their unit: `500ms`, `30s`, `2m`, `1h`. Rates are requests per second and the only bare numbers.
- Files are YAML 1.2: `on`, `off`, `yes` and `no` are texts, and a key may be given only once.
- `${NAME}` and `${NAME:-default}` are filled from the environment inside texts; `$${` stands for `${`.
- `extends: other.yaml` puts this file over another one: mappings merge, lists and values replace.
- `--set load.0.rate=4` replaces one value and comes last; a number counts the items of a list from 0.
- Paths are relative to the file in which they stand.
- Secrets are given by the name of an environment variable (`api_key_env`, `headers_env`), never by their value.
- A list as the value of `rate`, `burst_rate`, `users` or `cv` makes one trial of each.
"""


def json_schema() -> dict[str, Any]:
    """The JSON Schema of scenario files."""
    schema = Scenario.model_json_schema(by_alias=True, mode="validation")
    _tidy(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Scenario",
        **schema,
        # A file that extends another need not name everything itself.
        "anyOf": [{"required": ["extends"]}, {"required": schema["required"]}],
        "required": [],
    }


def markdown() -> str:
    """Return the reference page: a section for each key of a scenario that holds more keys."""
    schema = Scenario.model_json_schema(by_alias=True, mode="validation")
    models: dict[str, Schema] = {"Scenario": schema, **schema["$defs"]}
    parts = [_INTRODUCTION, "## The scenario\n", _model_text(schema)]
    for key, names in _sections(models).items():
        parts.append(f"## `{key}`\n")
        parts += [f"### {_heading(name, models[name])}\n\n{_model_text(models[name])}" for name in names]
    parts += [_limits_text(), _not_built_text(models)]
    return "\n".join(parts).rstrip() + "\n"


def schema_text() -> str:
    """The JSON Schema as the file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def write(root: Path) -> None:
    """Write both files under the root of the source tree."""
    (root / "scenarios" / "schema.json").write_text(schema_text(), encoding="utf-8")
    (root / "docs" / "scenario-reference.md").write_text(markdown(), encoding="utf-8")


def _tidy(node: Any) -> None:
    """Without the titles that pydantic makes up, and with the defaults of times as a scenario would write them."""
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        if node.get("pattern") == DURATION_PATTERN and isinstance(node.get("default"), float):
            node["default"] = format_duration(node["default"])
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _tidy(child)


def _sections(models: Mapping[str, Schema]) -> dict[str, list[str]]:
    """Return the models behind each key of a scenario: first those that it holds, then those within them; each once."""
    found = {key: list(dict.fromkeys(_references(value))) for key, value in models["Scenario"]["properties"].items()}
    seen = {name for names in found.values() for name in names}
    for names in found.values():
        for name in names:  # which grows on the way
            inner = [one for one in dict.fromkeys(_references(models[name]["properties"])) if one not in seen]
            seen.update(inner)
            names += inner
    return {key: names for key, names in found.items() if names}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict) and isinstance(node.get("$ref"), str):
        yield node["$ref"].rpartition("/")[2]
    for name, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if name != "discriminator":
            yield from _references(child)


def _noun(name: str) -> str:
    """Return how the column of values calls a model."""
    endings = {"Length": "length", "Time": "distribution"}
    return next((noun for end, noun in endings.items() if name.endswith(end)), _NOUNS.get(name, name.lower()))


def _heading(name: str, model: Schema) -> str:
    own = [f"`{key}: {model['properties'][key]['const']}`" for key in ("kind", "dist") if key in model["properties"]]
    return ", ".join([_noun(name).capitalize(), *own])


def _model_text(model: Schema) -> str:
    required = model.get("required", [])
    rows = [
        f"| `{key}` | {_type(value)} | {'required' if key in required else _default(value)} | {_meaning(value)} |"
        for key, value in sorted(model["properties"].items(), key=lambda item: item[0] not in required)
        if not _is_not_built(value)
    ]
    about = " ".join(str(model.get("description", "")).split())
    return "\n".join([f"{about}\n", "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""])


def _default(value: Schema) -> str:
    default = value.get("default")
    if isinstance(default, float) and _type(value).startswith("time"):
        return f"`{format_duration(default)}`"
    return "" if default in (None, [], "") or isinstance(default, dict) else f"`{_plain(default)}`"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _meaning(value: Schema) -> str:
    examples = value.get("examples", [])
    shown = f" For example `{_plain(examples[0])}`." if examples else ""
    return f"{value.get('description', '')}{shown}".replace("|", "\\|").replace("\n", "\\n")


def _type(value: Schema) -> str:
    return " or ".join(name for name in dict.fromkeys(_types(value)) if name)


def _types(value: Schema) -> Iterator[str]:
    if "anyOf" in value or "oneOf" in value:
        for one in value.get("anyOf", value.get("oneOf", [])):
            yield from _types(one)
    elif "$ref" in value:
        yield _noun(str(value["$ref"]).rpartition("/")[2])
    elif "const" in value or "enum" in value:
        yield from (f"`{_plain(one)}`" for one in value.get("enum", [value.get("const")]))
    elif value.get("pattern") == DURATION_PATTERN:
        yield "time"
    elif value.get("type") == "array":
        yield f"list of {_type(value.get('items', {})) or 'anything'}"
    elif value.get("type") == "object":
        inner = value.get("additionalProperties")
        yield f"name to {_type(inner)}" if isinstance(inner, Mapping) and inner else "mapping"
    else:
        yield _TYPES.get(str(value.get("format", value.get("type"))), "anything")


def _is_not_built(value: Schema) -> bool:
    return value.get("not") == {}


def _limits_text() -> str:
    distributions = ", ".join(f"`{name}`" for name in metric_names(takes_statistics=True))
    scalars = ", ".join(f"`{name}`" for name in metric_names(takes_statistics=False))
    return f"""\
## `limits`

`metric statistic op value`, or `class.metric statistic op value` for one class: `ttft_ms p95 <= 500`. `op` is one of
`<=`, `>=`, `<`, `>`. The value is in the metric's unit, or carries a unit: `500ms`, `2GiB`, `70%`.

With a statistic (`p1` to `p99.9`, `mean`, `max`, `min`): {distributions}.

Without: {scalars}.
"""


def _not_built_text(models: Mapping[str, Schema]) -> str:
    keys = sorted(
        f"- `{'' if name == 'Scenario' else _noun(name) + '.'}{key}`: {value.get('description', '')}"
        for name, model in models.items()
        for key, value in model.get("properties", {}).items()
        if _is_not_built(value)
    )
    kinds = ", ".join(f"`kind: {kind}`" for kind in LOADS_NOT_BUILT)
    return "\n".join(["## Not built yet\n", "These are known and refused, never ignored:\n", *keys, f"- {kinds}", ""])


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[2])
