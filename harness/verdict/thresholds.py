"""From where on a reading makes a trial doubtful, and from where on it spoils it: the one table of them.

`python -m harness.verdict.thresholds` writes it into docs/method.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from harness.verdict.reason import Level


@dataclass(frozen=True, slots=True)
class Threshold:
    """Readings above `warn` are doubtful, above `invalid` they spoil the trial (infinite: never alone).

    subject: what is read.   unit: "ms", "share" or "count".   condition: what else must be so, for the reader.
    """

    subject: str
    unit: str
    warn: float
    invalid: float = math.inf
    condition: str = ""

    def level(self, value: float) -> Level:
        """The level of a reading; NaN is unknown and no reason against it."""
        return Level.INVALID if value > self.invalid else Level.WARN if value > self.warn else Level.VALID


_BOTH = "both of these together; judged at p99 from 368 requests on, else at p95"
_BY_LOOP = "invalid only where arrivals were stamped by the loop and not by the kernel"
_MACHINE = "of the machine: what it did to the client shows in the readings above"

LAG_MS = Threshold("send lag (sent minus due)", "ms", 1.0, 5.0, _BOTH)
LAG_SHARE_OF_TTFT_P50 = Threshold("send lag as a share of the median TTFT", "share", 0.01, 0.02, _BOTH)
LATE_SHARE_OF_TAIL = Threshold(
    "requests sent later than 5 ms and a tenth of the p99 of TTFT, as a share of the tail beyond that quantile",
    "share", 0.0, 0.5, "invalid from two requests on",
)  # fmt: skip
LATE_SHARE_OF_TTFT_P99 = 0.10
MOVED_SHARE = Threshold(
    "requests of 10 s of the plan that were sent in a later 10 s", "share", 0.01, 0.05,
    "two requests or more, later than 5 ms and than 2 % of the median TTFT",
)  # fmt: skip
QUEUED_IN_ENGINE = Threshold(
    "requests in flight on average, for each that the engine generates at a time", "count", 1.05,
    condition="in closed loops with more users than that",
)  # fmt: skip
HEARTBEAT_P99_MS = Threshold("lateness of the client's 10 ms tick, p99", "ms", 5.0, 20.0, _BY_LOOP)
CHUNK_LAG_P99_MS = Threshold(
    "from a packet's arrival to its being read, p99", "ms", 5.0, condition="the kernel's stamps are not late by it"
)
CANARY_MS = Threshold(
    "canary: recorded arrival minus the moment of sending in the event itself", "ms", 1.0, 5.0,
    "invalid only above 2 % of the median TTFT, too; judged at p99 from 368 events on, else at p95",
)  # fmt: skip
CANARY_P50_SHARE_OF_TPOT_P50 = Threshold(
    "canary's median as a share of the median TPOT", "share", 0.1, 0.1, "above 1 ms only"
)
CLIENT_CPU = Threshold(
    "processor time of the client's loop, the worst whole second of a worker", "share", 0.70, 0.85,
    "invalid only where the loop stamped the arrivals and its tick was late by more than 5 ms",
)  # fmt: skip
MERGED_READS = Threshold("chunks that came in a read with others", "share", 0.20)
EQUAL_GAPS = Threshold("gaps between chunks that are the same to the nanosecond in three replies", "share", 0.20)
THROTTLED = Threshold("periods in which the processor quota was used up (cgroup)", "count", 0, condition=_MACHINE)
SWAPPED_MIB_PER_S = Threshold(
    "MiB a second that the machine under test moved to or from its swap", "count", 1.0, condition="in the window"
)
MAJOR_FAULTS_PER_S = Threshold(
    "pages a second for which the engine waited for a disk", "count", 10.0, condition="in the window"
)
SAMPLER_CPU = Threshold(
    "processor time of the readings of the machine, of one core", "share", 0.005,
    condition="from 100 readings on; at 10 readings a second, in proportion where more are asked for",
)  # fmt: skip
SAMPLER_CPU_WITH_GPUS = Threshold("the same where GPUs are read", "share", 0.01)
STEAL = Threshold("processor time taken by the hypervisor", "share", 0.01, condition=_MACHINE)
OTHERS_ON_GPUS = Threshold("processes on the GPUs that are not of this run", "count", 0, condition=_MACHINE)
GPU_THROTTLED = Threshold(
    "time in which heat or a fault of power slowed a GPU down", "share", 0.01,
    condition="above 5 % with the advice not to compare; a software power cap is told and not judged",
)  # fmt: skip
THROTTLED_BEYOND_COMPARISON = 0.05
ENERGY_COUNTER = Threshold(
    "energy counters that went back or stood still", "count", 0, condition="there is no energy then"
)
OPEN_FILES = Threshold("open files, as a share of the limit", "share", 0.8)
PORTS = Threshold("TCP sockets, as a share of the ephemeral ports", "share", 0.8)
WAITED_FOR_CONNECTION = Threshold(
    "requests that waited for a new connection longer than 1 ms",
    "share",
    0.01,
    condition="the wait is in ttft_ms, and not in the client's lag",
)
CONNECT_ERRORS = Threshold("connections that could not be opened", "count", 0)
EXHAUSTED = Threshold("requests for which this machine had no port or no open file left", "count", 0, 0)
WORKERS_LOST = Threshold("load processes that died", "count", 0, 0)
ROWS_MISSING = Threshold("planned requests without exactly one record, or never sent", "count", 0, 0)
ERRORS = Threshold("measured requests that failed", "share", 0.001, 0.01, "a limit on `error_rate` judges instead")
NOTHING_SUCCEEDED = Threshold("every measured request failed", "count", 0, 0, "whatever limit there is")
TOKEN_DISAGREEMENT = Threshold("tokens counted by chunk against the engine's total, median", "share", 0.01, 0.05)
TOKENS_BY_TEXT = Threshold(
    "tokens of a few replies' texts, by the model's tokenizer, against the stated total, median", "share", 0.01,
    condition="from 10 replies on; texts need not have the tokens that were generated",
)  # fmt: skip
PROMPT_TOKENS = Threshold(
    "tokens of the prompts as the server counts them against the plan, median", "share", 0.1,
    condition="beyond 40 tokens more, a chat template's, or 1 less; above 50 % where the plan estimated them",
)  # fmt: skip
PROMPT_TOKENS_ESTIMATED = 0.5
CACHED_UNPLANNED = Threshold(
    "prompt tokens that the server took from its cache where no two prompts begin alike", "share", 0.02,
    condition="beyond 40 tokens a request, a chat template's",
)  # fmt: skip
PROMPTS_AGAIN = Threshold(
    "requests whose prompt, from a file, the engine had been asked since it started", "share", 0.0,
    condition="not where the server says that it took no more than 2 % from its cache",
)  # fmt: skip
BOOKS = Threshold(
    "tokens and requests of the trial as the server counted them against the client's", "share", 0.005,
    condition="where the server's page was read before the first and after the last request",
)  # fmt: skip
BOOKS_IN_FLIGHT = Threshold(
    "requests in flight: server's page against client's records", "share", 0.1,
    condition="at 20 or more readings of the page in the window; beyond what 0.1 s before or after makes of it",
)  # fmt: skip
CUT_SHORT = Threshold("replies that ended by `length` below the tokens asked for", "count", 0)
CALIBRATED_TTFT_P99_MS = Threshold(
    "calibration: error of the first token's arrival, p99", "ms", 2.0, condition="beyond it a load is not trusted here"
)
CALIBRATED_ITL_P99_MS = Threshold("calibration: error of the time between two tokens, p99", "ms", 0.5)
CALIBRATED_LAG_P99_MS = Threshold("calibration: send lag, p99", "ms", 1.0)
DRIFT = Threshold(
    "drift of TTFT, TPOT or the requests in flight over the window", "share", 0.02,
    condition="p < 0.01, all together; not for loads that change by plan",
)  # fmt: skip
START_SPREAD = Threshold(
    "standard deviation between starts of a cell, over what the noise within one explains", "count", 2,
    condition="three repetitions or more, above 2 % of the value",
)  # fmt: skip
WARM_UP = Threshold(
    "part of the window that still warmed up (MSER-5)", "share", 0.05, condition="not for loads that change by plan"
)
TABLE = (
    LAG_MS, LAG_SHARE_OF_TTFT_P50, LATE_SHARE_OF_TAIL, MOVED_SHARE, HEARTBEAT_P99_MS, CHUNK_LAG_P99_MS, CANARY_MS,
    CANARY_P50_SHARE_OF_TPOT_P50, CLIENT_CPU, MERGED_READS, EQUAL_GAPS, THROTTLED, SWAPPED_MIB_PER_S,
    MAJOR_FAULTS_PER_S, SAMPLER_CPU, SAMPLER_CPU_WITH_GPUS, STEAL, OTHERS_ON_GPUS, GPU_THROTTLED, ENERGY_COUNTER,
    OPEN_FILES, PORTS, WAITED_FOR_CONNECTION, CONNECT_ERRORS, EXHAUSTED, WORKERS_LOST, ROWS_MISSING, ERRORS,
    NOTHING_SUCCEEDED, TOKEN_DISAGREEMENT, TOKENS_BY_TEXT, PROMPT_TOKENS, CACHED_UNPLANNED,
    PROMPTS_AGAIN, BOOKS, BOOKS_IN_FLIGHT, CUT_SHORT, QUEUED_IN_ENGINE, DRIFT,
    WARM_UP, START_SPREAD, CALIBRATED_TTFT_P99_MS, CALIBRATED_ITL_P99_MS, CALIBRATED_LAG_P99_MS,
)  # fmt: skip
BEGIN, END = "<!-- thresholds: begin -->", "<!-- thresholds: end -->"


def as_markdown() -> str:
    """The table for docs/method.md, between its marks."""
    lines = ["| reading | warn above | invalid above | condition |", "|---|--:|--:|---|"]
    for one in TABLE:
        warn = _bound(one.warn, one.unit) if one.warn < one.invalid else "—"
        invalid = "never alone" if math.isinf(one.invalid) else _bound(one.invalid, one.unit)
        lines.append(f"| {one.subject} | {warn} | {invalid} | {one.condition} |")
    return "\n".join([BEGIN, *lines, END])


def _bound(value: float, unit: str) -> str:
    return f"{value * 100:g} %" if unit == "share" else f"{value:g} ms" if unit == "ms" else f"{value:g}"


def inserted(page: str) -> str:
    """A page with the table as it is now between its marks. Raises ValueError if it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return before + as_markdown() + after


if __name__ == "__main__":
    PAGE = Path(__file__).resolve().parents[2] / "docs" / "method.md"
    PAGE.write_text(inserted(PAGE.read_text()))
