"""Differences between two sides beside their numbers: what must be the same, and what may be under test."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.comparison.measured import Measurement
from harness.comparison.sides import Side

MUST_MATCH = ("hardware", "model", "engine", "quantization", "load", "driver", "clock")
"""Kinds of differences that are refused unless they are allowed on purpose."""
_MACHINE = ("cpu", "cores", "usable_cores", "memory_bytes", "memory_limit_bytes", "architecture", "gpus")
_WORKLOAD = ("workload", "classes", "slo")
_LONGEST = 60
_UNKNOWN: tuple[Any, ...] = (None, "", [])


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that differs.

    Attributes:
        kind: One of MUST_MATCH, or "version", "options", "server".
        what: Name of the fact.
        base, head: Both values, as text.
        load: Load that it is about; "" for the whole run.
    """

    kind: str
    what: str
    base: str
    head: str
    load: str = ""

    def __str__(self) -> str:
        where = f" ({self.load})" if self.load else ""
        return f"{self.what}{where}: {self.base} and {self.head}"


def differences(
    base: Side, head: Side, matched: Collection[tuple[Measurement, Measurement]], *, silent: bool = False
) -> list[Difference]:
    """Return all that differs, each fact once. What the file of another tool does not say is no difference.

    Args:
        silent: Whether what runs of ours do not say is none either.
    """
    silent = silent or base.origin is not None or head.origin is not None
    found = [*_between(_of_run(base), _of_run(head), silent=silent)]
    for one, other in matched:
        load = one.keys[-1]
        found += _between(_of_measurement(base, one), _of_measurement(head, other), load, silent=silent)
    return _once(found)


def refused(found: Collection[Difference], across: Collection[str]) -> list[Difference]:
    """Return the differences that nobody allowed."""
    return [one for one in found if one.kind in MUST_MATCH and one.kind not in across]


def _of_run(side: Side) -> dict[tuple[str, str], Any]:
    provenance = side.manifest.provenance
    machine = provenance.must_match.stored()
    facts: dict[tuple[str, str], Any] = {("hardware", name): machine.get(name) for name in _MACHINE}
    facts |= {("version", name): version for name, version in provenance.under_test.libraries.items()}
    facts["version", "harness"] = side.manifest.harness_version
    return facts


def _of_measurement(side: Side, one: Measurement) -> dict[tuple[str, str], Any]:
    cell, trial, info = one.cell, one.trial, one.cell.engine_info
    facts: dict[tuple[str, str], Any] = {
        ("model", "model"): cell.model or info.model,
        ("model", "weights"): info.model_hash if cell.level == info.level or cell.level is None else None,
        ("engine", "engine"): cell.engine,
        ("quantization", "quantization"): cell.level,
        ("driver", "driver"): trial.driver,
        ("clock", "clock"): None if trial.client is None else trial.client.clock,
        ("version", f"{info.name or cell.engine} version"): info.version,
    }
    facts |= {("load", name): value for name, value in _of_load(side, one).items()}
    return facts | {("options", name): value for name, value in info.options.items()}


def _of_load(side: Side, one: Measurement) -> dict[str, Any]:
    """Return the load and the requests as the scenario states them."""
    scenario = side.manifest.scenario
    loads = scenario.get("load")
    own = loads[one.trial.index] if isinstance(loads, list) and one.trial.index < len(loads) else None
    without = {"name", "limits", *one.trial.workload}
    found = {key: value for key, value in own.items() if key not in without} if isinstance(own, dict) else {}
    found |= {name: scenario[name] for name in _WORKLOAD if name in scenario}
    found |= {"workload": one.trial.workload_in(scenario)} if one.trial.workload else {}
    return {name: value for name, value in _flat(found).items() if name not in ("driver", "workers")}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested values by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def _between(
    base: Mapping[tuple[str, str], Any], head: Mapping[tuple[str, str], Any], load: str = "", *, silent: bool = False
) -> Iterator[Difference]:
    """Yield what differs. silent: unknown facts of either side are left out."""
    for kind, what in dict.fromkeys([*base, *head]):
        one, other = base.get((kind, what)), head.get((kind, what))
        if one != other and not (silent and (one in _UNKNOWN or other in _UNKNOWN)):
            yield Difference(kind, what, _shown(one), _shown(other), load)


def _once(found: Collection[Difference]) -> list[Difference]:
    """Return the differences; one that all loads share stands once, without a load."""
    loads: dict[tuple[str, ...], list[Difference]] = {}
    for one in found:
        loads.setdefault((one.kind, one.what, one.base, one.head), []).append(one)
    return [
        same[0] if len(same) == 1 else Difference(same[0].kind, same[0].what, same[0].base, same[0].head)
        for same in loads.values()
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
