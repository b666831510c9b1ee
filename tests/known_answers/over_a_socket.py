"""Requests over a socket, in real time: what the client says against the log of the server that answered.

`server.py` notes when it had read a request and between which moments it wrote each piece. What the client says lies
between the least and the most that these allow: a piece arrives no sooner than it was begun to be written, and is
stamped by the kernel no later than SLACK_MS after it had been written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests import fake_nvml
from tests.known_answers.case import Case
from tests.known_answers.measured import Measured
from tests.known_answers.running import REAL, measured
from tests.known_answers.server import CACHED_TOKENS, PROMPT_TOKENS, TOKENS

Floats = NDArray[np.float64]
Span = tuple[Floats, Floats]
Told = dict[str, NDArray[np.int64]]

SLACK_MS = 1.0
RATE, WARMUP_S, SECONDS = 4, 1, 5
LOAD, ALONE, CAPPED, PLAIN, HOLDING = "chat", "alone", "capped", "plain", "holding"
TURNS, QUEUED, QUEUED_RATE = 5, 8, 40
SERVER = Path(__file__).with_name("server.py")
PRIVATE_MIB, SHARED_MIB, GROWN_MIB, LOADING_MIB, BURN_MS, FAULTS = 48, 16, 24, 160, 10, 64
WATTS, USED_GIB, TOTAL_GIB, BUSY_PERCENT, GPUS = 300, 12, 80, 73, (0, 1)
MIDDLE = 1 + RATE * (WARMUP_S + SECONDS // 2)  # the first request after the start came before them
CHUNKS = ("first", "answer", "third", "fourth", "last")


def command(folder: Path, name: str, *options: object) -> str:
    """The server's command line; its log is called after the variant."""
    return f"{sys.executable} -P {SERVER} {{port}} --log {folder / name}.jsonl {' '.join(map(str, options))}"


