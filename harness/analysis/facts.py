"""Facts about a trial that are no metric: how requests ended, errors, and reasons for missing numbers."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.bursts import bursts_of
from harness.analysis.columns import NS_PER_MS, NS_PER_S, Columns
from harness.analysis.latencies import good, origin
from harness.analysis.queue import changes_by_plan
from harness.analysis.rates import peak_in_flight
from harness.analysis.reading import Reading
from harness.analysis.retries import retries_of
from harness.analysis.sample_size import sizes_of
from harness.analysis.samples import machine
from harness.analysis.samples.energy import energy_facts, missing_energy
from harness.analysis.samples.gauges import no_gpu_because, without_others_gpus
from harness.analysis.samples.memory import memory_facts
from harness.analysis.samples.server import server_facts, why_missing
from harness.analysis.samples.server_counts import books_of
from harness.analysis.tokens import tokens_of
from harness.metrics import COSTS, METRICS, Need, metric_names
from harness.records import Phase, Status
from harness.store.categories import counts_of, one_of
from harness.store.manifest import CellEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd

MAX_KINDS = 12
MAX_TEXT = 200
_NOT_ERRORS = (Status.OK, Status.CANCELLED, Status.NOT_SENT)
_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+")


def facts_of(cell: CellEntry, reading: Reading, samples: pd.DataFrame) -> dict[str, Any]:
    """Return what a report shows of a trial beside its metrics, JSON-able. `samples` are those of its cell.

    Keys: cell, trial (ids), window, origin (of latencies), served_s (from the first measured request due to the last
    one ended), peak_in_flight, requests (by phase), statuses, slo_vacuous (good requests without a tpot to check),
    token_sources, clocks, missing (metric -> reason), and those of the functions that are called here.
    """
    trial, records, columns, window = reading.trial, reading.frame, reading.columns, reading.window
    server = server_facts(reading, samples)
    energy = energy_facts(cell, trial, window, samples)
    telemetry = machine.telemetry_facts(cell, trial, window, samples)
    rows, in_measure = columns.measured, columns.in_phase(Phase.MEASURE)
    some = {"servers": servers_of(rows), "retries": retries_of(trial, reading)}
    served_ns = float(np.nanmax(rows.ended)) - float(np.nanmin(rows.times["due"])) if len(rows) else 0.0
    return {
        "cell": cell.id,
        "trial": trial.id,
        "window": {
            "start_s": window.start_ns / NS_PER_S,
            "end_s": window.end_ns / NS_PER_S,
            "ramp_in_s": window.ramp_in_ns / NS_PER_S,
            "text": window.text,
        },
        "origin": origin(columns),
        "served_s": served_ns / NS_PER_S,
        "peak_in_flight": peak_in_flight(columns, window),
        "requests": {phase.value: int((columns.phase == phase).sum()) for phase in Phase},
        "statuses": {
            status.value: n for status in Status if (n := int((columns.has_status([status]) & in_measure).sum()))
        },
        "errors": errors_of(records),
        "bursts": bursts_of(reading),
        "queue": reading.guard.as_fact() | ({"reason": "the load changes by plan"} if changes_by_plan(trial) else {}),
        "sample_size": sizes_of(reading),
        "slo_vacuous": good(rows, trial.slo)[1],
        "token_sources": _shares(records["token_source"]),
        "tokens": tokens_of(trial, reading),
        "books": books_of(cell, trial, reading, samples),
        "clocks": _shares(records["clock"]),
        "server": server,
        "energy": energy,
        "throttling": machine.throttling_facts(trial, window, without_others_gpus(cell, samples)),
        "telemetry": telemetry,
        "memory": memory_facts(cell, reading, samples),
        "missing": missing(cell, trial, columns)
        | why_missing(server)
        | missing_energy(energy, trial.slo, no_gpu_because(cell))
        | machine.missing_telemetry(telemetry),
        **{name: found for name, found in some.items() if found},
    }


def servers_of(rows: Columns) -> list[dict[str, Any]]:
    """Return the measured requests of each of several servers; empty if fewer than two are named.

    Keys: server, requests, errors, ttft_p50_ms (as `ttft_ms`, of successful ones; None if none streamed).
    """
    names = sorted(rows.backend.unique().dropna())
    ttft_ns = rows.times["first_token"] - rows.start
    found = []
    for server in names if len(names) > 1 else []:
        own = np.asarray(rows.backend == server)
        seen_ns = ttft_ns[own & rows.ok & np.isfinite(ttft_ns)]
        failed = int((own & ~rows.has_status(_NOT_ERRORS)).sum())
        p50_ms = float(np.median(seen_ns)) / NS_PER_MS if len(seen_ns) else None
        found.append({"server": server, "requests": int(own.sum()), "errors": failed, "ttft_p50_ms": p50_ms})
    return found


def errors_of(records: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the kinds of failure, the most frequent first.

    Keys: status, http_status, requests (of all phases), measured (those measured), first_s, last_s (when requests
    failed, from T0), example, ended (no request due after the first failure succeeded).

    Cooldown load that was cut off is no error. Texts that differ only in numbers are one kind.
    """
    status = records["status"]
    cut_off = one_of(status, [Status.UNFINISHED]) & one_of(records["phase"], [Phase.COOLDOWN])
    wrong = ~one_of(status, _NOT_ERRORS) & ~cut_off
    if not wrong.any():
        return []
    failed = records[wrong]
    ended = failed["done_ns"].fillna(failed["due_ns"]).astype("float64") / NS_PER_S
    due_ok = records.loc[one_of(status, [Status.OK]), "due_ns"]
    last_ok_s = float(due_ok.max()) / NS_PER_S if len(due_ok) else -math.inf
    text = failed["error"].astype(object).where(failed["error"].notna(), "").astype(str)
    kind = text.str.replace(_VARYING, "#", regex=True).str.slice(0, MAX_TEXT)
    http = failed["http_status"].astype("float64").fillna(-1).astype("int64")
    failed = failed.assign(_at=ended, _text=text, _http=http, _status=status[failed.index].astype(object))
    grouped = failed.groupby(["_status", "_http", kind], sort=False, observed=True)
    found = [_kind_of_error(group, last_ok_s) for _, group in grouped]
    return sorted(found, key=lambda error: -error["requests"])[:MAX_KINDS]


