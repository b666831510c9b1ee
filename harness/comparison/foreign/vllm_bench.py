"""Result of `vllm bench serve --save-result`; with `--save-detailed` it has every request."""

from __future__ import annotations

import math
import re
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
    number,
    rates,
    text,
    tpot_ms,
    value_of,
    whole,
)

TOOL = "vllm bench serve"
_LATENCIES = {"ttft": "ttft_service_ms", "tpot": "tpot_ms", "itl": "icl_ms", "e2el": "e2e_service_ms"}
_PERCENTILE = re.compile(r"p(?P<level>[0-9]+(?:\.[0-9]+)?)_(?P<name>ttft|tpot|itl|e2el)_ms")
_LISTS = ("ttfts", "itls", "output_lens", "errors")
_RAMP = ("ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps")
_FACTS = {"max_concurrency": "max_concurrency", "burstiness": "burstiness", "num_prompts": "requests"}
_FACTS |= {name: name for name in _RAMP}


def fits(data: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is such a result."""
    return {"model_id", "num_prompts", "completed", "request_throughput"} <= data.keys()


def read(data: Mapping[str, Any]) -> ForeignRun:
    """Return the result. Raises ForeignUnreadable, naming what is wrong."""
    requests, done = whole(data, "num_prompts"), whole(data, "completed")
    if requests is None or done is None or done > requests:
        raise ForeignUnreadable("`completed` and `num_prompts` are no numbers of requests")
    rate, most = number(data, "request_rate"), whole(data, "max_concurrency")
    rows = _rows(data)
    open_loop = rate > 0
    load = ForeignLoad(
        rate=rate if open_loop else None,
        users=None if open_loop else most,
        facts={name: data[key] for key, name in _FACTS.items() if data.get(key) is not None},
        values=_values(data, requests, requests - done),
        requests=requests,
        failed=requests - done,
        rows=rows,
        at_once=data.get("request_rate") in ("inf", math.inf) and not any(data.get(name) for name in _RAMP),
    )
    check_any(load.values, rows)
    notes = [FROM_SENT, WHOLE_RUN, *([] if rows else [INTERPOLATED])]
    if open_loop and most:
        notes.insert(1, f"At most {most} requests are in flight, so a slow server gets a lower rate than asked for.")
    return ForeignRun(TOOL, (load,), None, text(data, "model_id"), _created(text(data, "date")), tuple(notes))


def _values(data: Mapping[str, Any], requests: int, failed: int) -> dict[tuple[str, str], float]:
    found = rates(number(data, "request_throughput"), number(data, "output_throughput"))
    for name, metric in _LATENCIES.items():
        found[metric, "mean"] = latency(data, f"mean_{name}_ms")
        found[metric, "p50"] = latency(data, f"median_{name}_ms")
    for key in data:
        if match := _PERCENTILE.fullmatch(key):
            found[_LATENCIES[match["name"]], f"p{float(match['level']):g}"] = latency(data, key)
    return known(found | error_share(requests, failed))


def _rows(data: Mapping[str, Any]) -> Rows | None:
    """Return what was measured of each request; None without `--save-detailed`."""
    ttfts, itls, lengths, errors = (items(data, name) for name in _LISTS)
    n = len(ttfts)
    if not n or {len(itls), len(lengths), len(errors)} != {n}:
        return None
    gaps = tuple(tuple(in_ms(value_of(gap)) for gap in one) if isinstance(one, list) else () for one in itls)
    failed = tuple(bool(error) or not value_of(ttft) > 0 for error, ttft in zip(errors, ttfts, strict=True))
    ttft = tuple(NAN if bad else in_ms(value_of(one)) for one, bad in zip(ttfts, failed, strict=True))
    e2e = tuple(first + sum(one) for first, one in zip(ttft, gaps, strict=True))
    tpot = tuple(tpot_ms(*one) for one in zip(ttft, e2e, map(value_of, lengths), strict=True))
    begun = tuple(map(value_of, items(data, "start_times")))
    timed = len(begun) == n and not any(map(math.isnan, begun))
    values = {"ttft_service_ms": ttft, "tpot_ms": tpot, "e2e_service_ms": e2e}
    gaps = tuple(() if bad else one for one, bad in zip(gaps, failed, strict=True))
    ended = tuple(b if bad else b + end / 1e3 for b, end, bad in zip(begun, e2e, failed, strict=True)) if timed else ()
    return Rows(failed, values, gaps, begun if timed else (), ended)


def _created(date: str | None) -> str | None:
    """Return `20261130-074812`, which has no time zone, as text that can be read."""
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)", date or "")
    return None if match is None else "{}-{}-{}T{}:{}:{}".format(*match.groups())
