"""Environment of a run: the facts needed to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from harness.store.manifest import METHOD, CellEntry, Manifest, TrialEntry
from reports.data import ReportData
from reports.format import amount, for_xml, sampling

PROVENANCE = {"must_match": "machine (must match)", "under_test": "under test", "context": "context"}


class Group(NamedTuple):
    """Facts of a title, as (name, value); the title is "" for facts of the run itself."""

    title: str
    lines: list[tuple[str, str]]


def of_run(data: ReportData) -> list[tuple[str, str]]:
    """Return all facts as (name, value), the group in the name unless it is the run's own."""
    return [(f"{title}, {name}" if title else name, value) for title, lines in groups(data) for name, value in lines]


def groups(data: ReportData) -> list[Group]:
    """Return the facts of the run (without a title), then machine, libraries and models, engines, trials and notes."""
    manifest = data.manifest
    run = [
        ("command", str(manifest.command or "")),
        ("created", str(manifest.created_utc or "")),
        ("harness", str(manifest.harness_version or "")),
        ("method", _method(manifest)),
        ("labels", _plain(manifest.labels)),
        ("seed", _plain(manifest.scenario_keys.seed)),
    ]
    provenance = manifest.provenance.stored()
    parts = [Group(title, list(_flat("", provenance.get(part)))) for part, title in PROVENANCE.items()]
    notes = [("note", str(note)) for note in manifest.notes]
    found = [Group("", run), *parts, *_engines(manifest.cells), Group("trials", list(_trials(data))), Group("", notes)]
    known = [Group(title, [line for line in lines if line[1] not in ("", "{}", "None")]) for title, lines in found]
    return [group for group in known if group.lines]


def commands(data: ReportData) -> list[str]:
    """Return the commands that repeat the run, one a line: the same requests again, and the command as it was typed."""
    again = [f"harness rerun {shlex.quote(data.run)}"] if data.run else []
    typed = [str(data.manifest.command)] if data.manifest.command else []
    return [" ".join(for_xml(line).split()) for line in (*again, *typed)]


def _method(manifest: Manifest) -> str:
    """Return that the numbers were derived by another method than when the run was made; empty if they were not."""
    if not manifest.needs_deriving:
        return ""
    return f"numbers derived again from the records by method {METHOD}; the run was made with method {manifest.method}"


def _engines(cells: Sequence[CellEntry]) -> list[Group]:
    """Return the reports of engines about themselves: facts shared by all once, others for each cell."""
    infos = {cell.id: cell.engine_info.stored() for cell in cells}
    reported = {cell: dict(_flat("", {**info, "pids": None})) for cell, info in infos.items()}  # ids mean nothing later
    reported = {cell: lines for cell, lines in reported.items() if lines}
    shared = {}
    if len(reported) > 1:
        first, *others = reported.values()
        shared = {name: value for name, value in first.items() if all(own.get(name) == value for own in others)}
    each = [
        Group(f"engine of {cell}", [(name, value) for name, value in lines.items() if name not in shared])
        for cell, lines in reported.items()
    ]
    return [Group("engine of every configuration", list(shared.items())), *each]


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
    texts = {name: sampling(options) for name, options in trial.sampling.items()}
    return next(iter(texts.values())) if len(set(texts.values())) == 1 else _plain(texts)


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
    """Return whether a value is in bytes, by its name; all of an engine's report of its memory is."""
    return name.startswith("memory, ") or name.endswith("_bytes") or "_bytes_per_" in name


def _plain(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    return "" if value is None else str(value)


def _sized(value: float) -> str:
    """Return bytes with a unit, and exactly."""
    exact = str(int(value))
    return f"{amount(float(value), show='bytes')} ({exact} bytes)" if value >= 1024 else f"{exact} bytes"
