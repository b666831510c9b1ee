"""The metrics: name, unit, definition, which way is better, how it is shown, and what other modules ask of it.

`python -m harness.metrics` writes docs/metrics.md.

Two start points. Without a suffix a latency counts from the moment the request was due by the plan, so that waiting
the client or the server caused is in it; with `_service` it counts from the moment it was sent.

A new metric of one number for each request is a row here and its computation in `harness/analysis/latencies.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

SCALAR = "value"
STATISTICS = ("p50", "p90", "p95", "p99", "max", "mean", "min")


class Direction(StrEnum):
    """Which way is better."""

    LOWER = "lower"
    HIGHER = "higher"
    NONE = "none"


class Need(StrEnum):
    """Parts of a reply that a metric is computed from; each value says why a trial without it lacks the metric."""

    STREAM = "the replies were not streamed"
    TWO_TOKENS = "no reply had two tokens in two chunks"
    CHUNK_TIMES = "arrival times of chunks were not kept"
    CHUNK_TOKENS = "the engine does not say how many tokens a chunk bears"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    takes_statistics: it has a distribution; otherwise one value.   unmeasured: why nothing measures it yet.
    queues: it is longer where requests queue, so the queue guard caps its effective sample size.
    counts_tokens: its source is that of the token counts, else the clock.
    same_from_sent: it is the same from due and from sent, so limits may add `_service`.
    """

    name: str
    unit: str
    definition: str
    direction: Direction = Direction.LOWER
    takes_statistics: bool = False
    unmeasured: str | None = None
    queues: bool = False
    counts_tokens: bool = False
    same_from_sent: bool = False
    needs: tuple[Need, ...] = ()

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names under `statistic` in the summary."""
        return STATISTICS if self.takes_statistics else (SCALAR,)

    @property
    def show(self) -> str:
        """How reports format a value: as a time, a share, bytes or a number."""
        return {"ms": "time", "bytes": "bytes", "share": "share"}.get(self.unit, "number")


distribution = partial(Metric, takes_statistics=True)

START_AND_MEMORY = (
    Metric(
        "load_s",
        "s",
        "From starting the engine until it is ready, its library's import among it, the model's files dropped from "
        "the file cache before; where the system shows that they were not, the decision table says so.",
    ),
    Metric(
        "load_warm_s",
        "s",
        "The same with the model's files in the file cache; in process with the import as it was timed the first time.",
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
        "Largest memory of the engine's processes during the trial, what they share counted once: each reading of "
        "resident memory less what it counted too often at the nearest reading of PSS. Resident memory where PSS was "
        "not read; `source` says which.",
    ),
    Metric("load_peak_bytes", "bytes", "The same while the engine started, until it took a request: the cold start."),
    Metric(
        "load_gpu_peak_bytes",
        "bytes",
        "Largest readings of its GPUs' memory while the engine started, added up, as `gpu_memory_peak_bytes`.",
    ),
    Metric(
        "rss_peak_bytes", "bytes", "Largest reading during the trial of the resident memory of the engine's processes."
    ),
    Metric(
        "pss_peak_bytes",
        "bytes",
        "The same with shared pages divided among those who share them (PSS); read at most once a second, and rarer "
        "where that takes long.",
    ),
    Metric(
        "engine_cpu_cores",
        "cores",
        "Processor time of the engine's processes / time, over the measuring window.",
        Direction.NONE,
    ),
    Metric(
        "engine_major_faults",
        "count",
        "Pages for which the engine's processes waited for a disk, in the measuring window.",
    ),
    Metric("swapped_bytes", "bytes", "What the machine under test moved to and from its swap in the measuring window."),
    Metric(
        "system_memory_peak_share",
        "share",
        "Largest reading during the trial of used / total memory of the machine under test.",
    ),
    Metric(
        "gpu_memory_peak_bytes",
        "bytes",
        "Largest readings of each GPU's memory that the engine held during the trial, added up; of all that was in "
        "use where the driver does not tell whose it is.",
    ),
    Metric(
        "gpu_memory_peak_share",
        "share",
        "Largest readings of the memory in use on those GPUs, whoever held it / their total memory.",
    ),
)
ENERGY = (
    Metric(
        "energy_j",
        "J",
        "Energy of the engine's GPUs in the measuring window, together, idle power included: the growth of their "
        "counters. The interval holds what is not known of the window's ends, and 5 % for the sensor.",
    ),
    Metric("energy_j_per_output_token", "J/token", "The same / output tokens that arrived in the window."),
    Metric("energy_j_per_good_request", "J", "The same / measured requests that met every limit of the slo."),
    Metric("gpu_power_w", "W", "Mean of the power readings of each of these GPUs in the window, added up."),
    Metric(
        "gpu_utilisation_share",
        "share",
        "Mean share of time in which a kernel was resident on these GPUs: not how busy they were.",
        Direction.NONE,
    ),
)
SERVER_PAGE = (
    Metric(
        "server_running_mean",
        "requests",
        "Requests that the server was working on, by its own page: mean over the window.",
        Direction.NONE,
    ),
    Metric(
        "server_waiting_mean",
        "requests",
        "Requests that waited inside the server, by its own page: mean over the window.",
    ),
    Metric(
        "server_queue_ms_mean",
        "ms",
        "What requests that ended in the window had waited inside the server, by its own count: mean.",
    ),
    Metric(
        "kv_cache_peak_share",
        "share",
        "Largest reading in the window of the part of the KV cache in use, by the server's page.",
    ),
    Metric(
        "prefix_hit_share",
        "share",
        "Prompt tokens that the server found in its prefix cache / those it looked for, over the window.",
        Direction.HIGHER,
    ),
    Metric("preemptions", "count", "Requests that the server put back in its queue for want of room, in the window."),
)

_NO_PRICES = "this version does not know prices yet"

_LATENCIES = (
    distribution(
        "ttft_ms",
        "ms",
        "Time to first token: arrival of the first token-bearing chunk - due. Replies that are not streamed have none.",
        queues=True,
        needs=(Need.STREAM,),
    ),
    distribution(
        "ttft_service_ms", "ms", "Arrival of the first token-bearing chunk - sent.", queues=True, needs=(Need.STREAM,)
    ),
    distribution(
        "ttfo_ms",
        "ms",
        "Time to first answer token (content or tool call, not reasoning): its arrival - due.",
        queues=True,
        needs=(Need.STREAM,),
    ),
    distribution(
        "ttfo_service_ms", "ms", "Arrival of the first answer token - sent.", queues=True, needs=(Need.STREAM,)
    ),
    distribution(
        "ttfb_ms", "ms", "Time to first byte: arrival of the first byte of the reply's body - sent.", queues=True
    ),
    distribution(
        "tpot_ms",
        "ms",
        "Time per output token of a request: (last token - first token) / (output tokens - 1). A reply that ends by "
        "itself has its last token, where that is counted though it has no text, in the event that says so. Reasoning "
        "that the server counts but does not show is no divisor. Needs two tokens and two chunks, else there is none.",
        counts_tokens=True,
        same_from_sent=True,
        needs=(Need.STREAM, Need.TWO_TOKENS),
    ),
    distribution(
        "tpot_adj_ms",
        "ms",
        "As tpot_ms, but divided by the tokens after the first chunk: exact when chunks bear several tokens. Needs "
        "token counts per chunk.",
        counts_tokens=True,
        needs=(Need.CHUNK_TOKENS,),
    ),
    distribution(
        "icl_ms",
        "ms",
        "Inter-chunk latency: gaps between token-bearing chunks, those of all requests pooled that succeeded or timed "
        "out; zero gaps kept.",
        same_from_sent=True,
        needs=(Need.STREAM, Need.TWO_TOKENS, Need.CHUNK_TIMES),
    ),
    distribution(
        "itl_ms",
        "ms",
        "Inter-token latency: each gap / tokens of the chunk that ends it, counted once per token, pooled; gaps that "
        "a chunk without tokens ends are part of the next. Only where tokens per chunk are known.",
        counts_tokens=True,
        same_from_sent=True,
        needs=(Need.CHUNK_TIMES, Need.CHUNK_TOKENS),
    ),
    distribution(
        "stall_max_ms",
        "ms",
        "The longest gap between two token-bearing chunks of a request, of those that succeeded or timed out.",
        same_from_sent=True,
        needs=(Need.STREAM, Need.TWO_TOKENS, Need.CHUNK_TIMES),
    ),
    distribution(
        "e2e_ms",
        "ms",
        "End to end: last token - due; for a reply that is not streamed, end of the response - due.",
        queues=True,
    ),
    distribution("e2e_service_ms", "ms", "As e2e_ms, but from sent.", queues=True),
    distribution("e2e_close_ms", "ms", "End of the response (with usage and end marker) - due.", queues=True),
    distribution("norm_latency_ms", "ms", "e2e_ms / output tokens.", queues=True, counts_tokens=True),
    distribution(
        "send_lag_ms",
        "ms",
        "Sent - due, less what the other side took to accept it: how late this client was. In ttft_ms both are.",
    ),
    distribution(
        "output_tokens_per_s_per_user",
        "tokens/s",
        "Speed one user sees: 1000 / tpot_ms of the request.",
        Direction.HIGHER,
        counts_tokens=True,
        needs=(Need.TWO_TOKENS,),
    ),
    distribution(
        "reported_total_ms", "ms", "The server's own word, not measured here: how long a successful request took it."
    ),
    distribution(
        "reported_memory_peak_bytes",
        "bytes",
        "The server's own word, not measured here: its peak memory, as it states it with each successful request.",
    ),
)
_RATES = (
    Metric("offered_rps", "requests/s", "Requests due in the window / its length.", Direction.NONE),
    Metric(
        "completed_rps", "requests/s", "Successful requests that ended in the window / its length.", Direction.HIGHER
    ),
    Metric(
        "goodput_rps",
        "requests/s",
        "Good requests due in the window / its length. Good: successful and within every limit of `slo`.",
        Direction.HIGHER,
    ),
    Metric(
        "output_tokens_per_s",
        "tokens/s",
        "Output tokens of any request that arrived in the window / its length. The tokens of a chunk arrive together.",
        Direction.HIGHER,
        counts_tokens=True,
    ),
    Metric(
        "input_tokens_per_s",
        "tokens/s",
        "Prompt tokens of requests whose first token (or whole reply) arrived in the window / its length.",
        Direction.HIGHER,
        counts_tokens=True,
    ),
    Metric(
        "mean_concurrency",
        "requests",
        "Mean number of requests between sent and end of response during the window.",
        Direction.NONE,
    ),
    Metric(
        "attainment",
        "share",
        "Good / measured requests. Failed and timed-out ones are not good; a missing tpot is no fault. Requests that "
        "the plan gave up (`cancel`) are in neither number.",
        Direction.HIGHER,
    ),
    Metric(
        "error_rate",
        "share",
        "Measured requests that failed, were refused, timed out or did not finish / measured requests sent, those "
        "that the plan gave up (`cancel`) left out.",
    ),
    Metric(
        "cached_share",
        "share",
        "Prompt tokens the engine took from a cache / prompt tokens; a reply from a result cache counts whole.",
        Direction.NONE,
        counts_tokens=True,
    ),
)
_QUALITY = (
    Metric(
        "kl_mean",
        "nats",
        "Mean over the scored positions of the Kullback-Leibler divergence KL(reference || it); a lower bound where "
        "only the likeliest tokens are known.",
    ),
    Metric("kl_median", "nats", "The median of the same."),
    Metric("kl_p99", "nats", "The 99th percentile of the same."),
    Metric("kl_max", "nats", "The largest of the same."),
    Metric(
        "kl_bound",
        "nats",
        "What kl_mean is at least, where only the likeliest tokens are known: all others are taken as one.",
    ),
    Metric(
        "top1_agreement",
        "share",
        "Share of the scored positions where the most likely token is the reference's.",
        Direction.HIGHER,
    ),
    Metric(
        "ppl_ratio",
        "ratio",
        "exp of the mean difference of -ln p of the true tokens: perplexity / reference's; none where p is unknown at "
        "some positions.",
    ),
    Metric(
        "ppl",
        "perplexity",
        "exp of the mean -ln p of the true tokens; a lower bound where p is unknown at some positions. Depends on the "
        "tokenizer and the text.",
    ),
)
_NOT_YET = (
    Metric("cost_per_1k_requests_usd", "USD", "Hourly price / good requests per hour * 1000.", unmeasured=_NO_PRICES),
    Metric(
        "cost_per_1m_output_tokens_usd",
        "USD",
        "Hourly price / output tokens per hour * 1000000.",
        unmeasured=_NO_PRICES,
    ),
)

QUALITY = tuple(metric.name for metric in _QUALITY)
"""Those that belong to a cell, not to one of its loads."""
METRICS = {
    metric.name: metric
    for metric in (*_LATENCIES, *_RATES, *START_AND_MEMORY, *ENERGY, *SERVER_PAGE, *_QUALITY, *_NOT_YET)
}
_FROM_SENT = {
    name: f"{name.removesuffix('_ms')}_service_ms"
    for name, metric in METRICS.items()
    if metric.same_from_sent or f"{name.removesuffix('_ms')}_service_ms" in METRICS
}
ALIASES = {
    alias: twin if twin in METRICS else name for name, twin in _FROM_SENT.items() for alias in (twin, f"{name}_service")
}
"""Further names by which limits may call a metric, each with the name it stands for."""


def find(name: str) -> Metric | None:
    """Return the metric of a name as limits may write it; gaps between chunks are the same from due and from sent."""
    return METRICS.get(ALIASES.get(name, name))


def metric_names(*, takes_statistics: bool) -> list[str]:
    """Return the names of the metrics that are distributions, or of the others."""
    return [name for name, metric in METRICS.items() if metric.takes_statistics is takes_statistics]


def definitions() -> list[dict[str, str]]:
    """Return all metrics as plain dictionaries, for reports."""
    shown = ("name", "unit", "definition", "direction", "show", "unmeasured")
    return [{key: str(getattr(metric, key) or "") for key in shown} for metric in METRICS.values()]


_INTRODUCTION = """\
# Metrics

