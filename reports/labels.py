"""Labels of numbers in the heads of tables and the legends of plots."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """Column of numbers.

    Attributes:
        name: Metric or value that it shows.
        show: Form of the number, see `reports.format.amount`.
        optional: Left out if no row has a number.
        wide: Left out if there is little room.
    """

    head: str
    name: str
    show: str = "number"
    statistic: str = "value"
    optional: bool = False
    wide: bool = False


DATA = {"valid": "good", "warn": "usable", "invalid": "poor"}
"""Quality of a trial's data, by its stored validity."""

LATENCIES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "end to end", "icl_ms": "between chunks"}
"""Names of latencies in plots."""

RESULTS = (
    Column("TTFT p50, ms", "ttft_ms", statistic="p50"),
    Column("TTFT p95, ms", "ttft_ms", statistic="p95"),
    Column("TPOT p50, ms", "tpot_ms", statistic="p50"),
    Column("E2E p95, ms", "e2e_ms", statistic="p95"),
    Column("output tokens/s", "output_tokens_per_s"),
    Column("requests/s", "completed_rps"),
    Column("errors", "error_rate", "share"),
    Column("memory", "memory_peak_bytes", "bytes"),
    Column("GPU memory", "gpu_memory_peak_bytes", "bytes", optional=True),
    Column("energy, J/token", "energy_j_per_output_token", optional=True),
    Column("startup, s", "load_s", optional=True),
)
QUALITY = (
    Column("KL, nats", "kl_mean"),
    Column("KL at least", "kl_bound", optional=True),
    Column("KL median", "kl_median"),
    Column("KL p99", "kl_p99"),
    Column("KL largest", "kl_max"),
    Column("same top token", "top1_agreement", "share"),
    Column("perplexity", "ppl"),
    Column("ratio", "ppl_ratio"),
)
REPLIES = (
    Column("words", "words"),
    Column("different words", "distinct_1", "share"),
    Column("different pairs", "distinct_2", "share"),
    Column("reading ease", "flesch"),
    Column("prompt's words used", "overlap", "share"),
)
DECISION = (
    Column("speed, tokens/s", "speed"),
    Column("vs. reference", "speed_ratio", "share"),
    Column("size on disk", "weight_bytes", "bytes"),
    Column("memory, peak", "memory_peak_bytes", "bytes"),
    Column("GPU memory, peak", "gpu_memory_peak_bytes", "bytes", optional=True),
)
DECISION_QUALITY = (
    Column("KL, nats", "kl_mean", wide=True),
    Column("same top token", "top1_agreement", "share", wide=True),
)
ENGINE = (
    Column("bits per weight", "bits_per_weight", optional=True),
    Column("size on disk", "weight_bytes", "bytes", optional=True),
    Column("weights in memory", "weights_in_memory_bytes", "bytes", optional=True),
    Column("memory, loading", "load_peak_bytes", "bytes", optional=True),
    Column("memory, loaded", "rss_after_load_bytes", "bytes", optional=True),
    Column("memory, peak", "memory_peak_bytes", "bytes", optional=True),
    Column("GPU memory, loading", "load_gpu_peak_bytes", "bytes", optional=True),
    Column("GPU memory, peak", "gpu_memory_peak_bytes", "bytes", optional=True),
    Column("KV cache per token", "kv_bytes_per_token", "bytes", optional=True),
    Column("startup cold, s", "load_s", optional=True),
    Column("startup warm, s", "load_warm_s", optional=True),
    Column("first request, ms", "first_request_ms", optional=True),
)
UNDER_LOAD = (
    Column("output tokens/s", "output_tokens_per_s"),
    Column("one user, tokens/s", "output_tokens_per_s_per_user", optional=True),
    Column("requests/s", "completed_rps"),
    Column("TTFT p95, ms", "ttft_p95_ms"),
    Column("TPOT p95, ms", "tpot_p95_ms"),
    Column("E2E p95, ms", "e2e_p95_ms"),
    Column("succeeded", "success", "share"),
    Column("SLO attainment", "attainment", "share", optional=True),
)
