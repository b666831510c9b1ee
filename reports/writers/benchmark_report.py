"""Export of llm-d's `benchmark_report` 0.2.1: one report for each load of each configuration, repetitions pooled.

Latencies count from due, as all of ours do, where most tools count from sending. A latency whose mean is unknown,
because a request timed out, is left out: the form requires a mean. Reports are JSON, which is YAML too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.data import ALL, KEYS, POOLED, ReportData, keys_of

if TYPE_CHECKING:
    from harness.store.manifest import CellEntry, TrialEntry

VERSION = "0.2.1"
TOOL = "harness"
_LATENCIES = {
    "ttft_ms": ("time_to_first_token", "ms"),
    "norm_latency_ms": ("normalized_time_per_output_token", "ms/token"),
    "tpot_ms": ("time_per_output_token", "ms/token"),
    "itl_ms": ("inter_token_latency", "ms/token"),
    "e2e_ms": ("request_latency", "ms"),
}
_RATES = {
    "input_tokens_per_s": ("input_token_rate", "tokens/s"),
    "output_tokens_per_s": ("output_token_rate", "tokens/s"),
    "completed_rps": ("request_rate", "queries/s"),
}
_STATISTICS = ("mean", "min", "p50", "p90", "p95", "p99", "max")
_NAMESPACE = uuid.UUID("6f1f6b53-6d3d-5b0c-8a53-2f4f4b0f7c11")
_NS_PER_S = 1e9


def write(data: ReportData, file: Path) -> list[Path]:
    """Write the reports; return their files: `file`, or of several `<name>_0.<ending>`, `<name>_1.<ending>`, ...

    Raises OSError if a file cannot be written.
    """
    found = reports(data)
    several = [file.with_name(f"{file.stem}_{number}{file.suffix}") for number in range(len(found))]
    files = [file] if len(found) == 1 else several
    for place, one in zip(files, found, strict=True):
        temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        try:
            text = json.dumps(one, indent=2, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
    return files


def reports(data: ReportData) -> list[dict[str, Any]]:
    """Return one report for each load that was measured, in the order of the manifest."""
    tables = _tables(data)
    firsts: dict[tuple[str, ...], tuple[CellEntry, TrialEntry]] = {}
    for cell, trial in data.trials():
        firsts.setdefault(keys_of(cell, trial.load), (cell, trial))
    return [_report(data, keys, *firsts[keys], tables[keys]) for keys in firsts if keys in tables]


def _tables(data: ReportData) -> dict[tuple[str, ...], dict[tuple[str, str], Mapping[Any, Any]]]:
    """Return the pooled rows of all requests, by the keys of the load, then by (metric, statistic)."""
    found: dict[tuple[str, ...], dict[tuple[str, str], Mapping[Any, Any]]] = {}
    rows = data.summary[(data.summary["repetition"] == POOLED) & (data.summary["class"] == ALL)]
    for row in rows.to_dict("records"):
        keys = tuple(str(row[key] or "") for key in KEYS)
        found.setdefault(keys, {})[str(row["metric"]), str(row["statistic"])] = row
    return found


def _report(
    data: ReportData,
    keys: tuple[str, ...],
    cell: CellEntry,
    trial: TrialEntry,
    rows: Mapping[tuple[str, str], Mapping[Any, Any]],
) -> dict[str, Any]:
    experiment = f"{data.manifest.name} {data.manifest.created_utc}"
    uid = str(uuid.uuid5(_NAMESPACE, json.dumps([experiment, *keys])))
    load = _load(data, trial)
    return {
        "version": VERSION,
        "run": {"uid": uid, "eid": str(uuid.uuid5(_NAMESPACE, experiment)), **_about(data, keys, trial)},
        "scenario": {"stack": [*_stack(data, cell)], **({"load": load} if load else {})},
        "results": {"request_performance": {"aggregate": _aggregate(rows)}},
    }


def _about(data: ReportData, keys: Sequence[str], trial: TrialEntry) -> dict[str, Any]:
    """Return time, description and keywords; a caveat that makes numbers unreliable is part of the description."""
    verdict = data.verdict_of(keys)
    poor = dict.fromkeys(why for metric in (*_LATENCIES, *_RATES) if (why := data.poor_because(keys, metric)))
    texts = (data.manifest.name, data.manifest.description, f"validity: {verdict}" if verdict else "", *poor)
    labels = [f"{name}={value}" for name, value in data.manifest.labels.items()]
    found: dict[str, Any] = {"description": ". ".join(filter(None, texts)), "keywords": ["harness", *labels]}
    time = _time(trial)
    return found | ({"time": time} if time else {})


def _time(trial: TrialEntry) -> dict[str, str]:
    """Return begin, end and length of the first trial, as far as they are known."""
    if trial.t0_utc is None:
        return {}
    if trial.t0_ns is None or trial.ended_ns is None or trial.ended_ns < trial.t0_ns:
        return {"start": trial.t0_utc}
    seconds = (trial.ended_ns - trial.t0_ns) / _NS_PER_S
    end = datetime.fromisoformat(trial.t0_utc) + timedelta(seconds=seconds)
    return {"start": trial.t0_utc, "end": end.isoformat(), "duration": f"PT{seconds:.3f}S"}


def _stack(data: ReportData, cell: CellEntry) -> list[dict[str, Any]]:
    """Return the engine and the load generator as generic components: accelerators are not always known."""
    info = cell.engine_info
    engine = {
        "kind": "generic",
        "tool": info.name or cell.engine,
        "tool_version": info.version or "",
        **({"model": {"name": model}} if (model := cell.model or info.model) else {}),
        **({"quantization": level} if (level := cell.level or info.level) else {}),
        **({"variant": cell.variant} if cell.variant else {}),
    }
    client = {"kind": "generic", "tool": TOOL, "tool_version": data.manifest.harness_version or ""}
    named = {"engine": (engine, dict(info.options)), "load-generator": (client, {})}
    return [
        {
            "metadata": {"schema_version": "0.0.1", "label": label, "cfg_id": _hash([standard, options])},
            "standardized": standard,
            "native": {"config": options} if options else {},
        }
        for label, (standard, options) in named.items()
    ]


def _load(data: ReportData, trial: TrialEntry) -> dict[str, Any] | None:
    """Return the load; None if the lengths of its prompts have no mean that the scenario states."""
    scenario = data.manifest.scenario
    loads = [] if _have_own_loads(scenario) else scenario.get("load")
    own = loads[trial.index] if isinstance(loads, list) and trial.index < len(loads) else {}
    workload = trial.workload_in(scenario)
    prompt, output = (_length(workload, f"{name}_tokens") for name in ("prompt", "output"))
    if prompt is None or scenario.get("classes"):
        return None
    standard = {
        "tool": TOOL,
        "tool_version": data.manifest.harness_version or "",
        "parallelism": max(1, trial.workers),
        "source": "sampled" if trial.prompt_files else "random",
        "stage": trial.index,
        "input_seq_len": prompt,
        **({"output_seq_len": output} if output else {}),
        **({"rate_qps": trial.rate} if trial.rate else {}),
        **({"concurrency": trial.users} if trial.users else {}),
    }
    metadata = {"schema_version": "0.0.1", "cfg_id": trial.plan_hash or _hash(own), "description": trial.load}
    return {"metadata": metadata, "standardized": standard, "native": {"config": own}}


def _have_own_loads(scenario: Mapping[str, Any]) -> bool:
    """Return whether an engine has loads of its own, whose numbers begin at 0 again."""
    engines = scenario.get("engines")
    return isinstance(engines, list) and any(isinstance(one, Mapping) and one.get("load") for one in engines)


def _length(workload: object, name: str) -> dict[str, Any] | None:
    """Return a length of the scenario; None without a stated mean."""
    length = workload.get(name) if isinstance(workload, Mapping) else None
    if not isinstance(length, Mapping):
        return None
    kind, value, mean = length.get("dist"), length.get("value"), length.get("mean")
    if kind == "fixed" and isinstance(value, int | float):
        return {"distribution": "fixed", "value": value}
    if isinstance(mean, int | float):
        spread = {"std_dev": length["sd"]} if kind == "normal" and length.get("sd") is not None else {}
        return {"distribution": "gaussian" if kind == "normal" else "other", "value": mean, **spread}
    return None


def _aggregate(rows: Mapping[tuple[str, str], Mapping[Any, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if (errors := rows.get(("error_rate", "value"))) is not None and math.isfinite(float(errors["value"])):
        total = int(errors["n"])
        found["requests"] = {"total": total, "failures": round(float(errors["value"]) * total)}
    latencies = {
        name: stats for metric, (name, unit) in _LATENCIES.items() if (stats := _statistics(rows, metric, unit))
    }
    rates = {
        name: {"units": unit, "mean": value}
        for metric, (name, unit) in _RATES.items()
        if (value := _value(rows, metric, "value")) is not None
    }
    return found | ({"latency": latencies} if latencies else {}) | ({"throughput": rates} if rates else {})


def _statistics(rows: Mapping[tuple[str, str], Mapping[Any, Any]], metric: str, unit: str) -> dict[str, Any] | None:
    """Return the statistics of a latency that are known; None without a mean."""
    values = {name: value for name in _STATISTICS if (value := _value(rows, metric, name)) is not None}
    return {"units": unit, **values} if "mean" in values else None


def _value(rows: Mapping[tuple[str, str], Mapping[Any, Any]], metric: str, statistic: str) -> float | None:
    row = rows.get((metric, statistic))
    value = math.nan if row is None else float(row["value"])
    return value if math.isfinite(value) else None


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
