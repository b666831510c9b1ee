"""A server on another machine, in real time, that tells of itself and of its machine on pages for Prometheus.

It is on this one, under an address that is no loopback address. In the middle of the window it begins to say other
things of its queue, its cache and its memory. Its counters move when a reply has ended, 180 ms after a request; the
window's ends are moments at which requests are due.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.known_answers.case import Case
from tests.known_answers.measured import Measured
from tests.known_answers.over_a_socket import RATE, SECONDS, SERVER, WARMUP_S
from tests.known_answers.running import REAL, measured
from tests.known_answers.server import TOKENS

LOAD = "pages"
HALF = 1 + RATE * WARMUP_S + RATE * SECONDS // 2  # the first was sent before the load
SWAPPED_PER_S = (256 + 512) * 4096
RUNNING, WAITING = (4, 2), (1, 5)


@contextmanager
def serving(log: Path) -> Iterator[str]:
    """The server's address."""
    options = ["0", "--log", str(log), "--pages", "--half", str(HALF)]
    with subprocess.Popen([sys.executable, "-P", str(SERVER), *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://0.0.0.0:{int(process.stdout.readline())}"
        finally:
            process.kill()


def run(folder: Path) -> Measured:
    """The run, and the server's log."""
    log = folder / "log.jsonl"
    with serving(log) as url:
        engine = {"engine": "http", "dialect": "openai-chat", "served_model": "m", "url": url}
        scenario: dict[str, Any] = {
            "engines": [engine | {"metrics_urls": [f"{url}/metrics", f"{url}/node"]}],
            "workload": {"prompt_tokens": 50, "output_tokens": TOKENS},
            "load": [
                {"kind": "sustained", "name": LOAD, "rate": RATE, "arrivals": "constant"}
                | {"warmup": f"{WARMUP_S}s", "duration": f"{SECONDS}s", "timeout": "30s"}
            ],
            "budget": {"requests": 1000},
        }
        found = measured(folder, scenario, REAL)
    found.log = [json.loads(line) for line in log.read_text().splitlines()]
    return found


def mean_of(first: float, then: float, name: str, run: Measured) -> tuple[float, float]:
    """A gauge that changed when a request was read; each reading stands for the time that it is nearest to, so that the
    change is seen up to half the time between the two readings around it too soon or too late.
    """
    start_ns, end_ns = run.window_ns(LOAD)
    samples = run.samples()
    read_ns = np.sort(samples[samples["name"] == name]["at_ns"].to_numpy(dtype=np.float64))
    asked = sorted(line["reply"]["read"][0] for line in run.log if "reply" in line)
    changed_ns = asked[HALF]
    gap_ns = read_ns[read_ns > changed_ns].min() - read_ns[read_ns <= changed_ns].max()
    mean = (first * (changed_ns - start_ns) + then * (end_ns - changed_ns)) / (end_ns - start_ns)
    off = abs(first - then) * (gap_ns / 2 + 1e8) / (end_ns - start_ns)
    return mean - off, mean + off


def put_back(run: Measured) -> tuple[float, float]:
    """Two of each reply that ended in the window, whose ends may be known as of a little sooner or later: the facts say
    by how much.
    """
    start_ns, end_ns = run.window_ns(LOAD)
    ends = run.facts(LOAD)["server"]["ends"]
    before_ns, after_ns = (1e6 * (abs(ends[end]["off_ms"]) + ends[end]["width_ms"]) for end in ("start", "end"))
    ended = np.array([line["reply"]["close"] for line in run.log if "reply" in line])
    surely = (ended[:, 0] >= start_ns + before_ns) & (ended[:, 1] < end_ns - after_ns)
    perhaps = (ended[:, 1] >= start_ns - before_ns) & (ended[:, 0] < end_ns + after_ns)
    return 2.0 * int(surely.sum()), 2.0 * int(perhaps.sum())


def swapped(run: Measured) -> tuple[float, float]:
    """Evenly so much a second; a reading may be of any moment of the time that it took."""
    start_ns, end_ns = run.window_ns(LOAD)
    samples = run.samples()
    off_s = 2 * float(samples[samples["name"] == "swap_in_bytes"]["width_ns"].max()) / 1e9
    seconds = (end_ns - start_ns) / 1e9
    return SWAPPED_PER_S * (seconds - off_s), SWAPPED_PER_S * (seconds + off_s)


CASES = (
    Case(
        "server_running_mean",
        LOAD,
        "3: half of the window 4, then 2, ± half the time between two readings",
        bounds=lambda run: mean_of(*RUNNING, "running_requests", run),
    ),
    Case(
        "server_waiting_mean",
        LOAD,
        "3: half of the window 1, then 5, ± half the time between two readings",
        bounds=lambda run: mean_of(*WAITING, "waiting_requests", run),
    ),
    Case("server_queue_ms_mean", LOAD, "0.12 s more for each request", 120),
    Case("kv_cache_peak_share", LOAD, "a quarter, then three", 0.75),
    Case("prefix_hit_share", LOAD, "40 of 100 more for each request", 0.4),
    Case(
        "preemptions",
        LOAD,
        f"{2 * RATE * SECONDS}: 2 more for each of {RATE * SECONDS} requests; others where ends are read late",
        bounds=put_back,
    ),
    Case("system_memory_peak_share", LOAD, "1 - 16 / 64, then 1 - 8 / 64", 1 - 8 / 64),
    Case("swapped_bytes", LOAD, "5 s · (256 + 512) · 4096 bytes, ± the time that a reading took", bounds=swapped),
)
