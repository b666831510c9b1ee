"""Validity: whether a trial measured what it says, judged from its own records, and what to do where it did not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis import sample_size
from harness.analysis.columns import Columns
from harness.analysis.rates import shares
from harness.analysis.reading import Reading
from harness.records import TOO_LATE, TURN_NOT_SENT, Clock, Loop, Phase, Status
from harness.scenario.limits import parse_limit
from harness.store.categories import one_of
from harness.store.manifest import CalibrationEntry, ClientEntry, PlannedCounts, TrialEntry
from harness.verdict import client as client_signals
from harness.verdict import samples, steady, thresholds
from harness.verdict.client import Observed
from harness.verdict.engine import engine_reasons
from harness.verdict.machine import energy_reasons, telemetry_reasons, throttling_reasons
from harness.verdict.reason import Level, Reason, Validity
from harness.verdict.samples import burst_reasons
from harness.verdict.tokens import books_reasons, reuse_reasons, token_reasons

if TYPE_CHECKING:
    import pandas as pd


def judge(
    trial: TrialEntry,
    reading: Reading,
    client: ClientEntry | None,
    calibration: CalibrationEntry | None = None,
    facts: dict[str, Any] | None = None,
) -> Validity:
    """The validity of a trial from its manifest entry, its records and the client's report about itself.

    calibration: of the machine, as the run's manifest keeps it.   facts: of the trial, see `facts.facts_of`.
    """
    records, columns = reading.frame, reading.columns
    rows = columns.measured
    reasons = [*_ended(trial), *_complete(trial, records, columns), *_alone(trial)]
    if len(rows):
        observed = reading.observed
        reasons += [*_client(trial, columns, records, client, observed), *_errors(trial, rows)]
        reasons += client_signals.beyond_calibration(rows, client, calibration)
        reasons += samples.too_few(reading, facts["sample_size"] if facts else sample_size.sizes_of(reading))
        reasons += samples.too_short(reading)
        reasons += [*token_reasons(trial, reading, facts), *books_reasons(facts), *_cut_short(records)]
        reasons += [*reuse_reasons(trial, columns), *burst_reasons(reading)]
        reasons += steady.unsteady(reading, (facts or {}).get("steady") or steady.steady_facts(reading))
        reasons += engine_reasons(trial, reading)
    reasons += [*throttling_reasons(facts), *energy_reasons(facts)]
    reasons += telemetry_reasons(facts, client, reading.window.seconds)
    return Validity.of(reasons)


def unmeasured(trial: TrialEntry) -> Validity:
    """The validity of a trial that left no records."""
    reasons = tuple(_ended(trial)) or (Reason("no_records", Level.INVALID, "The trial left no records."),)
    return Validity(Level.INVALID, reasons)


def what_became(status: str) -> str:
    """The status of a trial in words that follow its name."""
    return {"failed": "failed", "interrupted": "was interrupted"}.get(status, f"is {status}")


def _alone(trial: TrialEntry) -> Iterator[Reason]:
    """Whether the engine had the GPUs to itself. What others take from it is true of this machine, so it only warns."""
    others = trial.others_on_gpus or 0
    sentence = f"Up to {others} processes that are not of this run computed on the GPUs."
    advice = "End them: what they use is missing from the engine's share."
    yield from thresholds.OTHERS_ON_GPUS.reasons(others, sentence, advice)


def _ended(trial: TrialEntry) -> Iterator[Reason]:
    if trial.status != "complete":
        why = f": {trial.reason}" if trial.reason else ""
        began = trial.status != "failed" or trial.t0_ns is not None
        advice = "Run it again." if began else "Remove the cause, and run it again."
        sentence = f"The trial {what_became(trial.status)}{why}"
        sentence += "" if sentence.endswith(("?", "!", ".")) else "."
        yield Reason(f"trial_{trial.status}", Level.INVALID, sentence, advice)


def _complete(trial: TrialEntry, records: pd.DataFrame, columns: Columns) -> Iterator[Reason]:
    """Every planned request that fell due has exactly one record, and was sent."""
    advice = "This is a fault of the harness or of its storage; do not use the numbers."
    doubled = int(records["request"].duplicated().sum())
    if doubled:
        yield Reason("rows_doubled", Level.INVALID, f"{doubled} requests have more than one record.", advice)
    planned = trial.planned or PlannedCounts()
    # In a closed loop another request takes the place of a turn that is not sent.
    counted = ~columns.has_status([Status.NOT_SENT]) if trial.loop == Loop.CLOSED else np.True_
    for phase, expected in ((Phase.WARMUP, planned.warmup), (Phase.MEASURE, planned.measure)):
        found = int((columns.in_phase(phase) & counted).sum())
        sentence = f"{expected} {phase.value} requests were planned and {found} have a record."
        broken_off = "It broke off; what was measured before is here." if trial.status != "complete" else advice
        if expected is not None:
            yield from thresholds.ROWS_MISSING.reasons(abs(expected - found), sentence, broken_off)
    yield from _unsent(records)
    if trial.status == "complete" and not columns.in_phase(Phase.MEASURE).any():
        advice = "Measure for longer than the time between two requests."
        yield Reason("nothing_measured", Level.INVALID, "No request fell due in the measuring window.", advice)


def _unsent(records: pd.DataFrame) -> Iterator[Reason]:
    """Measured requests without a send time: later turns behind a failed one, and those that the trial owes."""
    unsent = records[one_of(records["phase"], [Phase.MEASURE]) & one_of(records["status"], [Status.NOT_SENT])]
    if not len(unsent):
        return
    errors = unsent["error"].astype(object)
    said = errors.where(errors.notna(), "").astype(str)
    behind, late = (int(said.str.startswith(beginning).sum()) for beginning in (TURN_NOT_SENT, TOO_LATE))
    if behind < len(unsent):
        sentence = f"{len(unsent) - behind} planned requests were never sent"
        advice = "Let the trial finish, with all its load processes."
        if late:
            sentence += f", {late} of them because this client came to them only after their time-out"
            advice = "Offer less: the load is more than this process can send, or an engine inside it can take."
        yield Reason("not_sent", Level.INVALID, f"{sentence}.", advice)
    if behind:
        sentence = f"{behind} later turns of conversations were not sent, because a turn before them had failed."
        yield Reason("broken_off", Level.WARN, sentence, "Look at the errors: the load was lighter than planned.")


def _client(
    trial: TrialEntry,
    columns: Columns,
    records: pd.DataFrame,
    client: ClientEntry | None,
    observed: Observed,
) -> Iterator[Reason]:
    """Whether the client was the bottleneck."""
    rows = columns.measured
    due, sent = rows.times["due"], rows.times["sent"] - np.nan_to_num(rows.times["accepting"])
    yield from client_signals.on_time(observed)
    if trial.loop != Loop.CLOSED:
        yield from client_signals.on_plan(due, sent, observed)
    by_loop = bool(one_of(records["clock"], [Clock.LOOP]).any())
    yield from client_signals.about_itself(client, observed, by_loop=by_loop)
    offered = one_of(records["phase"], [Phase.MEASURE]) & records["sent_ns"].notna().to_numpy(dtype=np.bool_)
    stored = (records[name] for name in ("due_ns", "connected_ns", "sent_ns"))
    times = [column.to_numpy(dtype=np.float64, na_value=np.nan)[offered] for column in stored]
    yield from client_signals.waited_for_connections(*times)
    refused = records.loc[one_of(records["status"], [Status.CONNECTION_ERROR]), "error"]
    yield from client_signals.exhausted({str(text): int(n) for text, n in refused.value_counts().items()})


def _errors(trial: TrialEntry, rows: Columns) -> Iterator[Reason]:
    """Latencies of the survivors say little once requests fail, unless the scenario has a limit for that."""
    failed = shares(rows, {})["error_rate"]
    if not len(failed):
        sentence = "The plan gave up every measured request: no latency is known, and nothing could fail."
        yield Reason("all_given_up", Level.WARN, sentence, "Lower the share of `cancel`, or measure for longer.")
        return
    rate = float(failed.mean())
    if rate == 1:
        sentence = "Every measured request failed; what there is of latencies is of replies that broke off."
        advice = "Look at the errors: nothing was measured."
        yield from thresholds.NOTHING_SUCCEEDED.reasons(len(failed), sentence, advice)
        return
    level = thresholds.ERRORS.level(rate)
    if level is Level.VALID:
        return
    if any(parse_limit(text).metric == "error_rate" for text in trial.limits):
        level = Level.WARN
    sentence = f"{rate:.2%} of the measured requests failed; the latencies are those of the others."
    advice = "Look at the errors, or state what is acceptable with a limit such as `error_rate <= 0.05`."
    yield Reason("errors", level, sentence, advice)


def _cut_short(records: pd.DataFrame) -> Iterator[Reason]:
    """Replies that ended for want of room before the tokens that were asked for: the context was full."""
    asked = records["requested_output_tokens"].to_numpy(dtype=np.float64, na_value=np.nan)
    got = records["output_tokens"].to_numpy(dtype=np.float64, na_value=np.nan)
    ended = one_of(records["finish_reason"], ["length"]) & one_of(records["status"], [Status.OK])
    measured_rows = one_of(records["phase"], [Phase.MEASURE])
    short = measured_rows & ended & (got < asked - 1)  # some servers do not count the last token
    if short.any():
        sentence = f"{short.sum()} replies ended by `length` before the tokens asked for"
        sentence += f" ({np.median(got[short]):.0f} of {np.median(asked[short]):.0f} at the median)."
        advice = "Give the engine a longer context, or ask for shorter prompts or replies."
        yield from thresholds.CUT_SHORT.reasons(float(short.sum()), sentence, advice)
