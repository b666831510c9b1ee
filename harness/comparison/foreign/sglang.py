"""Result line of SGLang's `bench_serving`; with `--output-details` it has every request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.comparison.foreign.base import (
    FROM_SENT,
    INTERPOLATED,
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
    tpot_ms,
    value_of,
    whole,
)

TOOL = "SGLang bench_serving"
_LATENCIES = {"ttft": "ttft_service_ms", "tpot": "tpot_ms", "itl": "icl_ms", "e2e_latency": "e2e_service_ms"}
_STATISTICS = {"mean": "mean", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
_FACTS = {
    "max_concurrency": "max_concurrency",
    "dataset_name": "dataset",
    "backend": "backend",
}
_TO_THE_END = "E2E and TPOT end with the stream, not with the last token."


def fits(data: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is such a line."""
    return {"backend", "completed", "total_output_tokens_retokenized", "mean_e2e_latency_ms"} <= data.keys()


def read(data: Mapping[str, Any]) -> ForeignRun:
    """Return the result. Raises ForeignUnreadable, naming what is wrong."""
    done, rate, most = whole(data, "completed"), number(data, "request_rate"), whole(data, "max_concurrency")
    if done is None:
        raise ForeignUnreadable("`completed` is no number of requests")
    rows = _rows(data)
    requests = None if rows is None else len(rows.failed)
    failed = None if requests is None else requests - done
    open_loop = rate > 0
    load = ForeignLoad(
        rate=rate if open_loop else None,
        users=None if open_loop else most,
        facts=_facts(data),
        values=_values(data, requests, failed),
        requests=requests if requests is not None else done,
        failed=failed,
        rows=rows,
        at_once=data.get("request_rate") in ("inf", math.inf),
    )
    check_any(load.values, rows)
    notes = [FROM_SENT, WHOLE_RUN]
    if rows is None:
        notes += [_TO_THE_END, INTERPOLATED, "Failed requests are not counted in this file."]
    return ForeignRun(TOOL, (load,), notes=tuple(notes))


def _facts(data: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: data[key] for key, name in _FACTS.items() if data.get(key) is not None}
    fixed = str(data.get("dataset_name")).startswith("random") and data.get("random_range_ratio") == 1
    sizes = (number(data, f"random_{name}_len") for name in ("input", "output"))
    return found | (lengths(*sizes) if fixed else {})


def _values(data: Mapping[str, Any], requests: int | None, failed: int | None) -> dict[tuple[str, str], float]:
    found = rates(number(data, "request_throughput"), number(data, "output_throughput"))
    for name, metric in _LATENCIES.items():
        if name == "itl" and data.get("accept_length") is not None:
            continue  # with speculative decoding it is per token, by a count of its own
        for theirs, ours in _STATISTICS.items():
            found[metric, ours] = latency(data, f"{theirs}_{name}_ms")
    return known(found | error_share(requests, failed))


def _rows(data: Mapping[str, Any]) -> Rows | None:
    """Return what was measured of each request; None without `--output-details`."""
    ttfts, itls, lengths, errors = (items(data, name) for name in ("ttfts", "itls", "output_lens", "errors"))
    n = len(ttfts)
    if not n or {len(itls), len(lengths), len(errors)} != {n}:
        return None
    failed = tuple(bool(error) or not value_of(ttft) > 0 for error, ttft in zip(errors, ttfts, strict=True))
    ttft = tuple(NAN if bad else in_ms(value_of(one)) for one, bad in zip(ttfts, failed, strict=True))
    gaps = tuple(
        tuple(in_ms(value_of(gap)) for gap in one) if isinstance(one, list) and not bad else ()
        for one, bad in zip(itls, failed, strict=True)
    )
    e2e = tuple(NAN if math.isnan(first) else first + sum(one) for first, one in zip(ttft, gaps, strict=True))
    tpot = tuple(tpot_ms(*one) for one in zip(ttft, e2e, map(value_of, lengths), strict=True))
    return Rows(failed, {"ttft_service_ms": ttft, "tpot_ms": tpot, "e2e_service_ms": e2e}, gaps)
