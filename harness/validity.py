"""Validity: whether a trial measured what it says, judged from its own records, and what to do where it did not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import stats
from harness.columns import Columns, measured
from harness.latencies import Observations, observe
from harness.limits import parse_limit
from harness.rates import shares
from harness.records import Clock, Phase, Status, TokenSource

if TYPE_CHECKING:
    import pandas as pd


Observed = dict[str, Observations]


class Level(StrEnum):
    """How good a trial is; the worst of its reasons decides."""

    VALID = "valid"
    WARN = "warn"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Threshold:
    """From where on a reading is suspect, and from where on it spoils the trial (infinite: never alone)."""

    warn: float
    invalid: float = math.inf

    def level(self, value: float) -> Level:
        """The level of a reading; NaN is unknown and no reason against it."""
        return Level.INVALID if value > self.invalid else Level.WARN if value > self.warn else Level.VALID


LAG_MS = Threshold(1.0, 5.0)
LAG_SHARE_OF_TTFT_P50 = Threshold(0.01, 0.02)
LATE_SHARE_OF_TTFT_P99 = 0.10
LATE_SHARE_OF_TAIL = 0.5
HEARTBEAT_P99_MS = Threshold(5.0, 20.0)
MERGED_READS = Threshold(0.20)
CLIENT_CPU = Threshold(0.70)
ERRORS = Threshold(0.001, 0.01)
TOKEN_DISAGREEMENT = Threshold(0.01, 0.05)
DRIFT = Threshold(0.02)
DRIFT_P_VALUE = 0.01
DRIFT_BATCHES = 20
HEADLINE_QUANTILE = 0.95


@dataclass(frozen=True, slots=True)
class Reason:
    """One observation against a trial: a stable code, how bad it is, what was seen, what to do."""

    code: str
    level: Level
    sentence: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Validity:
    """The judgement of a trial."""

    verdict: Level
    reasons: tuple[Reason, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for reports."""
        reasons = [
            {"code": r.code, "level": r.level.value, "sentence": r.sentence, "advice": r.advice} for r in self.reasons
        ]
        return {"verdict": self.verdict.value, "reasons": reasons}


def judge(trial: dict[str, Any], records: pd.DataFrame, client: dict[str, Any] | None) -> Validity:
    """The validity of a trial from its manifest entry, its records and the client's report about itself."""
    columns = Columns.of(records)
    rows = measured(columns)
    own = client or {}
    reasons = [*_ended(trial), *_complete(trial, records, columns)]
    if len(rows):
        observed = observe(rows)
        reasons += [*_on_time(observed), *_client(own, records), *_errors(trial, rows)]
        reasons += [*_enough(observed), *_tokens(rows, records), *_steady(observed)]
    return Validity(_worst(reasons), tuple(sorted(reasons, key=lambda r: r.level is not Level.INVALID)))


def unmeasured(trial: dict[str, Any]) -> Validity:
    """The validity of a trial that left no records."""
    reasons = tuple(_ended(trial)) or (Reason("no_records", Level.INVALID, "The trial left no records."),)
    return Validity(Level.INVALID, reasons)


def _worst(reasons: list[Reason]) -> Level:
    levels = {reason.level for reason in reasons}
    return next((level for level in (Level.INVALID, Level.WARN) if level in levels), Level.VALID)


def _ended(trial: dict[str, Any]) -> Iterator[Reason]:
    if trial["status"] != "complete":
        why = f": {trial['reason']}" if trial.get("reason") else ""
        advice = "Run it again."
        yield Reason(f"trial_{trial['status']}", Level.INVALID, f"The trial is {trial['status']}{why}.", advice)


