"""Metrics: name, unit, definition, better direction and format of each.

`python -m harness.metrics` writes docs/metrics.md.

Latencies have two start points (docs/adr/0021). Without a suffix, a latency counts from *due* if the plan sends the
request, and from *sent* if the request follows a reply. With `_service`, it always counts from *sent*.

A new metric of one number per request needs a row here and a computation in `harness/analysis/latencies.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

SCALAR = "value"
PER = "most per "
"""Beginning of the statistic of a count per time; a duration follows."""
STATISTICS = ("p50", "p90", "p95", "p99", "max", "mean", "min")


class Direction(StrEnum):
    """Direction in which a metric improves."""

    LOWER = "lower"
    HIGHER = "higher"
    NONE = "none"


class Need(StrEnum):
    """Part of a reply that a metric requires; the value is the reason if a trial lacks it."""

    STREAM = "the replies were not streamed"
    TWO_TOKENS = "no reply had two tokens in two chunks"
    CHUNK_TIMES = "arrival times of chunks were not kept"
    CHUNK_TOKENS = "the engine does not say how many tokens a chunk bears"
    PLAN = "every request followed a reply: none was due by the plan"
    CAP = "the load has no `max_concurrency`"
    REPLY_BEFORE = "every request was due by the plan: none followed a reply"


@dataclass(frozen=True, slots=True)
class Metric:
    """Definition of a metric.

    Attributes:
        takes_statistics: True for a distribution, False for a single value.
        queues: True if queueing increases it. The queue guard then caps its effective sample size.
        counts_tokens: True if its source is the token counts, False if it is the clock.
        same_from_sent: True if it is the same from any start. Limits may then add `_service`.
        per_time: True if only limits ask for it, as a count per time: `errors <= 10 per 5m`.
    """

    name: str
    unit: str
    definition: str
    direction: Direction = Direction.LOWER
    takes_statistics: bool = False
    queues: bool = False
    counts_tokens: bool = False
    same_from_sent: bool = False
    per_time: bool = False
    needs: tuple[Need, ...] = ()

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names under `statistic` in the summary."""
        return STATISTICS if self.takes_statistics else (SCALAR,)

    @property
    def show(self) -> str:
        """Format of a value in reports: time, share, bytes or number."""
        return {"ms": "time", "bytes": "bytes", "share": "share"}.get(self.unit, "number")


higher = partial(Metric, direction=Direction.HIGHER)
neutral = partial(Metric, direction=Direction.NONE)
distribution = partial(Metric, takes_statistics=True)
queued = partial(distribution, queues=True)
streamed = partial(queued, needs=(Need.STREAM,))

START_AND_MEMORY = (
    Metric(
        "load_s",
        "s",
        "Cold start: from launching the engine until it is ready, import of its library included. The model's files "
        "are dropped from the page cache before; if that failed, the decision table says so.",
    ),
    Metric(
        "load_warm_s",
        "s",
        "Warm start: as load_s, with the model's files in the page cache. For an engine in process, the import time is "
        "that of the first start.",
    ),
    Metric("first_request_ms", "ms", "End-to-end time of the first request after the start, before any warm-up."),
    Metric("weight_bytes", "bytes", "Size of the weight files that the engine loaded."),
    Metric(
        "rss_after_load_bytes",
        "bytes",
        "Resident memory of the engine's processes after the first start and its first request.",
    ),
    Metric(
        "memory_peak_bytes",
        "bytes",
        "Peak memory of the engine's processes during the trial; pages that they share count once. Each reading of RSS "
        "is reduced by its excess over PSS at the nearest reading of PSS. Without PSS it is RSS; see `source`.",
    ),
    Metric("load_peak_bytes", "bytes", "Peak memory of the engine's processes during the cold start."),
    Metric("load_gpu_peak_bytes", "bytes", "Peak GPU memory during the cold start, as gpu_memory_peak_bytes."),
    Metric(
        "rss_peak_bytes", "bytes", "Largest reading of the engine processes' resident memory (RSS) during the trial."
    ),
    Metric(
        "pss_peak_bytes",
        "bytes",
        "As rss_peak_bytes, with shared pages divided among their users (PSS). Read at most once a second, less often "
        "if a reading takes long.",
    ),
    neutral("engine_cpu_cores", "cores", "CPU time of the engine's processes / time, over the measurement window."),
    Metric(
        "engine_major_faults",
        "count",
        "Major page faults of the engine's processes (they waited for a disk), in the measurement window.",
    ),
    Metric("swapped_bytes", "bytes", "Bytes that the machine under test swapped in and out in the measurement window."),
    Metric(
        "system_memory_peak_share",
        "share",
        "Largest reading of used / total memory of the machine under test during the trial.",
    ),
    Metric(
        "gpu_memory_peak_bytes",
        "bytes",
        "Peak memory that the engine used on each GPU during the trial, added up. If the driver does not report memory "
        "per process, all memory in use counts.",
    ),
    Metric("gpu_memory_peak_share", "share", "Peak memory in use on those GPUs, by any process / their total memory."),
)
ENERGY = (
    Metric(
        "energy_j",
        "J",
        "Energy of all GPUs of the engine in the measurement window, idle power included: the increase of their "
        "counters. The interval covers the uncertain ends of the window and 5 % sensor error.",
    ),
    Metric("energy_j_per_output_token", "J/token", "energy_j / output tokens that arrived in the window."),
    Metric("energy_j_per_good_request", "J", "energy_j / measured requests that met the `slo`."),
    Metric("gpu_power_w", "W", "Mean of each of these GPUs' power readings in the window, added up."),
    neutral(
        "gpu_utilisation_share",
        "share",
        "Mean share of time in which a kernel was resident on these GPUs. The kernel need not use the whole GPU.",
    ),
)
SERVER_PAGE = (
    neutral(
        "server_running_mean",
        "requests",
        "Mean number of running requests in the window, by the server's metrics page.",
    ),
    Metric(
        "server_waiting_mean",
        "requests",
        "Mean number of waiting requests in the window, by the server's metrics page.",
    ),
    Metric(
        "server_queue_ms_mean",
        "ms",
        "Mean queueing time of the requests that ended in the window, by the server's metrics page.",
    ),
    Metric(
        "kv_cache_peak_share",
        "share",
        "Largest share of the KV cache in use in the window, by the server's metrics page.",
    ),
    higher(
        "prefix_hit_share",
        "share",
        "Prompt tokens found in the server's prefix cache / prompt tokens looked up, over the window.",
    ),
    Metric("preemptions", "count", "Requests in the window that the server dropped from memory, to resume them later."),
)

