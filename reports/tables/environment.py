"""Environment of a run: the facts needed to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.store.manifest import CellEntry, TrialEntry
from reports.data import ReportData
from reports.format import amount

PROVENANCE = {"must_match": "machine (must match)", "under_test": "under test", "context": "context"}
LEAST_ALIKE = 2
_PASSING = ("pids",)


@dataclass(frozen=True, slots=True)
class Group:
    """Lines of (name, value) that belong together. title: "" for those of the run itself."""

    title: str
    lines: list[tuple[str, str]]


def of_run(data: ReportData) -> list[tuple[str, str]]:
    """Return all facts as (name, value), the group in the name unless it is the run's own."""
    return [
        (f"{group.title}, {name}" if group.title else name, value)
        for group in groups(data)
        for name, value in group.lines
    ]


def groups(data: ReportData) -> list[Group]:
    """Return the run itself (without a title), then its machine, what was under test, engines, trials and notes."""
    manifest = data.manifest
    run = [
        ("command", str(manifest.command or "")),
        ("created", str(manifest.created_utc or "")),
        ("harness", str(manifest.harness_version or "")),
        ("labels", _plain(manifest.labels)),
        ("seed", _plain(manifest.asked.seed)),
    ]
    provenance = manifest.provenance.stored()
    parts = [Group(title, list(_flat("", provenance.get(part)))) for part, title in PROVENANCE.items()]
    notes = [("note", str(note)) for note in manifest.notes]
    found = [
        Group("", run),
        *parts,
        *_engines(manifest.cells),
        Group("trials", list(_trials(data))),
        Group("", notes),
    ]
    told = [Group(one.title, [line for line in one.lines if line[1] not in ("", "{}", "None")]) for one in found]
    return [group for group in told if group.lines]


def _engines(cells: Sequence[CellEntry]) -> list[Group]:
    """Return what engines say of themselves: once if all say the same, else cell by cell."""
    told = {cell.id: dict(_flat("", _lasting(cell.engine_info.stored()))) for cell in cells}
    told = {cell: lines for cell, lines in told.items() if lines}
    if len(told) < LEAST_ALIKE:
        return [Group(f"engine of {cell}", list(lines.items())) for cell, lines in told.items()]
    first = next(iter(told.values()))
    alike = {name: value for name, value in first.items() if all(own.get(name) == value for own in told.values())}
    each = [
        Group(f"engine of {cell}", [(name, value) for name, value in lines.items() if name not in alike])
        for cell, lines in told.items()
    ]
    return [Group("engine of every configuration", list(alike.items())), *each]


def _lasting(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return it without what means nothing once the run is over."""
    return {name: value for name, value in info.items() if name not in _PASSING}


def _trials(data: ReportData) -> Iterator[tuple[str, str]]:
    drawn = {_drawn(trial) for _, trial in data.trials()} - {""}
    if len(drawn) == 1:
        yield "sampling of every trial", next(iter(drawn))
    for cell, trial in data.trials():
        where = f"{cell.id}/{trial.id}"
        yield f"{where} schedule", f"{trial.plan_hash or ''} (seed {trial.seed})"
        yield f"{where} load generator", _sender(trial)
        if len(drawn) > 1:
            yield f"{where} sampling", _drawn(trial)
        for note in trial.client.notes if trial.client else ():
            yield f"{where} load generator", note


def _drawn(trial: TrialEntry) -> str:
    """Return the sampling parameters of tokens; empty if nothing was recorded."""
    classes = trial.sampling.items()
    told = {name: ", ".join(f"{key} {_short(asked[key])}" for key in asked) for name, asked in classes}
    told = {name: said or "left to the server" for name, said in told.items()}
    return next(iter(told.values())) if len(set(told.values())) == 1 else _plain(told)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sender(trial: TrialEntry) -> str:
    """Return the load generator of a trial; empty if there was none, or it was not recorded."""
    if trial.client is None or not trial.driver:
        return ""
    name = "Locust" if trial.driver == "locust" else "built-in"
    processes = len(trial.client.workers)
    return f"{name}, {processes} workers" if processes else f"{name}, one process"


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield nested dictionaries as dotted names; unknown values are left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}, {name}" if prefix else str(name), inner)
    elif value not in (None, "", [], ()):
        yield prefix, _sized(value) if _of_bytes(prefix) and isinstance(value, int | float) else _plain(value)


def _of_bytes(name: str) -> bool:
    """Return whether a name says so; an engine's own account of its memory is in bytes throughout."""
    return name.startswith("memory, ") or name.endswith("_bytes") or "_bytes_per_" in name


def _plain(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    return "" if value is None else str(value)


def _sized(value: float) -> str:
    """Return bytes, to be read and to be compared."""
    exact = str(int(value))
    return f"{amount(float(value), show='bytes')} ({exact} bytes)" if value >= 1024 else f"{exact} bytes"