Generated by `python -m harness.metrics`.

Without a suffix a latency counts from the moment the request was *due* by the plan; with `_service` from the moment
it was *sent*. Measured requests are those that the plan measures, each followed to its end; rates are of the window,
which begins when the load has come up and ends when the first request falls due that is not measured. Requests that
timed out or were unfinished when the trial ended count as slower than any that completed: a quantile that falls among
them is printed as "> X". Failed requests have no end-to-end latency, but they count in `error_rate`, `attainment` and
`offered_rps`; a first token that arrived before the failure counts in `ttft_ms`. Requests that the plan gives up have
no latency and are neither good nor bad, whether or not it came to that; first tokens count where each of them had
one. Requests never sent are in no metric and make the trial invalid. Quantiles are the inverse CDF, x_(ceil(n p)),
without interpolation.

`tpot_ms` weighs every request alike, `icl_ms` and `itl_ms` every gap or token. `tpot_ms`, `icl_ms`, `itl_ms` and
`stall_max_ms` are the same from due and from sent; limits may write them either way.
"""


def markdown() -> str:
    """The reference page."""
    lines = [_INTRODUCTION]
    groups = (
        ("Distributions (`p50`, `p90`, `p95`, `p99`, `max`, `mean`, `min`)", _LATENCIES),
        ("Rates and shares", _RATES),
        ("Start and memory", START_AND_MEMORY),
        ("Energy", ENERGY),
        ("What the server says of itself", SERVER_PAGE),
        ("Quality, against a reference ([how](quality.md))", _QUALITY),
        ("Named, not measured yet", _NOT_YET),
    )
    for title, group in groups:
        lines += [f"## {title}", "", "| name | unit | better | definition |", "|---|---|---|---|"]
        for metric in group:
            note = f" *Not measured: {metric.unmeasured}.*" if metric.unmeasured else ""
            lines.append(f"| `{metric.name}` | {metric.unit} | {metric.direction.value} | {metric.definition}{note} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    (Path(__file__).resolve().parent.parent / "docs" / "metrics.md").write_text(markdown(), encoding="utf-8")
