"""llm-d's `benchmark_report` 0.2.x, a form into which results of several tools are converted; it has values only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.comparison.foreign.base import (
    FROM_SENT,
    INTERPOLATED,
    NAN,
    NO_LOAD,
    UNKNOWN_LOAD,
    WHOLE_RUN,
    ForeignLoad,
    ForeignRun,
    ForeignUnreadable,
    check_any,
    error_share,
    known,
    latency,
    lengths,
    number,
    rates,
    section,
    text,
    whole,
)

TOOL = "llm-d benchmark_report"
OWN_TOOL = "harness"
_FACTOR = {"ms": 1.0, "s": 1e3, "ms/token": 1.0, "s/token": 1e3}
_STATISTICS = ("mean", "min", "p50", "p90", "p95", "p99", "max")
_TPOT = {
    "vllm-benchmark": "time_per_output_token",
    "aiperf": "inter_token_latency",
    "guidellm": "inter_token_latency",
    "inference-perf": "time_per_output_token",
    OWN_TOOL: "time_per_output_token",
}
"""Tools whose numbers are known, each with what TPOT is called there."""
_TO_THE_END = "E2E ends with the response, not with the last token."
_OF_TOOL = {
    "vllm-benchmark": (INTERPOLATED,),
    "aiperf": (INTERPOLATED,),
    "guidellm": (_TO_THE_END, "Statistics of TPOT count a request once for each of its tokens."),
    "inference-perf": (INTERPOLATED, _TO_THE_END),
}


def fits(data: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is such a report."""
    return isinstance(data.get("version"), str | float) and {"run", "results"} <= data.keys()


def read(data: Mapping[str, Any]) -> ForeignRun:
    """Return the report. Raises ForeignUnreadable, naming what is wrong."""
    version = str(data["version"])
    if not re.fullmatch(r"0\.2(\.[0-9]+)?", version):
        raise ForeignUnreadable(f"its version is {version}; 0.2 and 0.2.x can be read")
    about = section(data, "scenario", "load", "standardized")
    tool = text(about, "tool") or _client(data)
    if tool not in _TPOT:
        raise ForeignUnreadable(f"what the latencies of {tool} mean is not known; compare its own files")
    found = section(data, "results", "request_performance", "aggregate")
    requests, failed = (whole(section(found, "requests"), name) for name in ("total", "failures"))
    rate, most = number(about, "rate_qps"), whole(about, "concurrency")
    load = ForeignLoad(
        rate=rate if rate > 0 else None,
        users=None if rate > 0 else most,
        facts=_facts(about, requests),
        values=_values(found, requests, failed, tool),
        requests=requests,
        failed=failed,
    )
    check_any(load.values, None)
    notes = [f"It was converted from a result of {tool}."]
    if tool != OWN_TOOL:
        notes += [FROM_SENT, WHOLE_RUN, *_OF_TOOL[tool]]
    notes += [] if load.name != NO_LOAD else [UNKNOWN_LOAD]
    time = section(data, "run", "time")
    created = text(time, "start") or text(time, "end")
    return ForeignRun(f"{TOOL} of {tool}", (load,), text(about, "tool_version"), _model(data), created, tuple(notes))


def _facts(about: Mapping[str, Any], requests: int | None) -> dict[str, Any]:
    most = whole(about, "concurrency")
    facts: dict[str, Any] = {"requests": requests, "max_concurrency": most}
    sizes = (section(about, f"{name}_seq_len") for name in ("input", "output"))
    facts |= lengths(*(number(own, "value") if own.get("distribution") == "fixed" else NAN for own in sizes))
    return {name: value for name, value in facts.items() if value is not None}


def _values(
    found: Mapping[str, Any], requests: int | None, failed: int | None, tool: str
) -> dict[tuple[str, str], float]:
    per_s = (number(section(found, "throughput", name), "mean") for name in ("request_rate", "output_token_rate"))
    values = rates(*per_s)
    start = "_ms" if tool == OWN_TOOL else "_service_ms"  # our own export counts from due, as our numbers do
    names = {"time_to_first_token": f"ttft{start}", "request_latency": f"e2e{start}", _TPOT[tool]: "tpot_ms"}
    for name, metric in names.items():
        own = section(found, "latency", name)
        factor = _FACTOR.get(str(own.get("units")))
        if factor is not None:
            values |= {(metric, one): latency(own, one, factor) for one in _STATISTICS}
    return known(values | error_share(requests, failed))


def _client(data: Mapping[str, Any]) -> str:
    """Return the tool where the load is not described: harness is part of the stack then."""
    stack = section(data, "scenario").get("stack")
    tools = [text(section(one, "standardized"), "tool") for one in (stack if isinstance(stack, list) else ())]
    return OWN_TOOL if OWN_TOOL in tools else "an unknown tool"


def _model(data: Mapping[str, Any]) -> str | None:
    """Return the model of the engine, if the stack has one."""
    stack = section(data, "scenario").get("stack")
    for one in stack if isinstance(stack, list) else ():
        if (name := text(section(one, "standardized", "model"), "name")) is not None:
            return name
    return None
