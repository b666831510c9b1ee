"""The one table of thresholds: each number that decides whether a reading is good, or what people are told to do.

`python -m harness.verdict.thresholds` writes it into docs/method.md, and the words for quality into docs/quality.md.
How a statistic is computed (bins, batches, levels of quantiles) is no judgement and stands with its estimator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from harness.units import format_bytes
from harness.verdict.reason import Level, Reason


@dataclass(frozen=True, slots=True)
class Threshold:
    """Bounds of a reading: beyond `warn` it is doubtful, beyond `invalid` it spoils the trial (infinite: never alone).

    Args:
        used: The modules that compare with it, the first under whose heading it is listed; without a package those of
            `harness.verdict`.
        decides: The code of the reason, or the name of the check of `harness doctor`.
        subject: What is read.
        unit: "share", "bytes", or the unit's sign ("ms"); "" for a count.
        condition: What else must be so, for the reader.
        below: Low readings are the bad ones.
    """

    used: str
    decides: str
    subject: str
    unit: str
    warn: float
    invalid: float = math.inf
    condition: str = ""
    below: bool = False

    def level(self, value: float) -> Level:
        """Return the level of a reading; NaN is unknown and no reason against it."""
        invalid, warn = (math.isfinite(bound) and self._beyond(value, bound) for bound in (self.invalid, self.warn))
        return Level.INVALID if invalid else Level.WARN if warn else Level.VALID

    def _beyond(self, value: float, bound: float) -> bool:
        return value < bound if self.below else value > bound

    def reasons(self, value: float, sentence: str, advice: str) -> Iterator[Reason]:
        """Yield the reason that a reading gives; none where it is good."""
        level = self.level(value)
        if level is not Level.VALID:
            yield Reason(self.decides, level, sentence, advice)


@dataclass(frozen=True, slots=True)
class Criterion:
    """A number on which a judgement depends beside its thresholds.

    used, unit: see `Threshold`.   subject: what the number is.   decides: what follows from it.
    """

    used: str
    decides: str
    subject: str
    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class Grade:
    """A word and what it takes: a mean divergence of at most `kl`, and at least `top1` agreement."""

    word: str
    kl: float
    top1: float


_BOTH = "both of these together; judged at p99 from 368 requests on, else at p95"
_BY_LOOP = "invalid only where arrivals were stamped by the loop and not by the kernel"
_MACHINE = "of the machine: what it did to the client shows in the readings of the client"

# fmt: off
LAG_MS = Threshold("client", "client_lag", "send lag (sent minus due)", "ms", 1.0, 5.0, _BOTH)
LAG_SHARE_OF_TTFT_P50 = Threshold(
    "client", "client_lag", "send lag as a share of the median TTFT", "share", 0.01, 0.02, _BOTH)
LATE_SHARE_OF_TAIL = Threshold(
    "client", "client_lag",
    "requests sent later than 5 ms and a tenth of the p99 of TTFT, as a share of the tail beyond that quantile",
    "share", 0.0, 0.5, "invalid from two requests on")
LATE_SHARE_OF_TTFT_P99 = Criterion(
    "client", "which requests were late", "lag as a share of the p99 of TTFT", "share", 0.10)
LEAST_LATE = Criterion("client", "whether late requests spoil a trial", "late requests, at least", "", 2)
JUDGED_QUANTILE = Criterion(
    "client", "at which quantile lateness is judged", "the lowest level, however few the requests", "share", 0.95)
PLAN_PART_S = Criterion("client", "what is later than planned", "parts of the plan", "s", 10)
MOVED_SHARE = Threshold(
    "client", "plan_not_kept", "requests of 10 s of the plan that were sent in a later 10 s", "share", 0.01, 0.05,
    "two requests or more, later than 5 ms and than 2 % of the median TTFT")
HEARTBEAT_P99_MS = Threshold(
    "client", "client_heartbeat", "lateness of the client's 10 ms tick, p99", "ms", 5.0, 20.0, _BY_LOOP)
CHUNK_LAG_P99_MS = Threshold(
    "client", "chunk_lag", "from a packet's arrival to its being read, p99", "ms", 5.0,
    condition="the kernel's stamps are not late by it")
CANARY_MS = Threshold(
    "client", "canary", "canary: recorded arrival minus the moment of sending in the event itself", "ms", 1.0, 5.0,
    "invalid only above 2 % of the median TTFT, too; judged at p99 from 368 events on, else at p95")
CANARY_P50_SHARE_OF_TPOT_P50 = Threshold(
    "client", "canary", "canary's median as a share of the median TPOT", "share", 0.1, 0.1, "above 1 ms only")
CLIENT_CPU = Threshold(
    "client", "client_cpu", "processor time of the client's loop, the worst whole second of a worker", "share", 0.70,
    0.85, "invalid only where the loop stamped the arrivals and its tick was late by more than 5 ms")
MERGED_READS = Threshold("client", "merged_reads", "chunks that came in a read with others", "share", 0.20)
EQUAL_GAPS = Threshold(
    "client", "equal_gaps", "gaps between chunks that are the same to the nanosecond in three replies", "share", 0.20)
THROTTLED = Threshold(
    "client, machine", "throttled", "periods in which the processor quota was used up (cgroup)", "", 0,
    condition=_MACHINE)
STEAL = Threshold(
    "client, checks", "steal", "processor time taken by the hypervisor", "share", 0.01, condition=_MACHINE)
OPEN_FILES = Threshold("client", "open_files", "open files, as a share of the limit", "share", 0.8)
PORTS = Threshold("client", "ports", "TCP sockets, as a share of the ephemeral ports", "share", 0.8)
WAITED_FOR_CONNECTION = Threshold(
    "client", "new_connections", "requests that waited for a new connection longer than 1 ms", "share", 0.01,
    condition="the wait is in ttft_ms, and not in the client's lag")
CONNECT_ERRORS = Threshold("client", "connect_errors", "connections that could not be opened", "", 0)
EXHAUSTED = Threshold(
    "client", "client_exhausted", "requests for which this machine had no port or no open file left", "", 0, 0)
WORKERS_LOST = Threshold("client", "worker_lost", "load processes that died", "", 0, 0)

ROWS_MISSING = Threshold(
    "validity", "rows_missing", "planned requests without exactly one record, or never sent", "", 0, 0)
ERRORS = Threshold(
    "validity", "errors", "measured requests that failed", "share", 0.001, 0.01,
    "a limit on `error_rate` judges instead")
NOTHING_SUCCEEDED = Threshold(
    "validity", "nothing_succeeded", "measured requests, where every one failed", "", 0, 0, "whatever limit there is")
CUT_SHORT = Threshold("validity", "cut_short", "replies that ended by `length` below the tokens asked for", "", 0)
OTHERS_ON_GPUS = Threshold(
    "validity, checks", "others_on_gpus", "processes on the GPUs that are not of this run", "", 0, condition=_MACHINE)

QUEUED_IN_ENGINE = Threshold(
    "engine", "engine_queue", "requests in flight on average, for each that the engine generates at a time", "", 1.05,
    condition="in closed loops with more users than that")

SWAPPED_BYTES_PER_S = Threshold(
    "machine", "swapping", "memory that the machine under test moved to or from its swap in a second", "bytes",
    1 << 20, condition="in the window")
MAJOR_FAULTS_PER_S = Threshold(
    "machine", "swapping", "pages a second for which the engine waited for a disk", "", 10.0,
    condition="in the window")
SAMPLER_CPU = Threshold(
    "machine", "sampler_cost", "processor time of the readings of the machine, of one core", "share", 0.005,
    condition="from 100 readings on; at 10 readings a second, in proportion where more are asked for")
SAMPLER_CPU_WITH_GPUS = Threshold("machine", "sampler_cost", "the same where GPUs are read", "share", 0.01)
LEAST_READINGS = Criterion(
    "machine", "whether the cost of readings is judged", "readings in the window, at least", "", 100)
USUAL_INTERVAL_S = Criterion("machine", "what readings may cost", "from one reading to the next", "s", 0.1)
GPU_THROTTLED = Threshold(
    "machine", "gpu_throttled", "time in which heat or a fault of power slowed a GPU down", "share", 0.01,
    condition="above 5 % with the advice not to compare; a software power cap is told and not judged")
THROTTLED_BEYOND_COMPARISON = Criterion(
    "machine", "the advice not to compare", "time in which a GPU was slowed down, above", "share", 0.05)
ENERGY_COUNTER = Threshold(
    "machine", "energy_counter", "energy counters that went back or stood still", "", 0,
    condition="there is no energy then")
LATE_READINGS = Criterion(
    "cli.report", "whether they are shown as doubtful", "readings of the machine that came late, above", "share", 0.05)
COLD_SHARE = Criterion(
    "run.engine", "whether a start is cold", "weight files that left the file cache, at least", "share", 0.95)

TOKEN_DISAGREEMENT = Threshold(
    "tokens", "token_counts", "tokens counted by chunk against the engine's total, median", "share", 0.01, 0.05)
TOKENS_BY_TEXT = Threshold(
    "tokens", "tokens_by_text",
    "tokens of a few replies' texts, by the model's tokenizer, against the stated total, median", "share", 0.01,
    condition="from 10 replies on; texts need not have the tokens that were generated")
LEAST_RECOUNTED = Criterion("tokens", "whether texts are judged", "replies counted by their text, at least", "", 10)
LENGTH_FIDELITY = Threshold(
    "tokens", "length_fidelity", "replies as long as asked, of those whose length the plan fixed", "share", 0.99,
    below=True)
PROMPT_TOKENS = Threshold(
    "tokens", "prompt_tokens", "tokens of the prompts as the server counts them against the plan, median", "share",
    0.1, condition="beyond 40 tokens more, a chat template's, or 1 less; above 50 % where the plan estimated them")
PROMPT_TOKENS_ESTIMATED = Criterion(
    "tokens", "whether the server's count of prompts is doubted", "off an estimated length, above", "share", 0.5)
CACHED_UNPLANNED = Threshold(
    "tokens", "cached_prompts", "prompt tokens that the server took from its cache where no two prompts begin alike",
    "share", 0.02, condition="beyond 40 tokens a request, a chat template's")
PROMPTS_AGAIN = Threshold(
    "tokens", "prompts_again", "requests whose prompt, from a file, the engine had been asked since it started",
    "share", 0.0, condition="not where the server says that it took no more than 2 % from its cache")
BOOKS = Threshold(
    "tokens", "books", "tokens and requests of the trial as the server counted them against the client's", "share",
    0.005, condition="where the server's page was read before the first and after the last request")
BOOKS_IN_FLIGHT = Threshold(
    "tokens", "books", "requests in flight: server's page against client's records", "share", 0.1,
    condition="at 20 or more readings of the page in the window; beyond what 0.1 s before or after makes of it")

DRIFT = Threshold(
    "steady", "not_steady", "drift of TTFT, TPOT or the requests in flight over the window", "share", 0.02,
    condition="p < 0.01, all together; not for loads that change by plan")
DRIFT_P_VALUE = Criterion(
    "steady", "what is no drift but chance", "probability, of all series together, below", "", 0.01)
WARM_UP = Threshold(
    "steady", "warmup_too_short", "part of the window that still warmed up (MSER-5)", "share", 0.05,
    condition="not for loads that change by plan")
CLEAR_DEVIATIONS = Criterion(
    "steady", "what is no warm-up but chance", "standard errors between what is cut and the rest, above", "", 4.0)
CLEAR_SHARE = Criterion(
    "steady", "what is no warm-up but chance", "difference between what is cut and the rest, above", "share", 0.02)
STILL_DEVIATIONS = Criterion(
    "steady", "what is no warm-up but chance", "standard errors, of the second half of what is cut, above", "", 2.0)
DECAYING = Criterion(
    "steady", "what is no warm-up but chance", "the first third's share of the worst third's difference", "share", 0.9)

START_SPREAD = Threshold(
    "samples", "hysteresis", "standard deviation between starts of a cell, over what the noise within one explains",
    "", 2, condition="three repetitions or more, above 2 % of the value")
LEAST_START_SPREAD = Criterion(
    "samples", "whether starts differ enough to matter", "their standard deviation, above", "share", 0.02)
DEPENDENT = Criterion(
    "samples", "the advice to free the machine", "requests of one user are worth less than", "share", 0.5)

CALIBRATED_TTFT_P99_MS = Threshold(
    "cli.examination", "calibration", "calibration: error of the first token's arrival, p99", "ms", 2.0,
    condition="beyond it a load is not trusted here")
CALIBRATED_ITL_P99_MS = Threshold(
    "cli.examination", "calibration", "calibration: error of the time between two tokens, p99", "ms", 0.5)
CALIBRATED_LAG_P99_MS = Threshold("cli.examination", "calibration", "calibration: send lag, p99", "ms", 1.0)
CALIBRATED_SLOWDOWN = Threshold(
    "cli.examination", "calibration", "calibration: the server's own gaps over those asked for", "", 1.1,
    condition="it could not send more on these cores")

CORES = Threshold("checks", "processor", "processor cores, by affinity or quota", "", 2, below=True)
BUSY = Threshold(
    "checks, calibration, cli.examination", "other load", "processors busy with other work", "share", 0.20,
    condition="within half a second; of a calibration, just before it")
CLOCK_COST_NS = Threshold("checks", "clock", "reading the clock", "ns", 1_000)
CLOCK_RESOLUTION_NS = Threshold("checks", "clock", "resolution of the clock", "ns", 1_000, 1_000)
FILES = Threshold("checks", "open files", "files that may be open", "", 4096, 128, below=True)
FREE_PORTS = Threshold("checks", "ports", "ephemeral ports", "", 10_000, below=True)
USED_PORTS = Threshold("checks", "ports", "TCP sockets before a run, as a share of the ephemeral ports", "share", 0.5)
FREE_MEMORY = Threshold("checks", "memory", "memory available", "bytes", 2 << 30, below=True)
USED_SWAP = Threshold("checks", "swap", "swap in use", "bytes", 256 << 20)
FREE_DISK = Threshold("checks", "disk", "free disk where runs are stored", "bytes", 5 << 30, 256 << 20, below=True)

SAME_MEMORY = Criterion(
    "decision, memory_need, recommendation", "which rows are alike in memory",
    "difference of two peaks, readings without an interval, at most", "share", 0.02)
NOISE_FLOORS = Criterion(
    "quality", "what is indistinguishable from the reference", "times the reference's divergence from itself", "", 3.0)
GRADES = (Grade("near-lossless", 0.001, 0.985), Grade("good", 0.01, 0.95), Grade("degraded", 0.05, 0.0))
WORST_GRADE = "poor"
# fmt: on
TABLE = tuple(one for one in list(globals().values()) if isinstance(one, Threshold | Criterion))

HEADINGS = {
    "client": "The client",
    "validity": "The trial",
    "engine": "The engine",
    "machine": "The machine",
    "tokens": "Tokens and prompts",
    "steady": "Steadiness",
    "samples": "Starts",
    "cli.examination": "Calibration",
    "checks": "`harness doctor`, of the machine",
}


def as_markdown() -> str:
    """Return the tables for docs/method.md: thresholds by what they are of, then the criteria."""
    lines: list[str] = []
    thresholds = [one for one in TABLE if isinstance(one, Threshold)]
    for used, group in groupby(thresholds, key=lambda one: one.used.split(", ")[0]):
        lines += ["", f"**{HEADINGS[used]}** (`{path_of(used)}`)", ""]
        lines += ["| reading | warn | invalid | decides | condition |", "|---|--:|--:|---|---|"]
        lines += map(_row, group)
    lines += ["", "**Beside them**", "", "| number | | decides | where |", "|---|--:|---|---|"]
    for one in TABLE:
        if isinstance(one, Criterion):
            where = ", ".join(f"`{path_of(used)}`" for used in one.used.split(", "))
            lines.append(f"| {one.subject} | {_shown(one.value, one.unit)} | {one.decides} | {where} |")
    return "\n".join(lines[1:])


def _row(one: Threshold) -> str:
    warn, invalid = (f"{'<' if one.below else '>'} {_shown(bound, one.unit)}" for bound in (one.warn, one.invalid))
    warn = "—" if warn == invalid else warn
    invalid = invalid if math.isfinite(one.invalid) else "never alone"
    return f"| {one.subject} | {warn} | {invalid} | {one.decides} | {one.condition} |"


def _shown(value: float, unit: str) -> str:
    if unit == "share":
        return f"{value * 100:g} %"
    return format_bytes(value) if unit == "bytes" else f"{value:,g} {unit}".rstrip()


def path_of(used: str) -> str:
    """Return the file of a module that is named as in `Threshold.used`."""
    return f"harness/{used.replace('.', '/') if '.' in used else f'verdict/{used}'}.py"


def grades_as_markdown() -> str:
    """Return the table for docs/quality.md."""
    lines = ["| word | mean KL, nats | top-1 agreement |", "|---|--:|--:|"]
    for grade in GRADES:
        share = f"≥ {grade.top1 * 100:g} %" if grade.top1 else "any"
        lines.append(f"| {grade.word} | ≤ {grade.kl:g} | {share} |")
    return "\n".join([*lines, f"| {WORST_GRADE} | above | below |"])


def inserted(page: str, name: str, table: str) -> str:
    """Return a page with a table between the marks of that name. Raises ValueError if it has no marks."""
    begin, end = (f"<!-- {name}: {mark} -->" for mark in ("begin", "end"))
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the page has no {begin} ... {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"


PAGES = {"method.md": ("thresholds", as_markdown), "quality.md": ("grades", grades_as_markdown)}


if __name__ == "__main__":
    for FILE, (NAME, MADE) in PAGES.items():
        PAGE = Path(__file__).resolve().parents[2] / "docs" / FILE
        PAGE.write_text(inserted(PAGE.read_text(encoding="utf-8"), NAME, MADE()), encoding="utf-8")
