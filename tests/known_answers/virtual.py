"""Requests by the real driver and the plug-in `known-times` in virtual time: no request is late, no reply is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.known_answers.case import Case
from tests.known_answers.measured import Measured
from tests.known_answers.running import measured

Step = tuple[float, str, dict[str, Any]]


def usage(prompt: int, output: int, cached: int | None = None) -> dict[str, Any]:
    """The counts at a reply's end."""
    return {"usage": {"prompt_tokens": prompt, "output_tokens": output, "cached_tokens": cached}}


def spoken(first_ms: float, gap_ms: float, tokens: int) -> list[Step]:
    """A reply of single tokens, all as far apart."""
    texts: list[Step] = [(first_ms + gap_ms * i, "content", {}) for i in range(tokens)]
    return [*texts, (texts[-1][0], "finish", {"finish_reason": "length"}), (texts[-1][0], "usage", usage(50, tokens))]


REPORTED = {"total_ms": 1150.0, "prompt_ms": 190.0, "generation_ms": 955.0, "memory_peak_bytes": 5e8}
FOURS: list[Step] = [  # a role, ten chunks of reasoning, fifteen of the answer, each of four tokens; then the counts
    (150, "role", {}),
    *((200 + 40 * i, "reasoning" if i < 10 else "content", {"tokens": 4}) for i in range(25)),
    (1160, "finish", {"finish_reason": "length"}),
    (1180, "usage", usage(120, 100, 30) | {"reported": REPORTED}),
]
UNEVEN: list[Step] = [  # gaps of 10, 10, 10 and 70 ms
    *((at_ms, "content", {}) for at_ms in (100, 110, 120, 130, 200)),
    (200, "finish", {"finish_reason": "length"}),
    (200, "usage", usage(50, 5)),
]
QUICK, SLOW = spoken(50, 10, 6), spoken(500, 300, 6)  # 100 ms and 2 s
FAILING: list[Step] = [(50, "content", {}), (80, "error", {"text": "out of memory"})]
HANGING: list[Step] = [(3_600_000, "content", {})]