def _kind_of_error(group: pd.DataFrame, last_ok_s: float) -> dict[str, Any]:
    first = group.iloc[0]
    return {
        "status": str(first["_status"]),
        "http_status": int(first["_http"]) if first["_http"] >= 0 else None,
        "requests": len(group),
        "measured": int(one_of(group["phase"], [Phase.MEASURE]).sum()),
        "first_s": _number(group["_at"].min()),
        "last_s": _number(group["_at"].max()),
        "example": str(first["_text"])[:MAX_TEXT],
        "ended": bool(group["_at"].min() > last_ok_s),
    }


def missing(cell: CellEntry, trial: TrialEntry, columns: Columns) -> dict[str, str]:
    """Return why a metric may have no value in this trial, by name; valid only if the summary has no row of it."""
    rows = columns.measured
    found = dict.fromkeys(COSTS, "no price is known: the scenario names no `instance` of the catalogue")
    found |= dict.fromkeys(machine.START_METRICS, "it was not measured when the engine started")
    found |= dict.fromkeys(machine.GAUGES, "no reading was taken on the machine under test during the trial")
    found |= dict.fromkeys(machine.LOAD_PEAKS, "no reading was taken while the engine started")
    if not cell.engine_info.is_empty and not cell.engine_info.pids:
        unknown = "the engine's processes are not known: this run did not start them"
        found |= dict.fromkeys((*machine.PROCESS_GAUGES, "load_peak_bytes"), unknown)
    found |= {name: no_gpu_because(cell) for name in (*machine.GAUGES, *machine.LOAD_PEAKS) if "gpu" in name}
    if not any(limit is not None for limit in trial.slo.values()):
        found |= dict.fromkeys(("attainment", "goodput_rps", "cost_per_1k_requests_usd"), "the scenario sets no slo")
    if not np.isfinite(rows.counts["cached_tokens"]).any() and not rows.cached.any():
        found["cached_share"] = "the engine says nothing about its caches"
    return found | _missing_latencies(rows)


def _missing_latencies(rows: Columns) -> dict[str, str]:
    latencies = metric_names(takes_statistics=True)
    if not len(rows):
        return dict.fromkeys(latencies, "no request was measured")
    found = dict.fromkeys(latencies, "no measured request got that far")
    found |= dict.fromkeys(rows.reported, "the server says nothing of it with its replies")
    if rows.ok.any() and not np.isfinite(rows.times["first_token"][rows.ok]).any():
        unmet = [Need.STREAM]
    else:
        without = {Need.CHUNK_TIMES: rows.each.sizes, Need.CHUNK_TOKENS: rows.each.known}
        unmet = [Need.TWO_TOKENS, *(need for need, chunks in without.items() if not chunks.any())]
    lacking = {Need.PLAN: rows.closed, Need.REPLY_BEFORE: ~rows.closed, Need.CAP: np.isnan(rows.times["held"])}
    unmet += [need for need, lacks in lacking.items() if lacks.all()]
    return found | {name: need.value for need in unmet for name, metric in METRICS.items() if need in metric.needs}


def _shares(series: pd.Series[Any]) -> dict[str, float]:
    found = counts_of(series)
    return {name: n / sum(found.values()) for name, n in found.items()}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
