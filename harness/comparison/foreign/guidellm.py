"""Report of GuideLLM (`--output kind=json`): several loads, each with its requests or a sample of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.comparison.foreign.base import (
    FROM_SENT,
    NAN,
    WHOLE_RUN,
    ForeignLoad,
    ForeignRun,
    ForeignUnreadable,
    Rows,
    check_any,
    error_share,
    in_ms,
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

TOOL = "GuideLLM"
NEWEST = 2  # `metadata.version`
_LATENCIES = {
    "time_to_first_token_ms": ("ttft_service_ms", 1.0),
    "inter_token_latency_ms": ("tpot_ms", 1.0),
    "request_latency": ("e2e_service_ms", 1e3),
}
_STATISTICS = ("p50", "p90", "p95", "p99")
_NOTES = (
    "E2E ends with the response, not with the last token.",
    "Statistics of TPOT count a request once for each of its tokens.",
)


def fits(data: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is such a report."""
    return "benchmarks" in data and "guidellm_version" in section(data, "metadata")


def read(data: Mapping[str, Any]) -> ForeignRun:
    """Return the report. Raises ForeignUnreadable, naming what is wrong."""
    about = section(data, "metadata")
    if whole(about, "version") != NEWEST:
        raise ForeignUnreadable(f"its metadata.version is {about.get('version')}; only {NEWEST} can be read")
    benchmarks = [one for one in items(data, "benchmarks") if isinstance(one, Mapping)]
    if not benchmarks:
        raise ForeignUnreadable("it has no benchmarks")
    sizes = _lengths(items(section(data, "config", "spec"), "data"))
    loads = tuple(_load(one, sizes) for one in benchmarks)
    sampled = any(load.rows is None for load in loads)
    model = text(section(data, "config", "spec", "backend"), "model")
    created = utc(number(benchmarks[0], "start_time"))
    cut = sum(whole(section(one, "metrics", "request_totals"), "incomplete") or 0 for one in benchmarks)
    unfinished = (f"{cut} requests were unfinished at the end and are in no number.",) if cut else ()
    notes = (FROM_SENT, WHOLE_RUN, *(_NOTES if sampled else ()), *unfinished)
    return ForeignRun(TOOL, loads, text(about, "guidellm_version"), model, created, notes)


def _lengths(data: list[Any]) -> dict[str, int]:
    """Return the lengths of requests that are all alike; empty for others."""
    own = data[0] if len(data) == 1 and isinstance(data[0], Mapping) else {}
    varies = any(own.get(f"{name}_tokens_{how}") for name in ("prompt", "output") for how in ("stdev", "min", "max"))
    return {} if varies else lengths(number(own, "prompt_tokens"), number(own, "output_tokens"))


def _load(one: Mapping[str, Any], sizes: Mapping[str, int]) -> ForeignLoad:
    strategy, totals = section(one, "config", "strategy"), section(one, "metrics", "request_totals")
    done, errored = (whole(totals, name) for name in ("successful", "errored"))
    kind, rate = text(strategy, "type_") or "", number(strategy, "rate")
    rows = _rows(section(one, "requests"), done, errored)
    requests = None if done is None or errored is None else done + errored
    users = {"synchronous": 1, "concurrent": whole(strategy, "streams")}.get(kind)
    facts = {"arrivals": kind or None, "requests": requests, **sizes}
    load = ForeignLoad(
        rate=rate if rate > 0 else None,
        users=users,
        facts={name: value for name, value in facts.items() if value is not None},
        values=_values(section(one, "metrics"), requests, errored),
        requests=requests,
        failed=errored,
        rows=rows,
        at_once=kind == "throughput",
    )
    check_any(load.values, rows)
    return load


def _values(metrics: Mapping[str, Any], requests: int | None, failed: int | None) -> dict[tuple[str, str], float]:
    found = rates(
        number(section(metrics, "requests_per_second", "successful"), "mean"),
        number(section(metrics, "output_tokens_per_second", "total"), "mean"),
    )
    for name, (metric, factor) in _LATENCIES.items():
        own = section(metrics, name, "successful")
        found[metric, "mean"] = latency(own, "mean", factor)
        found |= {(metric, one): latency(section(own, "percentiles"), one, factor) for one in _STATISTICS}
    return known(found | error_share(requests, failed))


def _rows(requests: Mapping[str, Any], done: int | None, errored: int | None) -> Rows | None:
    """Return what was measured of each request; None if they are a sample, or none are there."""
    whole_ones, failed_ones = items(requests, "successful"), items(requests, "errored")
    if not whole_ones or (len(whole_ones), len(failed_ones)) != (done, errored):
        return None
    every = [*whole_ones, *failed_ones]
    failed = tuple(place >= len(whole_ones) for place in range(len(every)))
    values = {
        "ttft_service_ms": [latency(one, "time_to_first_token_ms") for one in whole_ones],
        "tpot_ms": [latency(one, "inter_token_latency_ms") for one in whole_ones],
        "e2e_service_ms": [*map(_to_last_token_ms, whole_ones)],
    }
    sent = tuple(number(one, "request_start_time") for one in every)
    ended = tuple(number(one, "request_end_time") for one in every)
    timed = not any(map(math.isnan, (*sent, *ended)))
    columns = {name: (*column, *[NAN] * len(failed_ones)) for name, column in values.items()}
    found = Rows(failed, columns, (), sent if timed else (), ended if timed else ())
    return found.ordered()


def _to_last_token_ms(one: Any) -> float:
    """Return the time from sending to the last token; to the end of a reply that was not streamed."""
    timings = section(one, "info", "timings")
    begun, last = number(timings, "request_start"), number(timings, "last_token_iteration")
    if math.isnan(number(one, "request_latency")):
        return NAN
    return in_ms(last - begun) if last > begun else latency(one, "request_latency", 1e3)