_LATENCIES = (
    streamed(
        "ttft_ms",
        "ms",
        "Time to first token: arrival of the first chunk with tokens - start. The start is due, or sent if the request "
        "follows a reply. Replies that are not streamed have none.",
    ),
    streamed("ttft_service_ms", "ms", "Arrival of the first chunk with tokens - sent."),
    streamed(
        "ttfo_ms",
        "ms",
        "Time to first answer token (content or tool call, not reasoning): its arrival - start, as ttft_ms.",
    ),
    streamed("ttfo_service_ms", "ms", "Arrival of the first answer token - sent."),
    queued("ttfb_ms", "ms", "Time to first byte: arrival of the first byte of the reply's body - sent."),
    distribution(
        "tpot_ms",
        "ms",
        "Time per output token after the first: (last token - first token) / (output tokens - 1). If the end token is "
        "counted without a text, it arrives with the event that ends the reply. Reasoning tokens that the server "
        "counts but does not send are left out. Requires two tokens in two chunks.",
        counts_tokens=True,
        same_from_sent=True,
        needs=(Need.STREAM, Need.TWO_TOKENS),
    ),
    distribution(
        "tpot_adj_ms",
        "ms",
        "As tpot_ms, divided by the tokens after the first chunk. Exact if chunks carry several tokens. Requires token "
        "counts per chunk.",
        counts_tokens=True,
        needs=(Need.CHUNK_TOKENS,),
    ),
    distribution(
        "icl_ms",
        "ms",
        "Inter-chunk latency: gaps between chunks with tokens, zero gaps included. Pooled over all requests that "
        "succeeded or timed out.",
        same_from_sent=True,
        needs=(Need.STREAM, Need.TWO_TOKENS, Need.CHUNK_TIMES),
    ),
    distribution(
        "itl_ms",
        "ms",
        "Inter-token latency: each gap / tokens of the chunk after it, counted once per token and pooled. A chunk "
        "without tokens does not end a gap. Requires token counts per chunk.",
        counts_tokens=True,
        same_from_sent=True,
        needs=(Need.CHUNK_TIMES, Need.CHUNK_TOKENS),
    ),
    distribution(
        "stall_max_ms",
        "ms",
        "Longest gap between two chunks with tokens of a request that succeeded or timed out.",
        same_from_sent=True,
        needs=(Need.STREAM, Need.TWO_TOKENS, Need.CHUNK_TIMES),
    ),
    queued(
        "e2e_ms",
        "ms",
        "End-to-end latency: last token - start, as ttft_ms. A reply that is not streamed counts until its end.",
    ),
    queued("e2e_service_ms", "ms", "As e2e_ms, from sent."),
    queued("e2e_close_ms", "ms", "End of the response (with usage and end marker) - start, as ttft_ms."),
    queued("norm_latency_ms", "ms", "e2e_ms / output tokens.", counts_tokens=True),
    distribution(
        "send_lag_ms",
        "ms",
        "How late the load generator was: sent - due, without held_ms and the time that the server took to accept the "
        "request. Requests due by the plan; their ttft_ms includes it.",
        needs=(Need.PLAN,),
    ),
    queued(
        "held_ms",
        "ms",
        "Time from due until one of the places of `max_concurrency` was free, 0 for a request that found one. ttft_ms "
        "and e2e_ms include it.",
        needs=(Need.CAP,),
    ),
    distribution(
        "client_turnaround_ms",
        "ms",
        "Time of the load generator between a reply and the next request: sent - due, without think time, held_ms and "
        "the time that the server took to accept the request. Closed loops and later turns; no part of any latency.",
        needs=(Need.REPLY_BEFORE,),
    ),
    distribution(
        "output_tokens_per_s_per_user",
        "tokens/s",
        "Output speed of one request: 1000 / tpot_ms.",
        Direction.HIGHER,
        counts_tokens=True,
        needs=(Need.TWO_TOKENS,),
    ),
    distribution(
        "reported_total_ms", "ms", "Duration of a successful request as the server reports it, not measured here."
    ),
    distribution(
        "reported_prompt_ms",
        "ms",
        "Time for the prompt of a successful request as the server reports it, not measured here. What the server took "
        "from a cache costs no time.",
    ),
    distribution(
        "reported_generation_ms",
        "ms",
        "Time for the output tokens of a successful request as the server reports it, not measured here.",
    ),
    distribution(
        "reported_memory_peak_bytes",
        "bytes",
        "Peak memory of the server as it reports it with each successful request, not measured here.",
    ),
)
_RATES = (
    neutral("offered_rps", "requests/s", "Requests due in the window / its length."),
    higher("completed_rps", "requests/s", "Successful requests that ended in the window / its length."),
    higher(
        "goodput_rps",
        "requests/s",
        "Good requests due in the window / its length. A good request succeeds and meets the `slo`.",
    ),
    higher(
        "output_tokens_per_s",
        "tokens/s",
        "Output tokens that arrived in the window, of any request / its length. The tokens of a chunk arrive together.",
        counts_tokens=True,
    ),
    higher(
        "input_tokens_per_s",
        "tokens/s",
        "Prompt tokens of requests whose first token (or reply, if not streamed) arrived in the window / its length.",
        counts_tokens=True,
    ),
    neutral(
        "mean_concurrency", "requests", "Mean number of requests between sent and end of response during the window."
    ),
    higher(
        "attainment",
        "share",
        "SLO attainment: good / measured requests. Failed and timed-out requests are not good. A request without tpot "
        "can be good. Requests that the scenario cancels (`cancel`) are in neither number.",
    ),
    Metric(
        "error_rate",
        "share",
        "Measured requests that failed, were refused, timed out or did not finish / measured requests sent. Requests "
        "that the scenario cancels (`cancel`) are in neither number.",
    ),
    neutral(
        "cached_share",
        "share",
        "Prompt tokens that the engine took from a cache / prompt tokens. A reply from a result cache counts whole.",
        counts_tokens=True,
    ),
)
_PER_TIME = (
    Metric(
        "errors",
        "count",
        "Most failures of measured requests (see error_rate) in any stretch of that time.",
        per_time=True,
    ),
    Metric("timeouts", "count", "Most time-outs of measured requests in any stretch of that time.", per_time=True),
    Metric(
        "out_of_memory",
        "count",
        "Most failures of measured requests in any stretch of that time whose error says that memory ran out.",
        per_time=True,
    ),
)
_QUALITY = (
    Metric(
        "kl_mean",
        "nats",
        "Mean Kullback-Leibler divergence KL(reference || configuration) over the scored positions. A lower bound if "
        "only the likeliest tokens are known.",
    ),
    Metric("kl_median", "nats", "Median of this divergence over the scored positions."),
    Metric("kl_p99", "nats", "99th percentile of this divergence over the scored positions."),
    Metric("kl_max", "nats", "Largest divergence at a scored position."),
    Metric(
        "kl_bound",
        "nats",
        "Lower bound of kl_mean if only the likeliest tokens are known: all other tokens are merged into one.",
    ),
    higher(
        "top1_agreement",
        "share",
        "Share of the scored positions at which the likeliest token equals that of the reference.",
    ),
    Metric(
        "ppl_ratio",
        "ratio",
        "Perplexity / perplexity of the reference: exp of the mean difference of -ln p of the true tokens. Unavailable "
        "if p is unknown at some positions.",
    ),
    Metric(
        "ppl",
        "perplexity",
        "Perplexity: exp of the mean -ln p of the true tokens. A lower bound if p is unknown at some positions. It "
        "depends on the tokenizer and the text.",
    ),
)
_COSTS = (
    Metric(
        "cost_per_1k_requests_usd",
        "USD",
        "Price of an hour of the scenario's `instance` / (goodput_rps * 3600) * 1000. The price is that of the "
        "catalogue when the run began; its day stands in the column `source`.",
    ),
    Metric(
        "cost_per_1m_output_tokens_usd",
        "USD",
        "Price of an hour of the scenario's `instance` / (output_tokens_per_s * 3600) * 1000000.",
    ),
)
RATE_OF_COST = {"cost_per_1k_requests_usd": "goodput_rps", "cost_per_1m_output_tokens_usd": "output_tokens_per_s"}
"""Rate that each cost follows from; what is wrong with a rate is wrong with its cost."""
COSTS = tuple(RATE_OF_COST)
"""Names of the metrics that need the price of a machine."""

