"""The grammar of scenarios for editors and readers, from the models: `python -m harness.scenario.reference` writes
scenarios/schema.json and docs/scenario-reference.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.metrics import metric_names
from harness.scenario.loads import LOADS_NOT_BUILT
from harness.scenario.model import Scenario
from harness.units import DURATION_PATTERN, format_duration

_SECTIONS = (
    ("The scenario", ("Scenario",)),
    ("`model`", ("ModelEntry",)),
    ("`engines[]`", ("EngineBlock", "Level", "Variant", "Ready", "Tls", "MetricsPage")),
    ("`workload`", ("Workload", "Prefix", "Cancel", "Sampling")),
    ("Lengths", ("FixedLength", "UniformLength", "NormalLength", "LognormalLength", "EmpiricalLength")),
    ("`classes`", ("TrafficClass",)),
    ("`load[]`", ("SingleUser", "Sustained", "Ramp", "Burst", "Spike", "Mixed", "Steps", "Step", "Trace", "Sessions")),
    ("Think times", ("FixedTime", "ExponentialTime", "LognormalTime")),
    ("`slo`", ("Slo",)),
    ("`quality`", ("Quality", "Reference")),
    ("`telemetry`", ("Telemetry",)),
    ("`budget`", ("Budget",)),
)
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
    """The reference page."""
    schema = Scenario.model_json_schema(by_alias=True, mode="validation")
    models = {"Scenario": schema, **schema["$defs"]}
    parts = [_INTRODUCTION]
    for title, names in _SECTIONS:
        parts.append(f"## {title}\n")
        parts += [_model_text(name, models[name], alone=len(names) == 1) for name in names]
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


def _model_text(name: str, model: Mapping[str, Any], *, alone: bool) -> str:
    required = model.get("required", [])
    heading = "" if alone else f"### {_heading(name, model)}\n\n"
    about = " ".join(str(model.get("description", "")).split())
    keys = sorted(model["properties"].items(), key=lambda item: item[0] not in required)
    rows = [
        f"| `{key}` | {_type(value)} | {_default(key, value, required)} | {_cell(_meaning(value))} |"
        for key, value in keys
        if not _is_not_built(value)
    ]
    return "\n".join([f"{heading}{about}\n", "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""])


def _heading(name: str, model: Mapping[str, Any]) -> str:
    for key in ("kind", "dist"):
        if key in model["properties"]:
            return f"`{key}: {model['properties'][key]['const']}`"
    own = {"EngineBlock": "An engine", "Level": "`quantization[]`", "Variant": "`variants.*`", "Ready": "`ready`"}
    own |= {"Tls": "`tls`", "MetricsPage": "`metrics_urls[]`", "Quality": "The section", "Reference": "`reference`"}
    inner = {"Prefix": "`prefix`", "Cancel": "`cancel`", "Spike": "`spike`", "Ramp": "`ramp`", "Step": "`steps[]`"}
    return own.get(name) or inner.get(name) or {"Sampling": "`sampling`", "Workload": "A workload"}[name]


def _default(key: str, value: Mapping[str, Any], required: list[str]) -> str:
    if key in required:
        return "required"
    default = value.get("default")
    if isinstance(default, float) and _type(value).startswith("time"):
        return f"`{format_duration(default)}`"
    return "" if default in (None, {}, [], "") or isinstance(default, dict) else f"`{_plain(default)}`"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _meaning(value: Mapping[str, Any]) -> str:
    examples = value.get("examples", [])
    shown = f" For example `{_plain(examples[0])}`." if examples and "$ref" not in examples else ""
    return f"{value.get('description', '')}{shown}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")


def _type(value: Mapping[str, Any]) -> str:
    names = dict.fromkeys(_types(value))
    return " or ".join(name for name in names if name != "nothing")


def _types(value: Mapping[str, Any]) -> Iterator[str]:
    if "anyOf" in value or "oneOf" in value:
        for one in value.get("anyOf", value.get("oneOf", [])):
            yield from _types(one)
    elif "$ref" in value:
        yield _reference(str(value["$ref"]).rpartition("/")[2])
    elif "const" in value:
        yield f"`{_plain(value['const'])}`"
    elif "enum" in value:
        yield from (f"`{one}`" for one in value["enum"])
    elif value.get("pattern") == DURATION_PATTERN:
        yield "time"
    elif value.get("type") == "array":
        yield f"list of {_type(value.get('items', {})) or 'anything'}"
    elif value.get("type") == "object":
        inner = value.get("additionalProperties")
        yield f"name to {_type(inner)}" if isinstance(inner, Mapping) and inner else "mapping"
    else:
        yield _SCALAR_NAMES.get(str(value.get("format", value.get("type"))), "anything")


_SCALAR_NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "nothing",
    "path": "path",
}


def _reference(name: str) -> str:
    for ending, words in (("Length", "length"), ("Time", "distribution")):
        if name.endswith(ending):
            return words
    loads = ("SingleUser", "Sustained", "Burst", "Mixed", "Steps", "Trace", "Sessions")
    return "load" if name in loads else _MODEL_NAMES.get(name, "mapping")


_MODEL_NAMES = {
    "EngineBlock": "engine",
    "ModelEntry": "model",
    "Level": "level",
    "TrafficClass": "class",
    "Variant": "options",
    "Workload": "workload",
    "Slo": "slo",
    "Quality": "quality",
    "Reference": "reference",
    "Ready": "ready",
    "Sampling": "sampling",
    "Spike": "spike",
    "Prefix": "prefix",
    "Cancel": "cancel",
    "Ramp": "ramp",
    "Step": "step",
    "Telemetry": "telemetry",
    "Budget": "budget",
}
_PATHS = {
    "Scenario": "",
    "ModelEntry": "model.",
    "EngineBlock": "engines[].",
    "Workload": "workload.",
    "TrafficClass": "classes.*.",
    "Telemetry": "telemetry.",
    "Budget": "budget.",
}


def _is_not_built(value: Mapping[str, Any]) -> bool:
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


def _not_built_text(models: Mapping[str, Mapping[str, Any]]) -> str:
    keys = {
        f"`{_PATHS.get(name, 'load[].')}{key}`": str(value.get("description", ""))
        for name, model in models.items()
        for key, value in model.get("properties", {}).items()
        if _is_not_built(value)
    }
    kinds = ", ".join(f"`kind: {kind}`" for kind in LOADS_NOT_BUILT)
    listed = "\n".join(f"- {key}: {meaning}" for key, meaning in sorted(keys.items()))
    return f"""\
## Not built yet

These are known and refused, never ignored:

{listed}
- {kinds}
"""


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[2])