def _complete(trial: dict[str, Any], records: pd.DataFrame, columns: Columns) -> Iterator[Reason]:
    """Every planned request that fell due has exactly one record, and was sent."""
    advice = "This is a fault of the harness or of its storage; do not use the numbers."
    doubled = int(records["request"].duplicated().sum())
    if doubled:
        yield Reason("rows_doubled", Level.INVALID, f"{doubled} requests have more than one record.", advice)
    planned = trial.get("planned") or {}
    for phase in (Phase.WARMUP, Phase.MEASURE):
        expected, found = planned.get(phase.value), int((columns.phase == phase).sum())
        if expected is not None and expected != found:
            sentence = f"{expected} {phase.value} requests were planned and {found} have a record."
            broken_off = "It broke off; what was measured before is here." if trial["status"] == "failed" else advice
            yield Reason("rows_missing", Level.INVALID, sentence, broken_off)
    in_window = columns.phase == Phase.MEASURE
    unsent = int((in_window & columns.has_status([Status.NOT_SENT])).sum())
    if unsent:
        yield Reason("not_sent", Level.INVALID, f"{unsent} planned requests were never sent.", "Let the trial finish.")
    if not in_window.any():
        advice = "Measure for longer than the time between two requests."
        yield Reason("nothing_measured", Level.INVALID, "No request fell due in the measuring window.", advice)


def _on_time(observed: Observed) -> Iterator[Reason]:
    """Whether the client itself was the bottleneck: its lag in proportion to what it measures."""
    lag = observed["send_lag_ms"].values
    name = "ttft_ms" if len(observed["ttft_ms"].values) else "e2e_ms"
    latency = observed[name].values
    if not len(lag) or not len(latency):
        return
    middle, tail = stats.quantile(latency, 0.5), stats.quantile(latency, 0.99)
    latest = np.sort(lag)[::-1]
    # Lateness spoils the highest quantile that so many requests support; one request alone never does, or every short
    # trial on a busy machine would be invalid: it is a warning.
    q = next((q for q in (0.99, HEADLINE_QUANTILE) if len(lag) >= stats.floor_two_sided(q)), HEADLINE_QUANTILE)
    at_q = float(latest[min(max(1, len(lag) - stats.quantile_rank(len(lag), q)), len(lag) - 1)])
    level = min(LAG_MS.level(at_q), LAG_SHARE_OF_TTFT_P50.level(at_q / max(middle, 1e-9)), key=_badness)
    late = int((lag > max(LATE_SHARE_OF_TTFT_P99 * tail, LAG_MS.invalid)).sum())
    too_many = late > 1 and late / len(lag) > LATE_SHARE_OF_TAIL * (1 - q)
    spoiled = Level.INVALID if too_many else Level.WARN if late else Level.VALID
    level = max(level, spoiled, key=_badness)
    if level is not Level.VALID:
        sentence = f"Requests were sent late: p{q * 100:.0f} {at_q:.2f} ms, at most {latest[0]:.2f} ms;"
        sentence += f" {name} p50 is {middle:.1f} ms."
        if late:
            sentence += f" {late} of {len(lag)} were late by more than a tenth of its p99."
        yield Reason("client_lag", level, sentence, "Lower the rate, or free the machine of other work.")


def _badness(level: Level) -> int:
    return (Level.VALID, Level.WARN, Level.INVALID).index(level)


def _client(client: dict[str, Any], records: pd.DataFrame) -> Iterator[Reason]:
    """What the client says about itself. A busy machine that did not delay it is only worth a warning."""
    heartbeat = _number(client.get("heartbeat_p99_ms"))
    level = HEARTBEAT_P99_MS.level(heartbeat)
    by_loop = bool((records["clock"] == Clock.LOOP).any())
    if level is not Level.VALID:
        # kernel stamps stay true however late the loop looks at them
        level = level if by_loop else Level.WARN
        sentence = f"The client's event loop was late by {heartbeat:.1f} ms at p99."
        yield Reason(
            "client_heartbeat", level, sentence, "Give the client processor cores that the engine does not use."
        )
    cpu = _number(client.get("cpu_share"))
    if CLIENT_CPU.level(cpu) is not Level.VALID:
        sentence = f"The client's process used {cpu:.0%} of a core."
        yield Reason("client_cpu", Level.WARN, sentence, "Lower the rate.")
    merged = _number(client.get("merged_read_share"))
    if MERGED_READS.level(merged) is not Level.VALID:
        sentence = f"{merged:.0%} of the reads held several packets, so that gaps within them cannot be seen."
        yield Reason("merged_reads", Level.WARN, sentence, "Trust tpot more than icl, or give the client more cores.")
    refused = _number(client.get("connect_errors"))
    if refused > 0:
        sentence = f"{refused:.0f} connections could not be opened."
        yield Reason(
            "connect_errors", Level.WARN, sentence, "Look at the server's backlog and its limit of open files."
        )


