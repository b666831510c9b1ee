"""The one table of thresholds: each number that decides whether a reading is good, or what people are told to do.

`python -m harness.verdict.thresholds` writes it into docs/thresholds.md, and the words for quality into quality.md.
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

    def reasons(
        self, value: float, sentence: str, advice: str, metrics: tuple[str, ...] = (), *, note: bool = False
    ) -> Iterator[Reason]:
        """Yield the reason that a reading gives; none where it is good. `note` makes it one that changes no verdict."""
        level = self.level(value)
        if level is not Level.VALID:
            yield Reason(
                self.decides, Level.VALID if note else level, sentence, advice, metrics, size=self.times(value)
            )

    def times(self, value: float) -> float:
        """Return a reading as a multiple of the bound that warns; of one that must not be low, how far it is below."""
        if self.below:
            return self.warn / value if value > 0 else math.inf
        bound = self.warn if math.isfinite(self.warn) else self.invalid
        return value / bound if bound > 0 else math.inf


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


_MACHINE = "of the machine; named as a cause where the load generator changed a number"

# fmt: off
TOLERANCE = Criterion(
    "tolerance", "whether a doubt is raised", "a shown number may be off by, above (`tolerance`)", "share", 0.05)
TAIL_FACTOR = Criterion(
    "tolerance", "whether a doubt is raised", "at p99 and beyond, and of the maximum: times that", "", 2.0)
TAIL = Criterion("tolerance", "which quantiles are p99 and beyond", "level, at least", "share", 0.99)
RATE_FACTOR = Criterion("tolerance", "whether a doubt is raised", "of rates: times that", "", 0.6)
LEAST_FOR_P99 = Criterion("tolerance", "whether p99 is judged", "requests, at least", "", 100)
FLOOR_MS = Criterion("tolerance, stream", "whether a doubt is raised", "of times to an event: at least", "ms", 1.0)

ROWS_MISSING = Threshold(
    "load", "load_missing", "planned requests without exactly one record, or never sent", "share", 0.0, 0.01)
EXHAUSTED = Threshold(
    "load", "load_missing", "requests for which this machine had no port or no open file left", "share", 0.0, 0.01)
ERRORS = Threshold(
    "load", "errors", "measured requests that failed, or turns not sent after a failed one", "share", 0.01, 0.5,
    "a limit on errors judges instead")

MEDIAN_LAG = Threshold(
    "client", "client_late", "median send lag as a share of the median TTFT from sent", "share", math.inf, 0.25,
    "open loops, above 5 ms; warns by its effect on a number")
LAG_MS = Criterion("client", "whether the median send lag counts", "at least", "ms", 5.0)
PLAN_PART_S = Criterion("client", "what is later than planned", "parts of the plan", "s", 10)
MOVED_SHARE = Threshold(
    "client", "client_late", "requests of 10 s of the plan that were sent in a later 10 s", "share", math.inf, 0.25,
    "two requests or more")
LEAST_MOVED = Criterion("client", "whether a part of the plan was not kept", "late requests, at least", "", 2)
CLIENT_SLOW = Threshold(
    "client", "client_slow", "turnaround of the load generator as a share of a closed loop's cycle", "share", 0.03,
    0.25)
CANARY = Threshold(
    "client", "arrivals", "median lateness of the self-check stream as a share of the median TTFT", "share", math.inf,
    0.25, "warns by its effect on a number")
MAIN_PART = Criterion(
    "client", "whether sending or reading late is named", "sending's part of an effect, at least", "share", 0.5)
CLIENT_CPU = Threshold(
    "client", "cause", "processor time of the load generator's loop in its busiest second", "share", 0.70)
BUSY_MACHINE = Threshold("client", "cause", "processors in use by all processes in the window", "share", 0.85)
THROTTLED_MS = Threshold("client", "cause", "time without processor quota (cgroup)", "ms", 0.0)
STEAL = Threshold(
    "client, checks", "steal", "processor time taken by the hypervisor", "share", 0.01, condition=_MACHINE)
WAITED_FOR_CONNECTION = Threshold(
    "client", "cause", "requests that waited for a new connection longer than 1 ms", "share", 0.01)
CONNECTION_MS = Criterion("client", "what is a wait for a connection", "longer than", "ms", 1.0)
OPEN_FILES = Threshold("client", "open_files", "open files, as a share of the limit", "share", 0.8, condition="a note")
PORTS = Threshold(
    "client", "ports", "TCP sockets, as a share of the ephemeral ports", "share", 0.8, condition="a note")

SEARCH_LATE = Threshold(
    "search", "search_late", "p99 of the send lag in a search, as a share of the SLO's TTFT", "share", 0.1)

NOT_STREAMED = Threshold(
    "stream", "not_streamed", "time from first to last token as a share of the end-to-end time, median", "share", 0.05,
    below=True, condition="replies of 8 tokens or more that take 100 ms or more; 1 ms, if all tokens came at once")
IN_ONE_READ = Criterion(
    "stream", "whether replies came in one piece", "chunks in the read of the first, median, at least", "share", 0.5)
LEAST_STREAMED_TOKENS = Criterion("stream", "which replies show whether they are streamed", "tokens, at least", "", 8)
LEAST_STREAMED_MS = Criterion("stream", "whether streaming is judged", "median end-to-end time, at least", "ms", 100)
FASTEST_TOKEN_MS = Criterion(
    "stream", "whether replies came in one piece", "median time per token, at most", "ms", 0.1)
BUNDLED = Threshold(
    "stream", "bundled", "chunks that came in a read with others", "share", 0.2, condition="a note on gaps")
STALL_S = Criterion("stream", "what is a stall", "no token of any reply for, at least", "s", 0.5)
STALL_TIMES = Criterion("stream", "what is a stall", "times the p99.9 of times without a token, at least", "", 10.0)
STALL_REPLIES = Criterion("stream", "what is a stall", "replies that waited for half of it or more, at least", "", 2)
OWN_PART = Criterion("stream", "whether the load generator stalled", "its own delay, of the stall", "share", 0.3)
LEAST_FOR_STALL = Criterion("stream", "whether stalls are judged", "replies, at least", "", 50)

QUEUED_IN_ENGINE = Threshold(
    "engine", "engine_queue", "requests in flight on average, for each that the engine generates at a time", "", 1.05,
    condition="a note; in closed loops with more users than that")

SWAPPED_BYTES_PER_S = Threshold(
    "machine", "machine", "memory that the machine under test moved to or from its swap in a second", "bytes",
    1 << 20, condition="in the window")
MAJOR_FAULTS_PER_S = Threshold(
    "machine", "machine", "pages a second for which the engine waited for a disk", "", 10.0,
    condition="in the window")
THROTTLED = Threshold(
    "machine", "machine", "time in which the engine's processor quota was used up", "share", 0.02,
    condition="of the window")
GPU_THROTTLED = Threshold(
    "machine", "machine", "time in which heat or a fault of power slowed a GPU down", "share", 0.02,
    condition="a software power cap is reported and not judged")
OTHERS_ON_GPUS = Threshold(
    "machine, checks", "machine", "processes on the GPUs that are not of this run", "", 0)
SAMPLER_CPU = Threshold(
    "machine", "sampler_cost", "processor time of the readings of the machine, of one core", "share", 0.005,
    condition="a note, from 100 readings on; at 10 readings a second, in proportion where more are asked for")
SAMPLER_CPU_WITH_GPUS = Threshold("machine", "sampler_cost", "the same where GPUs are read", "share", 0.01)
LEAST_READINGS = Criterion(
    "machine", "whether the cost of readings is judged", "readings in the window, at least", "", 100)
USUAL_INTERVAL_S = Criterion("machine", "what readings may cost", "from one reading to the next", "s", 0.1)
ENERGY_COUNTER = Threshold(
    "machine", "energy_counter", "energy counters that went back or stood still", "", 0,
    condition="a note; there is no energy then")
LATE_READINGS = Criterion(
    "cli.commands.report", "whether they are shown as doubtful", "readings of the machine that came late, above",
    "share", 0.05)
COLD_SHARE = Criterion(
    "run.engine", "whether a start is cold", "weight files that left the file cache, at least", "share", 0.95)

TOKEN_DISAGREEMENT = Threshold(
    "tokens", "token_counts", "tokens counted by chunk against the engine's total, median", "share", 0.01, 0.05)
IMPOSSIBLE_TOKENS = Threshold(
    "tokens", "token_counts", "replies with more tokens than requested at most, or with fewer than chunks", "share",
    0.01, 0.05)
FEWER_THAN_CHUNKS = Criterion("tokens", "which replies have fewer tokens than chunks", "tokens/chunks, below", "", 0.9)
TOKENS_BY_TEXT = Threshold(
    "tokens", "token_counts",
    "tokens of a few replies' texts, by the model's tokenizer, against the stated total, median", "share", 0.1,
    condition="from 10 replies on; texts need not have the tokens that were generated")
LEAST_RECOUNTED = Criterion("tokens", "whether texts are judged", "replies counted by their text, at least", "", 10)
LENGTHS = Threshold(
    "tokens", "lengths", "replies of a planned length that have another, or that the context cut short", "share", 0.01)
PROMPT_TOKENS = Threshold(
    "tokens", "prompts", "tokens of the prompts as the server counts them against the plan, median", "share",
    0.1, condition="beyond 40 tokens more, a chat template's, or 1 less; above 50 % where the plan estimated them")
PROMPT_TOKENS_ESTIMATED = Criterion(
    "tokens", "whether the server's count of prompts is doubted", "off an estimated length, above", "share", 0.5)
CACHED_UNPLANNED = Threshold(
    "tokens", "prompts", "prompt tokens that the server took from its cache where no two prompts begin alike",
    "share", 0.1, condition="beyond 40 tokens a request, a chat template's")
BOOKS = Threshold(
    "tokens", "books", "tokens and requests of the trial as the server counted them against the load generator's",
    "share", 0.01, condition="where the server's page was read before the first and after the last request")
BOOKS_IN_FLIGHT = Threshold(
    "tokens", "books", "requests in flight: server's page against the records", "share", 0.1,
    condition="at 20 or more readings of the page in the window; beyond what 0.1 s before or after makes of it")

DRIFT = Threshold(
    "steady", "not_steady", "drift of TTFT, TPOT or E2E over the window", "share", 0.05,
    condition="p < 0.01, all together, and more than half the interval; not for loads that change by plan")
OVERLOAD = Threshold(
    "steady", "overload", "growth of the requests in flight over the window", "share", 0.3, condition="open loops")
BACKLOG = Criterion(
    "steady", "what is overload", "growth of the requests in flight over the requests due, above", "share", 0.03)
DRIFT_P_VALUE = Criterion(
    "steady", "what is no drift but chance", "probability, of all series together, below", "", 0.01)
HALF = Criterion("steady", "what is no drift but chance", "drift over the width of the interval, above", "", 0.5)
WARM_UP = Criterion(
    "steady", "what is a warm-up", "part of the window, above", "share", 0.05)
CLEAR_DEVIATIONS = Criterion(
    "steady", "what is no warm-up but chance", "standard errors between what is cut and the rest, above", "", 4.0)
CLEAR_SHARE = Criterion(
    "steady", "what is no warm-up but chance", "difference between what is cut and the rest, above", "share", 0.02)
STILL_DEVIATIONS = Criterion(
    "steady", "what is no warm-up but chance", "standard errors, of the second half of what is cut, above", "", 2.0)
DECAYING = Criterion(
    "steady", "what is no warm-up but chance", "the first third's share of the worst third's difference", "share", 0.9)

START_SPREAD = Threshold(
    "starts", "hysteresis",
    "standard deviation between starts of a configuration, over what the noise within one explains",
    "", 2, condition="three repetitions or more, above 2 % of the value")
LEAST_START_SPREAD = Criterion(
    "starts", "whether starts differ enough to matter", "their standard deviation, above", "share", 0.02)

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
    "verdict.decision.table, verdict.decision.memory_need, verdict.decision.recommendation",
    "which rows are alike in memory", "difference of two peaks, readings without an interval, at most", "share", 0.02)
WIDE_INTERVAL = Criterion(
    "verdict.decision.dominance", "whether chance explains that a row is worse",
    "width of the other's interval over its value, at most", "", 0.5)
SAME_SPEED = Criterion(
    "verdict.decision.odds", "which rows are alike in speed", "ratio, above one by less than", "share", 0.01)
LIKELY_ODDS = Criterion(
    "verdict.decision.odds", "whether a row is likely the faster", "probability, at least", "share", 0.8)
MOST_REPETITIONS = Criterion("verdict.decision.odds", "whether repetitions can settle a choice", "at most", "", 100)
HOLD_OUT = Criterion(
    "fits.refusal", "which fitted curves are shown", "mean error at points held out, at most", "share", 0.1)
NOISE_FLOORS = Criterion(
    "quality", "what is indistinguishable from the reference", "times the reference's divergence from itself", "", 3.0)
GRADES = (Grade("near-lossless", 0.001, 0.985), Grade("good", 0.01, 0.95), Grade("degraded", 0.05, 0.0))
WORST_GRADE = "poor"
# fmt: on
TABLE = tuple(one for one in list(globals().values()) if isinstance(one, Threshold | Criterion))

HEADINGS = {
    "load": "The load",
    "client": "The load generator",
    "search": "Search for the largest rate",
    "stream": "Streams",
    "engine": "The engine",
    "machine": "The machine",
    "tokens": "Tokens and prompts",
    "steady": "Steadiness",
    "starts": "Starts",
    "cli.examination": "Calibration",
    "checks": "`harness doctor`, of the machine",
}


def as_markdown() -> str:
    """Return the tables for docs/thresholds.md: thresholds by what they are of, then the criteria."""
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
    warn = "—" if warn == invalid or math.isinf(one.warn) else warn
    invalid = invalid if math.isfinite(one.invalid) else "never"
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


PAGES = {"thresholds.md": ("thresholds", as_markdown), "quality.md": ("grades", grades_as_markdown)}


if __name__ == "__main__":
    for FILE, (NAME, MADE) in PAGES.items():
        PAGE = Path(__file__).resolve().parents[2] / "docs" / FILE
        PAGE.write_text(inserted(PAGE.read_text(encoding="utf-8"), NAME, MADE()), encoding="utf-8")
