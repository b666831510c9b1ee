"""Memory, processor time and energy of a server in real time, in the run of `over_a_socket`.

The server of one cell holds nothing, that of the other known bytes; what they are beside those is alike. The fake
driver says the same in all of the run, of three GPUs, of which two are the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.known_answers import over_a_socket
from tests.known_answers.case import Case
from tests.known_answers.measured import Measured
from tests.known_answers.over_a_socket import (
    BUSY_PERCENT,
    FAULTS,
    GPUS,
    GROWN_MIB,
    HOLDING,
    LOAD,
    LOADING_MIB,
    PLAIN,
    PRIVATE_MIB,
    RATE,
    SECONDS,
    SHARED_MIB,
    TOTAL_GIB,
    USED_GIB,
    WATTS,
    tokens_in_time,
)
from tests.known_answers.server import TOKENS

MIB = 1 << 20
ALLOCATOR_MIB = 2  # by so much two processes that do the same may differ
TICK_S = 0.01  # the kernel's, of processor time
LOG_NS = 1e8  # longer than from one line of the server's log to the next
WATTS_OF_ALL = WATTS * len(GPUS)
REQUESTS = RATE * SECONDS
J_PER_REQUEST = WATTS_OF_ALL // RATE
COUNTER_SHARE = 0.01  # of 5 s: the counter moves every 5 ms, and is read within 45 ms of each end of the window
run = over_a_socket.run


def more_than_plain(metric: str, mib: float) -> Callable[[Measured], tuple[float, float]]:
    """By how much the server that holds memory has more than the plain one."""

    def bounds(run: Measured) -> tuple[float, float]:
        plain = run.value(metric, LOAD, PLAIN)
        return plain + (mib - ALLOCATOR_MIB) * MIB, plain + (mib + ALLOCATOR_MIB) * MIB

    return bounds


def beats(run: Measured) -> list[dict[str, Any]]:
    """What the server that holds memory said of its processor time and faults."""
    return [line for line in run.log if line["cell"] == HOLDING and "beat" in line]


def used(run: Measured) -> tuple[float, float]:
    """Cores by its own clock over the window. Readings are in steps of a tick, and are taken to be even between two of
    them, as the log is: by what it used between those around an end of the window, that end may be off.
    """
    window_ns = run.window_ns(LOAD, HOLDING)
    at_ns = np.array([line["beat"] for line in beats(run)], dtype=np.float64)
    cpu_s = np.array([line["cpu_s"] for line in beats(run)])
    samples = run.samples(HOLDING)
    own = samples[(samples["source"] == "engine") & (samples["name"] == "cpu_share")]
    read_ns = np.sort(own["at_ns"].to_numpy(dtype=np.float64))
    off_s = 2 * TICK_S
    for moment_ns in window_ns:
        before, after = read_ns[read_ns <= moment_ns].max(), read_ns[read_ns >= moment_ns].min()
        around = np.interp([before - LOG_NS, after + LOG_NS], at_ns, cpu_s)
        off_s += float(np.diff(around)[0])
    spent_s = float(np.diff(np.interp(window_ns, at_ns, cpu_s))[0])
    seconds = (window_ns[1] - window_ns[0]) / 1e9
    return (spent_s - off_s) / seconds, (spent_s + off_s) / seconds


def waited(run: Measured) -> tuple[float, float]:
    """At least those of the pages that no memory held; at most all that it counted in the window and around it."""
    (told,) = [line["reply"]["faulted"][0] for line in run.log if "faulted" in line.get("reply", {})]
    start_ns, end_ns = run.window_ns(LOAD, HOLDING)
    before = [line["major_faults"] for line in beats(run) if line["beat"] <= start_ns - 10**9]
    after = [line["major_faults"] for line in beats(run) if line["beat"] >= end_ns]
    assert told <= FAULTS
    return told, max(told, after[0] - before[-1] if before else after[0])


def joules(run: Measured) -> tuple[float, float]:
    """By the seconds of the window."""
    start_ns, end_ns = run.window_ns(LOAD, PLAIN)
    truth = WATTS_OF_ALL * (end_ns - start_ns) / 1e9
    return truth * (1 - COUNTER_SHARE), truth * (1 + COUNTER_SHARE)


def joules_per_token(run: Measured) -> tuple[float, float]:
    """Of those that were written in the window."""
    start_ns, end_ns = run.window_ns(LOAD, PLAIN)
    least, most = (each * (end_ns - start_ns) / 1e9 for each in tokens_in_time(run))
    return joules(run)[0] / most, joules(run)[1] / least


def joules_per_request(run: Measured) -> tuple[float, float]:
    """All of them are good."""
    least, most = joules(run)
    return least / REQUESTS, most / REQUESTS


def energy(metric: str, follows: str, bounds: Callable[[Measured], tuple[float, float]]) -> Case:
    """Of the plain server."""
    return Case(metric, LOAD, f"{follows}, ± 1 %", cell=PLAIN, bounds=bounds)


def while_loading(run: Measured) -> tuple[float, float]:
    """What it takes, and at most as much beside it as all of a server that holds nothing."""
    return LOADING_MIB * MIB, LOADING_MIB * MIB + run.value("rss_peak_bytes", LOAD, PLAIN)


LOADED_MIB = PRIVATE_MIB + 2 * SHARED_MIB
CASES = (
    Case(
        "rss_after_load_bytes",
        LOAD,
        f"{PRIVATE_MIB} MiB, and {SHARED_MIB} MiB in two processes, more than one that holds nothing has, ± 2 MiB",
        cell=HOLDING,
        bounds=more_than_plain("rss_after_load_bytes", LOADED_MIB),
    ),
    Case(
        "rss_peak_bytes",
        LOAD,
        f"{PRIVATE_MIB} + 2 · {SHARED_MIB} + {GROWN_MIB} MiB more than one that holds nothing has, ± 2 MiB",
        cell=HOLDING,
        bounds=more_than_plain("rss_peak_bytes", LOADED_MIB + GROWN_MIB),
    ),
    Case(
        "load_peak_bytes",
        LOAD,
        f"{LOADING_MIB} MiB, and at most all of one that holds nothing",
        cell=HOLDING,
        bounds=while_loading,
    ),
    Case("load_gpu_peak_bytes", LOAD, f"2 · {USED_GIB} GiB", len(GPUS) * USED_GIB * 2**30, cell=PLAIN),
    Case(
        "engine_cpu_cores",
        LOAD,
        "by its own clock, ± what it uses between two readings at each end",
        cell=HOLDING,
        bounds=used,
    ),
    Case(
        "engine_major_faults",
        LOAD,
        f"{FAULTS} pages of a file that memory was made to forget",
        cell=HOLDING,
        bounds=waited,
    ),
    Case("gpu_memory_peak_bytes", LOAD, f"2 · {USED_GIB} GiB", len(GPUS) * USED_GIB * 2**30, cell=PLAIN),
    Case("gpu_memory_peak_share", LOAD, f"{USED_GIB} / {TOTAL_GIB}", USED_GIB / TOTAL_GIB, cell=PLAIN),
    Case("gpu_power_w", LOAD, f"2 · {WATTS} W", WATTS_OF_ALL, cell=PLAIN),
    Case("gpu_utilisation_share", LOAD, f"{BUSY_PERCENT} % of both", BUSY_PERCENT / 100, cell=PLAIN),
    energy("energy_j", f"{WATTS_OF_ALL * SECONDS}: 2 · {WATTS} W · {SECONDS} s", joules),
    energy(
        "energy_j_per_output_token", f"{J_PER_REQUEST // TOKENS}: energy / ({REQUESTS} · {TOKENS})", joules_per_token
    ),
    energy("energy_j_per_good_request", f"{J_PER_REQUEST}: energy / {REQUESTS}", joules_per_request),
)