QUALITY = tuple(metric.name for metric in _QUALITY)
"""Names of the metrics of a cell, which belong to none of its loads."""
METRICS = {
    metric.name: metric
    for metric in (*_LATENCIES, *_RATES, *_PER_TIME, *START_AND_MEMORY, *ENERGY, *SERVER_PAGE, *_QUALITY, *_COSTS)
}
OF_CLASSES = frozenset(metric.name for metric in (*_LATENCIES, *_RATES, *_PER_TIME))
"""Names of the metrics that each class of traffic has, too."""
_FROM_SENT = {
    name: f"{name.removesuffix('_ms')}_service_ms"
    for name, metric in METRICS.items()
    if metric.same_from_sent or f"{name.removesuffix('_ms')}_service_ms" in METRICS
}
ALIASES = {
    alias: twin if twin in METRICS else name for name, twin in _FROM_SENT.items() for alias in (twin, f"{name}_service")
}
"""Alternative names of metrics in limits, each with the metric's own name."""


def find(name: str) -> Metric | None:
    """Return the metric of a name or alias, None if there is none."""
    return METRICS.get(ALIASES.get(name, name))


def metric_names(*, takes_statistics: bool) -> list[str]:
    """Return the names of the metrics that are distributions, or of those that are single values."""
    return [name for name, metric in METRICS.items() if metric.takes_statistics is takes_statistics]