def run(folder: Path) -> Measured:
    """A run with two cells: the server as it is, and one that holds memory, burns time and waits for a disk; beside
    them three GPUs by the fake driver, of which the engine is given two.
    """
    holding = (
        "--private-mib",
        PRIVATE_MIB,
        "--shared-mib",
        SHARED_MIB,
        "--grown-mib",
        GROWN_MIB,
        "--loading-mib",
        LOADING_MIB,
    )
    holding += ("--burn-ms", BURN_MS, "--faults", FAULTS, "--fault-at", MIDDLE)  # type: ignore[assignment]
    variants = {PLAIN: {"command": command(folder, PLAIN)}, HOLDING: {"command": command(folder, HOLDING, *holding)}}
    engine = {"engine": "http", "dialect": "openai-chat", "served_model": "m", "variants": variants}
    scenario: dict[str, Any] = {
        "engines": [engine | {"devices": list(GPUS)}],
        "workload": {"prompt_tokens": PROMPT_TOKENS, "output_tokens": TOKENS},
        "slo": {"e2e": "20s"},
        "load": [
            {"kind": "sustained", "name": LOAD, "rate": RATE, "arrivals": "constant"}
            | {"warmup": f"{WARMUP_S}s", "duration": f"{SECONDS}s", "timeout": "30s"},
            {"kind": "single_user", "name": ALONE, "requests": TURNS, "timeout": "30s"},
            {"kind": "sustained", "name": CAPPED, "rate": QUEUED_RATE, "arrivals": "constant", "max_concurrency": 1}
            | {"requests": QUEUED, "timeout": "30s"},
        ],
    }
    words = {"gpus": 3, "power_mw": WATTS * 1000, "tick_ns": 5_000_000, "gpu_percent": BUSY_PERCENT}
    words |= {"used": USED_GIB << 30, "total": TOTAL_GIB << 30, "without": "nvmlDeviceGetComputeRunningProcesses"}
    found = measured(folder, scenario, REAL | fake_nvml.environment(**words))
    for name in variants:
        found.log += [json.loads(line) | {"cell": name} for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    return found


def replies(run: Measured) -> Told:
    """The log of the plain server, [requests, 2]: each piece from and until; and the due times by the plan."""
    told = [line["reply"] for line in run.log if line["cell"] == PLAIN and "reply" in line]
    told = sorted(told, key=lambda one: int(one["read"][0]))[1:]  # the first was sent before the load
    due_ns = run.trial(LOAD, PLAIN)["t0_ns"] + np.arange(len(told)) * (10**9 // RATE)
    found = {name: np.array([one[name] for one in told]) for name in told[0]}
    return found | {"due": np.stack([due_ns, due_ns], axis=1)}


def turns(run: Measured, load: str = ALONE) -> Told:
    """The log of the plain server under a later load, such as the user who is alone: of each request measured."""
    told, measured = replies(run), run.records(load, PLAIN)
    t0_ns = run.trial(load, PLAIN)["t0_ns"]
    first = int(np.searchsorted(told["read"][:, 0], t0_ns))
    chosen = slice(first, first + int((measured["phase"] == "measure").sum()))
    return {name: moments[chosen] for name, moments in told.items()}


def waited_for_the_place(run: Measured) -> tuple[float, float]:
    """There is one place: each request but the first waits from due until the end of the reply before it arrives."""
    told, t0_ns = turns(run, CAPPED), run.trial(CAPPED, PLAIN)["t0_ns"]
    due_ns = t0_ns + np.arange(1, QUEUED) * (10**9 // QUEUED_RATE)
    low, high = (np.maximum(told["close"][:-1, end] - due_ns, 0).sum() / 1e6 / QUEUED for end in (0, 1))
    return float(low), float(high) + SLACK_MS


def turned_round(run: Measured) -> tuple[float, float]:
    """The longest time between two requests, the first having nothing before it but the beginning of the load."""
    told, t0_ns = turns(run), run.trial(ALONE, PLAIN)["t0_ns"]
    ended_ns = np.concatenate(([t0_ns], told["close"][:-1, 0]))
    return 0.0, float((told["read"][:, 1] - ended_ns).max()) / 1e6 + SLACK_MS


def first_in_turn(run: Measured) -> tuple[float, float]:
    """From sent: at most from the reply before, and no less than from when it was read."""
    told, t0_ns = turns(run), run.trial(ALONE, PLAIN)["t0_ns"]
    ended_ns = np.concatenate(([t0_ns], told["close"][:-1, 0]))
    least, most = told["first"][:, 0] - told["read"][:, 1], told["first"][:, 1] - ended_ns
    return float(least.mean()) / 1e6, float(most.mean()) / 1e6 + SLACK_MS


def measured_replies(run: Measured) -> Told:
    """Of the measured requests: those of the seconds after the warm-up."""
    chosen = slice(RATE * WARMUP_S, RATE * (WARMUP_S + SECONDS))
    return {name: moments[chosen] for name, moments in replies(run).items()}


def between(told: Told, start: str, end: str) -> Span:
    """The least and the most from one moment to another, of each request, in milliseconds.

    When a request was sent the server does not know: after it was due and before it was read.
    """
    begin = np.stack([told["due"][:, 0], told["read"][:, 0]], axis=1) if start == "sent" else told[start]
    low, high = told[end][:, 0] - begin[:, 1], told[end][:, 1] - begin[:, 0]
    return low / 1e6 - (SLACK_MS if start not in ("due", "sent") else 0), high / 1e6 + SLACK_MS


def logged(metric: str, follows: str, of: Callable[[Told], Span]) -> Case:
    """A case whose ends are the means of the log's least and most of each request."""

    def bounds(run: Measured) -> tuple[float, float]:
        low, high = of(measured_replies(run))
        return float(low.mean()), float(high.mean())

    return Case(metric, LOAD, f"{follows}, ± 1 ms", statistic="mean", cell=PLAIN, bounds=bounds)


def per(span: Span, number: float) -> Span:
    """Both ends divided."""
    return span[0] / number, span[1] / number


def gaps(told: Told) -> Span:
    """Between chunks that follow each other, request by request."""
    each = [between(told, a, b) for a, b in pairwise(CHUNKS)]
    return np.stack([low for low, _ in each]), np.stack([high for _, high in each])


def pooled(span: Span) -> Span:
    """All of them."""
    return span[0].ravel(), span[1].ravel()


def overlap(begin: NDArray[np.int64], end: NDArray[np.int64], window: Sequence[int]) -> float:
    """How many there were on average."""
    inside = np.minimum(end, window[1]) - np.maximum(begin, window[0])
    return float(np.maximum(inside, 0).sum()) / (window[1] - window[0])


def concurrency(run: Measured) -> tuple[float, float]:
    """At least from read until the end was written, at most from due."""
    told, window = replies(run), run.window_ns(LOAD, PLAIN)
    slack_ns = round(SLACK_MS * 1e6)
    least = overlap(told["read"][:, 0], told["close"][:, 0], window)
    return least, overlap(told["due"][:, 0], told["close"][:, 1] + slack_ns, window)


def ended_in_time(run: Measured, piece: str) -> tuple[float, float]:
    """A second: requests of the plan whose piece was written in the window, one at either end not being known."""
    told, (start_ns, end_ns) = replies(run)[piece], run.window_ns(LOAD, PLAIN)
    slack_ns = round(SLACK_MS * 1e6)
    seconds = (end_ns - start_ns) / 1e9
    surely = (told[:, 0] >= start_ns) & (told[:, 1] + slack_ns < end_ns)
    perhaps = (told[:, 1] + slack_ns >= start_ns) & (told[:, 0] < end_ns)
    return float(surely.sum()) / seconds - 1e-6, float(perhaps.sum()) / seconds + 1e-6


def tokens_in_time(run: Measured) -> tuple[float, float]:
    """Two tokens a chunk."""
    each = [ended_in_time(run, name) for name in CHUNKS]
    return 2 * sum(low for low, _ in each), 2 * sum(high for _, high in each)


def prompt_tokens_in_time(run: Measured) -> tuple[float, float]:
    """With the first token."""
    low, high = ended_in_time(run, "first")
    return PROMPT_TOKENS * low, PROMPT_TOKENS * high


def rate(metric: str, follows: str, bounds: Callable[[Measured], tuple[float, float]]) -> Case:
    """Of a rate."""
    return Case(metric, LOAD, follows, cell=PLAIN, bounds=bounds)


CASES = (
    logged("ttft_ms", "first token written - due", lambda told: between(told, "due", "first")),
    logged("ttft_service_ms", "first token written - sent", lambda told: between(told, "sent", "first")),
    logged("ttfo_ms", "first answer written - due", lambda told: between(told, "due", "answer")),
    logged("ttfo_service_ms", "first answer written - sent", lambda told: between(told, "sent", "answer")),
    logged("ttfb_ms", "role written - sent", lambda told: between(told, "sent", "role")),
    logged("tpot_ms", "(last - first written) / 9", lambda told: per(between(told, "first", "last"), 9)),
    logged("tpot_adj_ms", "(last - first written) / 8", lambda told: per(between(told, "first", "last"), 8)),
    logged("icl_ms", "between two writings", lambda told: pooled(gaps(told))),
    logged("itl_ms", "(between two writings) / 2", lambda told: per(pooled(gaps(told)), 2)),
    logged(
        "stall_max_ms",
        "the longest between two writings",
        lambda told: (gaps(told)[0].max(axis=0), gaps(told)[1].max(axis=0)),
    ),
    logged("e2e_ms", "last token written - due", lambda told: between(told, "due", "last")),
    logged("e2e_service_ms", "last token written - sent", lambda told: between(told, "sent", "last")),
    logged("e2e_close_ms", "end written - due", lambda told: between(told, "due", "close")),
    logged("norm_latency_ms", "(last token written - due) / 10", lambda told: per(between(told, "due", "last"), 10)),
    Case(
        "ttft_ms",
        ALONE,
        "first token written - sent, ± 1 ms, which lies between the end of the reply before and read",
        statistic="mean",
        cell=PLAIN,
        bounds=first_in_turn,
    ),
    Case(
        "client_turnaround_ms",
        ALONE,
        "at least 0, at most the longest time from the end of a reply until the next request was read, ± 1 ms",
        statistic="max",
        cell=PLAIN,
        bounds=turned_round,
    ),
    logged(
        "send_lag_ms",
        "at least 0, at most request read - due",
        lambda told: (np.zeros(len(told["due"])), between(told, "due", "read")[1]),
    ),
    Case(
        "held_ms",
        CAPPED,
        "one place: end of the reply before written - due, ± 1 ms",
        statistic="mean",
        cell=PLAIN,
        bounds=waited_for_the_place,
    ),
    logged(
        "output_tokens_per_s_per_user",
        "9 / (last - first written)",
        lambda told: (9e3 / between(told, "first", "last")[1], 9e3 / between(told, "first", "last")[0]),
    ),
    Case("offered_rps", LOAD, "by plan", RATE, cell=PLAIN, within=1e-3),
    rate("completed_rps", "replies whose end was written in the window", lambda run: ended_in_time(run, "close")),
    rate("output_tokens_per_s", "tokens written in the window", tokens_in_time),
    rate("input_tokens_per_s", "prompts whose first token was written in the window", prompt_tokens_in_time),
    rate("mean_concurrency", "at least from read until the end was written, at most from due", concurrency),
    Case("cached_share", LOAD, "20 of 50 tokens", CACHED_TOKENS / PROMPT_TOKENS, cell=PLAIN),
    Case("attainment", LOAD, "all are good", 1, cell=PLAIN),
    Case("error_rate", LOAD, "none fails", 0, cell=PLAIN),
    Case("goodput_rps", LOAD, "all are good", RATE, cell=PLAIN, within=1e-3),
)