def block(name: str, replies: list[list[Step]], load: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An engine with replies of its own under one load of that name."""
    return {
        "engine": "known-times",
        "variants": {name: {"replies": replies, **more}},
        "load": [{"name": name, "timeout": "60s", **load}],
    }


CONSTANT = {"kind": "sustained", "arrivals": "constant"}
SCENARIO: dict[str, Any] = {
    "instance": "a100-40gb",  # $4.10 an hour
    "workload": {"prompt_tokens": 50, "output_tokens": 200},
    "engines": [
        block("fours", [FOURS], {"kind": "single_user", "requests": 12}, first=spoken(300, 50, 2)),
        block("uneven", [UNEVEN], {"kind": "single_user", "requests": 12}),
        block("steady", [spoken(130, 100, 100)], CONSTANT | {"rate": 2, "warmup": "20s", "duration": "60s"}),
        block(
            "failures",
            [[*QUICK]] * 7 + [SLOW, FAILING, HANGING],
            CONSTANT
            | {"rate": 10, "warmup": "10s", "duration": "20s", "timeout": "5s", "slo": {"e2e": "1s"}}
            | {"limits": [f"{name} <= 100 per 10s" for name in ("errors", "timeouts", "out_of_memory")]},
            first=QUICK,
        ),
        block(
            "eight places",
            [spoken(1000, 0, 1)],
            CONSTANT | {"rate": 10, "max_concurrency": 8, "duration": "16s"},
        ),
        block(
            "eight users",
            [spoken(1000, 0, 1)],
            {"kind": "sustained", "users": 8, "think_time": "1s", "warmup": "10s", "duration": "100s"},
        ),
    ],
}
CASES = (
    Case("ttft_ms", "fours", "25 chunks of 4 tokens, the first at 200 ms, the others 40 apart", 200, "p50"),
    Case("ttft_service_ms", "fours", "as ttft_ms: each follows a reply, and counts from sent", 200, "p50"),
    Case("ttfo_ms", "fours", "10 chunks of reasoning first: 200 + 10 · 40", 600, "p50"),
    Case("ttfo_service_ms", "fours", "as ttfo_ms", 600, "p50"),
    Case("ttfb_ms", "fours", "the role came at 150 ms", 150, "p50"),
    Case("tpot_ms", "fours", "24 · 40 / 99", 960 / 99, "mean"),
    Case("tpot_adj_ms", "fours", "24 · 40 / 96", 10, "mean"),
    Case("icl_ms", "fours", "each gap is 40 ms", 40, "max"),
    Case("icl_ms", "uneven", "gaps of 10, 10, 10 and 70 ms", 25, "mean"),
    Case("itl_ms", "fours", "40 / 4", 10, "max"),
    Case("itl_ms", "uneven", "(3 · 10 + 70) / 4", 25, "mean"),
    Case("stall_max_ms", "fours", "each gap is 40 ms", 40, "max"),
    Case("stall_max_ms", "uneven", "gaps of 10, 10, 10 and 70 ms", 70, "p50"),
    Case("e2e_ms", "fours", "200 + 24 · 40", 1160, "p50"),
    Case("e2e_service_ms", "fours", "as e2e_ms", 1160, "p50"),
    Case("e2e_close_ms", "fours", "the counts came 20 ms later", 1180, "p50"),
    Case("norm_latency_ms", "fours", "1160 / 100", 11.6, "p50"),
    Case("send_lag_ms", "steady", "none is sent late", 0, "max"),
    Case(
        "held_ms", "eight places", "a round of 8 is due each 0.8 s and takes 1 s: the k-th waits 0.2 s · k", 3800, "max"
    ),
    Case("held_ms", "eight places", "20 rounds, the k-th of which waits 0.2 s · k", 1900, "mean"),
    Case("ttft_ms", "eight places", "the wait of half of 20 rounds, and 1 s: 9 · 0.2 + 1", 2800, "p50"),
    Case("ttft_service_ms", "eight places", "without the wait", 1000, "max"),
    Case("send_lag_ms", "eight places", "to be held is not to be late", 0, "max"),
    Case("client_turnaround_ms", "fours", "each is sent when the reply before it ends", 0, "max"),
    Case("output_tokens_per_s_per_user", "fours", "1000 · 99 / 960", 103.125, "mean"),
    Case("reported_total_ms", "fours", "so it says", 1150, "p50"),
    Case("reported_prompt_ms", "fours", "so it says", 190, "p50"),
    Case("reported_generation_ms", "fours", "so it says", 955, "p50"),
    Case("reported_memory_peak_bytes", "fours", "so it says", 5e8, "max"),
    Case("cached_share", "fours", "30 / 120", 0.25),
    Case("first_request_ms", "fours", "the first of all: 300 + 50", 350),
    Case("offered_rps", "steady", "2/s", 2),
    Case("completed_rps", "steady", "2/s, each of 10 s", 2),
    Case("completed_rps", "eight users", "8 / (1 s + 1 s)", 4),
    Case("output_tokens_per_s", "steady", "2/s · 100 tokens", 200),
    Case("input_tokens_per_s", "steady", "2/s · 50 tokens", 100),
    Case("mean_concurrency", "steady", "2/s · (130 + 99 · 100) ms", 2 * 10.03),
    Case("mean_concurrency", "eight users", "4/s · 1 s", 4),
    Case("e2e_ms", "failures", "of 9 that do not fail 7 take 100 ms", 100, "p50"),
    Case("e2e_ms", "failures", "of 9 that do not fail one takes longer than its 5 s", 5000, "p95", column="low"),
    Case("error_rate", "failures", "of ten 1 fails and 1 hangs", 0.2),
    Case("errors", "failures", "of ten 1 fails and 1 hangs, 10/s", 20, "most per 10s"),
    Case("timeouts", "failures", "of ten 1 hangs, 10/s", 10, "most per 10s"),
    Case("out_of_memory", "failures", "of ten 1 fails so, 10/s", 10, "most per 10s"),
    Case("attainment", "failures", "of ten 7 are quick, 1 is slow", 0.7),
    Case("offered_rps", "failures", "10/s, whatever becomes of them", 10),
    Case("completed_rps", "failures", "8 of ten, 10/s", 8),
    Case("goodput_rps", "failures", "7 of ten, 10/s", 7),
    Case("cost_per_1k_requests_usd", "failures", "$4.10 an hour / (7/s · 3600) · 1000", 4.10 / 25.2),
    Case("cost_per_1m_output_tokens_usd", "steady", "$4.10 an hour / (200/s · 3600) · 1e6", 4.10 / 0.72),
)


def run(folder: Path) -> Measured:
    """The run."""
    return measured(folder, SCENARIO)