def definitions() -> list[dict[str, str]]:
    """Return all metrics as plain dictionaries, for reports."""
    shown = ("name", "unit", "definition", "direction", "show")
    return [{key: str(getattr(metric, key) or "") for key in shown} for metric in METRICS.values()]


_INTRODUCTION = """\
# Metrics

Generated by `python -m harness.metrics`.

- Start of a latency: *due* for requests that the plan sends (open loops, first turns of conversations); *sent* for
  requests that follow a reply (closed loops, later turns). With `_service`, always *sent*
  ([why](adr/0021-where-latencies-begin.md)). Under `max_concurrency`, later turns count from `held_ms` before *sent*.
- Retries: *sent* is the first sending. All attempts and the waits between them are in every latency.
- Measured requests: the requests that the schedule measures, each followed to its end.
- Rates refer to the measurement window. The window begins after warm-up and ramp. It ends when the first request falls
  due that is not measured.
- Requests that timed out, or were unfinished at the end of the trial, are censored. They count as slower than any
  completed request. A quantile among them is printed as "> X".
- Failed requests have no end-to-end latency. They count in `error_rate`, `attainment` and `offered_rps`. A first token
  that arrived before the failure counts in `ttft_ms`.
- Requests that the scenario cancels (`cancel`) have no latency and are neither good nor bad, even if the reply ended
  sooner. Their first tokens count if each of them had one.
- Requests that were never sent are in no metric. They make the trial invalid.
- Quantiles are the inverse CDF, x_(ceil(n p)), without interpolation.

`tpot_ms` gives every request the same weight, `icl_ms` every gap, `itl_ms` every token. `tpot_ms`, `icl_ms`, `itl_ms`
and `stall_max_ms` are the same from any start; limits accept both forms.
"""


def markdown() -> str:
    """Return the reference page."""
    lines = [_INTRODUCTION]
    groups = (
        ("Distributions (`p50`, `p90`, `p95`, `p99`, `max`, `mean`, `min`)", _LATENCIES),
        ("Rates and shares", _RATES),
        ("Counts per time, for limits: `errors <= 10 per 5m`", _PER_TIME),
        ("Start and memory", START_AND_MEMORY),
        ("Energy", ENERGY),
        ("Reported by the server's metrics page", SERVER_PAGE),
        ("Quality, against a reference ([how](quality.md))", _QUALITY),
        ("Cost, at the load of the trial", _COSTS),
    )
    for title, group in groups:
        lines += [f"## {title}", "", "| name | unit | better | definition |", "|---|---|---|---|"]
        for metric in group:
            lines.append(f"| `{metric.name}` | {metric.unit} | {metric.direction.value} | {metric.definition} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    (Path(__file__).resolve().parent.parent / "docs" / "metrics.md").write_text(markdown(), encoding="utf-8")
