"""Results of AIPerf: `profile_export_aiperf.json`, and every request in `profile_export.jsonl` beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.comparison.foreign.base import (
    CANCELLED,
    FROM_SENT,
    INTERPOLATED,
    NAN,
    UNKNOWN_LOAD,
    WHOLE_RUN,
    ForeignLoad,
    ForeignRun,
    ForeignUnreadable,
    Rows,
    check_any,
    error_share,
    items,
    known,
    latency,
    lengths,
    number,
    rates,
    section,
    text,
    utc,
    whole,
)

TOOL = "AIPerf"
NEWEST = 1  # first number of `schema_version`
_LATENCIES = {
    "time_to_first_token": "ttft_service_ms",
    "inter_token_latency": "tpot_ms",
    "inter_chunk_latency": "icl_ms",
    "request_latency": "e2e_service_ms",
}
_BUNDLED = "tpot_adj_ms"
"""What `inter_token_latency` is where the tokens of the first chunk are known: divided by those after it."""
_OWN_TOKENS = "Output tokens are counted by AIPerf's tokenizer, not by the server."
_STATISTICS = {"avg": "mean", **{name: name for name in ("min", "max", "p50", "p90", "p95", "p99")}}
_TO_MS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "sec": 1e3, "s": 1e3}


def fits(data: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is such a summary."""
    return "aiperf_version" in data or ("input_config" in data and isinstance(data.get("request_latency"), Mapping))


