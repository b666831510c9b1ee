"""What must be known to repeat a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from reports.data import ReportData


def of_run(data: ReportData) -> list[tuple[str, str]]:
    """What must be known to repeat the run, as (name, value)."""
    manifest = data.manifest
    found = [
        ("command", str(manifest.get("command") or "")),
        ("created", str(manifest.get("created_utc") or "")),
        ("harness", str(manifest.get("harness_version") or "")),
        ("labels", _plain(manifest.get("labels"))),
        ("seed", _plain((manifest.get("scenario") or {}).get("seed"))),
    ]
    for part in ("must_match", "under_test", "context"):
        for name, value in _flat(part.replace("_", " "), (manifest.get("provenance") or {}).get(part) or {}):
            found.append((name, value))
    for cell in manifest["cells"]:
        for name, value in _flat(f"engine of {cell['id']}", cell.get("engine_info") or {}):
            found.append((name, value))
    for cell, trial in data.trials():
        found.append(
            (f"plan of {cell['id']}/{trial['id']}", f"{trial.get('plan_hash') or ''} (seed {trial.get('seed')})")
        )
        found.append((f"load of {cell['id']}/{trial['id']}", _sender(trial)))
        notes = (trial.get("client") or {}).get("notes", ())
        found += [(f"client of {cell['id']}/{trial['id']}", str(note)) for note in notes]
    found += [("note", str(note)) for note in manifest.get("notes") or ()]
    return [(name, value) for name, value in found if value and value not in ("{}", "None")]


def _sender(trial: Mapping[str, Any]) -> str:
    """Who sent the load of a trial; empty where nobody did, or it was not recorded."""
    client = trial.get("client") or {}
    if not client or not trial.get("driver"):
        return ""
    who = "sent by Locust" if trial["driver"] == "locust" else "sent by this client"
    processes = len(client.get("workers") or ())
    return f"{who}, {processes} load workers" if processes else f"{who}, one process"


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested dictionaries as dotted names; what is unknown is left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}, {name}", inner)
    elif value not in (None, "", [], ()):
        yield prefix, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    return "" if value is None else str(value)
