"""Limits as a scenario writes them: `ttft_ms p95 <= 500`, `attainment >= 0.95`, `chat.tpot_ms p50 <= 50ms`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from harness.units import parse_bytes, parse_duration_s, parse_share

# These have a value for every request, so a limit must say which statistic of them it bounds.
DISTRIBUTIONS = (
    "ttft_ms",
    "ttft_service_ms",
    "ttfo_ms",
    "ttfo_service_ms",
    "ttfb_ms",
    "tpot_ms",
    "tpot_adj_ms",
    "icl_ms",
    "itl_ms",
    "stall_max_ms",
    "e2e_ms",
    "e2e_service_ms",
    "e2e_close_ms",
    "norm_latency_ms",
    "send_lag_ms",
    "output_tokens_per_s_per_user",
    "reported_total_ms",
    "reported_memory_peak_bytes",
)
SCALARS = (
    "load_s",
    "load_warm_s",
    "first_request_ms",
    "weight_bytes",
    "rss_after_load_bytes",
    "offered_rps",
    "completed_rps",
    "goodput_rps",
    "output_tokens_per_s",
    "input_tokens_per_s",
    "mean_concurrency",
    "attainment",
    "error_rate",
    "cached_share",
    "memory_peak_bytes",
    "load_peak_bytes",
    "load_gpu_peak_bytes",
    "rss_peak_bytes",
    "gpu_memory_peak_bytes",
    "gpu_memory_peak_share",
    "system_memory_peak_share",
    "energy_j",
    "energy_j_per_output_token",
    "energy_j_per_good_request",
    "gpu_power_w",
    "gpu_utilisation_share",
    "pss_peak_bytes",
    "engine_cpu_cores",
    "engine_major_faults",
    "swapped_bytes",
    "server_running_mean",
    "server_waiting_mean",
    "server_queue_ms_mean",
    "kv_cache_peak_share",
    "prefix_hit_share",
    "preemptions",
    "kl_mean",
    "kl_median",
    "kl_p99",
    "kl_max",
    "kl_bound",
    "top1_agreement",
    "ppl_ratio",
    "ppl",
    "cost_per_1k_requests_usd",
    "cost_per_1m_output_tokens_usd",
)
METRIC_NAMES = (*DISTRIBUTIONS, *SCALARS)
# From sent instead of from due; gaps between chunks are the same from both.
_FROM_SENT = ("ttft_ms", "ttfo_ms", "tpot_ms", "icl_ms", "itl_ms", "e2e_ms", "stall_max_ms")
ALIASES = tuple(f"{name}_service" for name in _FROM_SENT) + tuple(
    f"{name.removesuffix('_ms')}_service_ms" for name in ("tpot_ms", "icl_ms", "itl_ms", "stall_max_ms")
)
CACHE_CLASSES = ("cached", "uncached", "repeated", "original")
"""Names under which results are given beside those of the scenario's classes (`harness.analysis.reading`)."""
BACKEND_CLASS = "backend:"
"""How the names of such results begin that are of one backend (`harness.analysis.reading`)."""
OPERATORS = ("<=", ">=", "<", ">")
_EXAMPLE = "`ttft_ms p95 <= 500` or `error_rate <= 0.01`"
_SHAPE = re.compile(
    r"\s*(?:(?P<class_name>backend:[^\s<>=]+|[\w-]+)\.)?(?P<metric>[\w-]+)(?:\s+(?P<statistic>[\w.]+))?"
    r"\s*(?P<op><=|>=|==|=<|=>|!=|<|>|=)\s*(?P<value>[^\s<>=]+(?: ?[A-Za-z%]+)?)\s*"
)
_QUANTILE = re.compile(r"p(?P<percent>[1-9][0-9]?(\.[0-9]{1,3})?)")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on one statistic of one metric, of one class of the traffic or (None) of all.

    statistic: "p95", "mean", "max" or "min"; None for a metric that is one number.   value: in the metric's unit.
    op: "<=", ">=", "<" or ">".   text: as it was written.
    """

    class_name: str | None
    metric: str
    statistic: str | None
    op: str
    value: float
    text: str

    @property
    def subject(self) -> tuple[str | None, str, str | None, str]:
        """What is bounded, and from which side."""
        return self.class_name, self.metric, self.statistic, self.op[0]


def parse_limit(text: str) -> Limit:
    """A limit from its text; raises ValueError with one sentence that says what to write instead."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a limit; write `metric statistic op value`, such as {_EXAMPLE}")
    metric, op = match["metric"], match["op"]
    if metric not in METRIC_NAMES and metric not in ALIASES:
        raise ValueError(_unknown_metric(metric))
    if op not in OPERATORS:
        raise ValueError(f"`{op}` cannot be used in a limit; write one of {', '.join(OPERATORS)}")
    statistic = _statistic(metric, match["statistic"], op, match["value"])
    return Limit(match["class_name"], metric, statistic, op, _value(metric, match["value"]), " ".join(text.split()))


RESERVED_CLASSES = ("all", "default")
"""Names of groups of requests in results, which no class may have, beside those of splits."""


def is_split(class_name: str) -> bool:
    """Whether a class is none of the scenario's, but one that results are split into."""
    return class_name in CACHE_CLASSES or class_name.startswith(BACKEND_CLASS)


def override(base: Iterable[str], own: Iterable[str]) -> tuple[str, ...]:
    """The limits `base` with those of `own` added; one of `own` replaces those of `base` with the same subject."""
    mine = tuple(own)
    replaced = {parse_limit(text).subject for text in mine}
    return (*(text for text in base if parse_limit(text).subject not in replaced), *mine)


def _unknown_metric(metric: str) -> str:
    near = get_close_matches(metric, METRIC_NAMES, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(METRIC_NAMES)}"
    return f"there is no metric `{metric}`; {hint}"


def _statistic(metric: str, statistic: str | None, op: str, value: str) -> str | None:
    if metric in SCALARS:
        if statistic is not None:
            raise ValueError(f"`{metric}` is one number; write `{metric} {op} {value}` without `{statistic}`")
        return None
    if statistic is None:
        raise ValueError(f"`{metric}` differs from request to request; say which, such as `{metric} p95 {op} {value}`")
    if statistic not in ("mean", "max", "min") and not _QUANTILE.fullmatch(statistic):
        raise ValueError(f"there is no statistic `{statistic}`; write p1 to p99.9, mean, max or min")
    return statistic


def _value(metric: str, text: str) -> float:
    """The number in the metric's unit, which its name tells; a value with a unit is converted."""
    if _NUMBER.fullmatch(text):
        return float(text)
    if "ms" in metric.split("_"):
        return parse_duration_s(text) * 1000
    if metric in ("load_s", "load_warm_s"):
        return parse_duration_s(text)
    if metric.endswith("_bytes"):
        return float(parse_bytes(text))
    if text.endswith("%"):
        return parse_share(text)
    raise ValueError(f"{text!r} is not a number; `{metric}` needs a bare one")