def fits_row(data: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is the line of a request."""
    return isinstance(data.get("metrics"), Mapping) and "benchmark_phase" in section(data, "metadata")


def read(data: Mapping[str, Any]) -> ForeignRun:
    """Return the summary. Raises ForeignUnreadable, naming what is wrong."""
    version = text(data, "schema_version")
    if version and version.partition(".")[0].isdigit() and int(version.partition(".")[0]) > NEWEST:
        raise ForeignUnreadable(f"its schema_version is {version}; {NEWEST}.x can be read")
    done, failed = (whole(section(data, name), "avg") for name in ("request_count", "error_request_count"))
    failed = 0 if failed is None else failed  # AIPerf leaves it out if none failed
    endpoint = section(data, "input_config", "endpoint")
    load = replace(
        _load_of(items(section(data, "input_config"), "phases"), items(section(data, "input_config"), "datasets")),
        values=_values(data, done, failed, _names(endpoint)),
        requests=None if done is None else done + failed,
        failed=failed,
    )
    check_any(load.values, None)
    model = next((text(one, "name") for one in items(section(data, "input_config", "models"), "items")), None)
    made = text(data, "start_time")
    notes = [FROM_SENT, WHOLE_RUN, INTERPOLATED]
    notes += [] if endpoint.get("use_server_token_count") is True else [_OWN_TOKENS]
    notes += [CANCELLED] if data.get("was_cancelled") is True else []
    return ForeignRun(TOOL, (load,), text(data, "aiperf_version"), model, made, tuple(notes))


def with_rows(found: ForeignRun, lines: Sequence[Mapping[str, Any]]) -> ForeignRun:
    """Return a summary with its requests; without them if they are not all of the summary's."""
    rows, load = _rows(lines), found.loads[0]
    if (_BUNDLED, "mean") in load.values:
        named = {_BUNDLED if name == "tpot_ms" else name: column for name, column in rows.values.items()}
        rows = replace(rows, values=named)
    if load.requests != len(rows.failed) or all(rows.failed):
        return found
    notes = tuple(note for note in found.notes if note != INTERPOLATED)
    return replace(found, loads=(replace(load, rows=rows),), notes=notes)


def read_rows(lines: Sequence[Mapping[str, Any]]) -> ForeignRun:
    """Return the result of requests without a summary. Raises ForeignUnreadable if none was measured.

    TPOT is left out: what it divides by is among the options, which the summary has.
    """
    rows = _rows(lines)
    rows = replace(rows, values={name: one for name, one in rows.values.items() if name != "tpot_ms"})
    if all(rows.failed):
        raise ForeignUnreadable("every request failed: nothing to compare")
    failed = sum(rows.failed)
    values = known(error_share(len(rows.failed), failed))
    load = ForeignLoad(values=values, requests=len(rows.failed), failed=failed, rows=rows)
    return ForeignRun(TOOL, (load,), created_utc=utc(rows.sent_s[0]), notes=(FROM_SENT, UNKNOWN_LOAD))


def _lengths(datasets: list[Any]) -> dict[str, int]:
    """Return the lengths of requests that are all alike; empty for others."""
    prompts = section(datasets[0], "prompts") if len(datasets) == 1 else {}
    means = [number(own, "mean") if own.keys() == {"mean"} else NAN for own in (section(prompts, n) for n in _LENGTHS)]
    return lengths(*means)


_LENGTHS = ("isl", "osl")


def _load_of(phases: list[Any], datasets: list[Any]) -> ForeignLoad:
    """Return rate, users and facts of the phase that was measured."""
    phase = next((one for one in phases if isinstance(one, Mapping) and one.get("name") == "profiling"), {})
    rate, most = number(phase, "rate"), whole(phase, "concurrency")
    facts: dict[str, Any] = {"arrivals": text(phase, "type"), "requests": whole(phase, "requests")}
    facts |= {"max_concurrency": most, **_lengths(datasets)}
    shown = {name: value for name, value in facts.items() if value is not None}
    return ForeignLoad(rate if rate > 0 else None, None if rate > 0 else most, shown)


def _names(endpoint: Mapping[str, Any]) -> dict[str, str]:
    """Return our metrics by their names; what they divide by depends on the options."""
    return _LATENCIES | ({"inter_token_latency": _BUNDLED} if endpoint.get("per_chunk_usage") is True else {})


def _values(
    data: Mapping[str, Any], done: int | None, failed: int, names: Mapping[str, str]
) -> dict[tuple[str, str], float]:
    found = rates(*(number(section(data, name), "avg") for name in ("request_throughput", "output_token_throughput")))
    for name, metric in names.items():
        own = section(data, name)
        factor = _TO_MS.get(str(own.get("unit")))
        if factor is not None:
            found |= {(metric, ours): latency(own, theirs, factor) for theirs, ours in _STATISTICS.items()}
    return known(found | error_share(None if done is None else done + failed, failed))


def _rows(lines: Sequence[Mapping[str, Any]]) -> Rows:
    measured = [line for line in lines if section(line, "metadata").get("benchmark_phase") == "profiling"]
    if not measured:
        raise ForeignUnreadable("none of its requests was measured")
    failed = tuple(bool(line.get("error")) or math.isnan(_of(line, "request_latency")) for line in measured)
    values = {
        metric: tuple(NAN if bad else _of(line, name) for line, bad in zip(measured, failed, strict=True))
        for name, metric in _LATENCIES.items()
        if metric != "icl_ms"
    }
    gaps = tuple(() if bad else _gaps(line) for line, bad in zip(measured, failed, strict=True))
    sent, ended = ([number(line["metadata"], f"request_{name}_ns") / 1e9 for line in measured] for name in _ENDS)
    if any(map(math.isnan, (*sent, *ended))):
        raise ForeignUnreadable("a request has no `request_start_ns` or `request_end_ns`")
    return Rows(failed, values, gaps, tuple(sent), tuple(ended)).ordered()


_ENDS = ("start", "end")


def _of(line: Mapping[str, Any], name: str) -> float:
    own = section(line, "metrics", name)
    return latency(own, "value", _TO_MS.get(str(own.get("unit")), NAN))


def _gaps(line: Mapping[str, Any]) -> tuple[float, ...]:
    own = section(line, "metrics", "inter_chunk_latency")
    factor = _TO_MS.get(str(own.get("unit")), NAN)
    return tuple(number({"gap": gap}, "gap") * factor for gap in items(own, "value"))