def _errors(trial: dict[str, Any], rows: Columns) -> Iterator[Reason]:
    """Latencies of the survivors say little once requests fail, unless the scenario has a limit for that."""
    rate = float(shares(rows, {})["error_rate"].mean())
    level = ERRORS.level(rate)
    if level is Level.VALID:
        return
    if any(parse_limit(text).metric == "error_rate" for text in trial.get("limits") or ()):
        level = Level.WARN
    sentence = f"{rate:.2%} of the measured requests failed; the latencies are those of the others."
    if rate == 1:
        sentence = "Every measured request failed; what there is of latencies is of replies that broke off."
    advice = "Look at the errors, or state what is acceptable with a limit such as `error_rate <= 0.05`."
    yield Reason("errors", level, sentence, advice)


def _enough(observed: Observed) -> Iterator[Reason]:
    """Too few requests for a quantile is never invalid: it is printed as a bound."""
    worth: dict[str, tuple[float, int]] = {}
    needed = stats.floor_two_sided(HEADLINE_QUANTILE)
    for name in ("ttft_ms", "e2e_ms"):
        values = observed[name].values
        size = stats.effective_size(values, [*stats.GUARD_LEVELS, HEADLINE_QUANTILE])
        if len(values) and math.floor(size) < needed:
            worth[name] = size, len(values)
    if worth:
        size, n = min(worth.values())
        sentence = (
            f"p95 of {' and '.join(worth)} is given as a bound: it needs {needed} independent requests, "
            f"and these {n} are worth {size:.0f}."
        )
        yield Reason("few_samples", Level.WARN, sentence, f"Measure about {needed / max(size, 1):.1f} times as long.")


def _tokens(rows: Columns, records: pd.DataFrame) -> Iterator[Reason]:
    counted = rows.per_request(rows.chunk_tokens, np.add, np.nan)
    stated = rows.counts["output_tokens"]
    both = rows.ok & np.isfinite(counted) & (stated > 0)
    if both.any():
        off = float(np.median(counted[both] / stated[both] - 1))
        level = TOKEN_DISAGREEMENT.level(abs(off))
        if level is not Level.VALID:
            sentence = f"Tokens counted chunk by chunk differ from the engine's total by {off:+.1%} (median)."
            yield Reason(
                "token_counts", level, sentence, "Find out which count is right before using tokens/s or tpot."
            )
    if bool((records["token_source"] == TokenSource.CHUNKS).any()):
        sentence = "The engine does not count tokens: each chunk was taken for one."
        yield Reason("tokens_are_chunks", Level.WARN, sentence, "Switch on usage in the server's replies.")


def _steady(observed: Observed) -> Iterator[Reason]:
    """A trend over the window: Kendall's tau over batch means of the end-to-end time."""
    values = observed["e2e_ms"].values
    values = values[np.isfinite(values)]
    size = len(values) // DRIFT_BATCHES
    if size < 5:
        return
    batches = values[: size * DRIFT_BATCHES].reshape(DRIFT_BATCHES, size).mean(axis=1)
    trend = stats.trend(batches)
    change = trend.slope * (DRIFT_BATCHES - 1) / float(batches.mean())
    if trend.p_value < DRIFT_P_VALUE and DRIFT.level(abs(change)) is not Level.VALID:
        sentence = f"The end-to-end time drifted by {change:+.0%} over the window."
        yield Reason("not_steady", Level.WARN, sentence, "Warm up for longer, or offer less than the engine can take.")


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
