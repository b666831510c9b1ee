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


@dataclass(frozen=True, slots=True)
class Figure:
    """Number of the results table.

    Attributes:
        family: Name by which `columns` of a scenario chooses it and its neighbours.
        over: Upper line of its head, shared by neighbours; "" for none.
        head: Lower line of its head.
        metric: Metric, or a number of `reports.tables.overview.computed`.
        show: Form of the number, see `reports.format.amount`; "time" for milliseconds, which may be shown in seconds.
        rank: Place in the order in which figures are left out without room, the highest first.
        spread: The same of its interval beside the value; 0 if it is never shown there.
        estimated: Whether it has an interval, so that a missing one is marked.
    """

    family: str
    over: str
    head: str
    metric: str
    statistic: str = "value"
    show: str = "number"
    unit: str = ""
    rank: int = 0
    spread: int = 0
    estimated: bool = True

    @property
    def key(self) -> tuple[str, str]:
        """Metric and statistic."""
        return self.metric, self.statistic

    def heads(self, unit: str) -> tuple[str, str]:
        """Return both lines of its head: ("TTFT ms", "p95")."""
        over = f"{self.over} {unit}" if self.over and unit else self.over
        return over, self.head if self.over or not unit else f"{self.head} {unit}"


DATA = {"valid": "good", "warn": "usable", "invalid": "poor"}
"""Quality of a trial's data, by its stored validity."""

LATENCIES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "end to end", "icl_ms": "between chunks"}
"""Names of latencies in plots."""

RESULTS = (
    Figure("users", "", "users", "users", show="count", rank=2, estimated=False),
    Figure("rate", "rate", "asked", "asked_rps", unit="req/s", rank=2, estimated=False),
    Figure("rate", "rate", "done", "completed_rps", unit="req/s", rank=2),
    Figure("rate", "in flight", "cap", "max_concurrency", show="count", rank=2, estimated=False),
    Figure("ttft", "TTFT", "p50", "ttft_ms", "p50", "time", rank=3, spread=21),
    Figure("ttft", "TTFT", "p90", "ttft_ms", "p90", "time", rank=40),
    Figure("ttft", "TTFT", "p95", "ttft_ms", "p95", "time", rank=1, spread=20),
    Figure("ttft", "TTFT", "p99", "ttft_ms", "p99", "time", rank=8, spread=35),
    Figure("ttft", "TTFT", "mean", "ttft_ms", "mean", "time", rank=30),
    Figure("ttft", "TTFT", "max", "ttft_ms", "max", "time", rank=26, estimated=False),
    Figure("tpot", "TPOT", "p50", "tpot_ms", "p50", "time", rank=4, spread=33),
    Figure("tpot", "TPOT", "p95", "tpot_ms", "p95", "time", rank=11, spread=36),
    Figure("itl", "ITL", "p50", "itl_ms", "p50", "time", rank=31),
    Figure("itl", "ITL", "p95", "itl_ms", "p95", "time", rank=24),
    Figure("itl", "ITL", "max", "itl_ms", "max", "time", rank=24, estimated=False),
    Figure("e2e", "E2E", "p50", "e2e_ms", "p50", "time", rank=9),
    Figure("e2e", "E2E", "p95", "e2e_ms", "p95", "time", rank=6, spread=22),
    Figure("e2e", "E2E", "p99", "e2e_ms", "p99", "time", rank=41),
    Figure("e2e", "E2E", "mean", "e2e_ms", "mean", "time", rank=34),
    Figure("e2e", "E2E", "max", "e2e_ms", "max", "time", rank=32, estimated=False),
    Figure("tokens", "output", "tok/s", "output_tokens_per_s", rank=5, spread=28),
    Figure("tokens", "input", "tok/s", "input_tokens_per_s", rank=25),
    Figure("tokens", "total", "tok/s", "total_tokens_per_s", rank=27, estimated=False),
    Figure("goodput", "goodput", "req/s", "goodput_rps", rank=10),
    Figure("slo", "SLO", "met", "attainment", show="share", rank=7),
    Figure("errors", "", "errors", "error_rate", show="share", rank=7),
    Figure("in_flight", "in flight", "mean", "mean_concurrency", rank=38),
    Figure("in_flight", "in flight", "peak", "peak_in_flight", show="count", rank=23, estimated=False),
    Figure("memory", "memory", "peak", "memory_peak_bytes", show="bytes", rank=42, estimated=False),
    Figure("gpu_memory", "GPU mem.", "peak", "gpu_memory_peak_bytes", show="bytes", rank=29, estimated=False),
    Figure("energy", "energy", "J/token", "energy_j_per_output_token", rank=12),
    Figure("cost", "cost per", "1,000 req", "cost_per_1k_requests_usd", unit="USD", rank=37),
    Figure("cost", "cost per", "1M tok", "cost_per_1m_output_tokens_usd", unit="USD", rank=39),
    Figure("startup", "", "startup", "load_s", unit="s", rank=43, estimated=False),
)
"""Numbers of the results table, from left to right."""
UNREMARKABLE_RANK = 39
"""Rank of errors where no request failed: the head of the screen says so."""
PAGE_RANK = 12
"""Highest rank of the figures that a page shows."""
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
