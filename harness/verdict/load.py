"""Judge whether the load was the planned one: missing requests, lost load processes, failed requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from harness import records
from harness.analysis.columns import Columns
from harness.analysis.rates import shares
from harness.metrics import METRICS
from harness.records import TOO_LATE, TURN_NOT_SENT, Loop, Phase, Status
from harness.scenario.limits import parse_limit
from harness.store.categories import one_of
from harness.store.manifest import ClientEntry, PlannedCounts, TrialEntry
from harness.verdict import thresholds
from harness.verdict.reason import Level, Reason

if TYPE_CHECKING:
    import pandas as pd

OF_REQUESTS = tuple(name for name, metric in METRICS.items() if metric.takes_statistics or metric.unit.endswith("/s"))
"""Metrics that requests are measured by: latencies and rates."""
_MISSING = "load_missing"
_RUN_AGAIN = "Run it again."
_OURS = "Report it: this is a fault of harness or of its storage."


def missing(trial: TrialEntry, frame: pd.DataFrame, columns: Columns, client: ClientEntry | None) -> Iterator[Reason]:
    """Yield the reasons for which requests of the plan are missing (D1)."""
    yield from unfinished(trial)
    doubled = int(frame["request"].duplicated().sum())
    share = doubled / max(1, len(frame))
    yield from thresholds.ROWS_MISSING.reasons(
        share, f"{doubled} requests have more than one record.", _OURS, OF_REQUESTS
    )
    yield from _without_record(trial, columns)
    yield from _unsent(frame)
    yield from _lost(client)
    yield from _exhausted(frame)
    if trial.status == "complete" and not columns.in_phase(Phase.MEASURE).any():
        advice = "Set `duration` longer than the time between two requests."
        yield Reason(_MISSING, Level.INVALID, "No request fell due in the measurement window.", advice, OF_REQUESTS)


def unfinished(trial: TrialEntry) -> Iterator[Reason]:
    """Yield the reason of a trial that is not complete."""
    if trial.status != "complete":
        sentence = f"The trial {what_became(trial.status)}{f': {trial.reason}' if trial.reason else ''}"
        sentence += "" if sentence.endswith(("?", "!", ".")) else "."
        began = trial.status != "failed" or trial.t0_ns is not None
        advice = _RUN_AGAIN if began else "Remove the cause, and run it again."
        yield Reason(_MISSING, Level.INVALID, sentence, advice, OF_REQUESTS, size=np.inf)


def what_became(status: str) -> str:
    """Return the status of a trial in words that follow its name."""
    return {"failed": "failed", "interrupted": "was interrupted"}.get(status, f"is {status}")


def _without_record(trial: TrialEntry, columns: Columns) -> Iterator[Reason]:
    planned = trial.planned or PlannedCounts()
    # In a closed loop another request takes the place of a turn that is not sent.
    counted = ~columns.has_status([Status.NOT_SENT]) if trial.loop == Loop.CLOSED else np.True_
    for phase, expected in ((Phase.WARMUP, planned.warmup), (Phase.MEASURE, planned.measure)):
        found = int((columns.in_phase(phase) & counted).sum())
        if expected is not None:
            kind = "warm-up" if phase is Phase.WARMUP else "measured"
            sentence = f"{expected} {kind} requests were planned; {found} have a record."
            advice = _OURS if trial.status == "complete" else _RUN_AGAIN
            share = abs(expected - found) / max(1, expected)
            yield from thresholds.ROWS_MISSING.reasons(share, sentence, advice, OF_REQUESTS)


def _unsent(frame: pd.DataFrame) -> Iterator[Reason]:
    """Yield the reasons of measured requests that were never sent; later turns behind a failed one count as errors."""
    measured = one_of(frame["phase"], [Phase.MEASURE])
    unsent = frame[measured & one_of(frame["status"], [Status.NOT_SENT])]
    if not len(unsent):
        return
    errors = unsent["error"].astype(object)
    said = errors.where(errors.notna(), "").astype(str)
    behind, late = (int(said.str.startswith(beginning).sum()) for beginning in (TURN_NOT_SENT, TOO_LATE))
    total, never = int(measured.sum()), len(unsent) - behind
    sentence, advice = f"{never} of {total} planned requests were never sent.", _RUN_AGAIN
    if late:
        sentence = f"{never} of {total} planned requests were never sent: {late} of them came up after their time-out."
        advice = "Lower the rate, or use more load processes (`workers`)."
    yield from thresholds.ROWS_MISSING.reasons(never / total, sentence, advice, OF_REQUESTS)
    sentence = f"{behind} of {total} turns of conversations were not sent, because an earlier turn had failed."
    advice = "Look at the errors: the load was lighter than planned by these turns."
    yield from thresholds.ERRORS.reasons(behind / total, sentence, advice, OF_REQUESTS)


def _lost(client: ClientEntry | None) -> Iterator[Reason]:
    workers = [] if client is None else client.workers
    lost = [worker.lost for worker in workers if worker.lost]
    if lost:
        sentence = f"{len(lost)} of {len(workers)} load processes died: {lost[0]}"
        yield Reason(
            _MISSING, Level.INVALID, f"{sentence.rstrip('.')}.", _RUN_AGAIN, OF_REQUESTS, size=len(lost) / len(workers)
        )


def _exhausted(frame: pd.DataFrame) -> Iterator[Reason]:
    refused = frame.loc[one_of(frame["status"], [Status.CONNECTION_ERROR]), "error"].value_counts()
    count = sum(int(n) for text, n in refused.items() if records.exhausted(str(text)))
    sentence = f"{count} requests failed because this machine had no port or no open file left."
    advice = "Raise the hard limit (`ulimit -Hn`), widen net.ipv4.ip_local_port_range, or lower the load."
    yield from thresholds.EXHAUSTED.reasons(count / max(1, len(frame)), sentence, advice, OF_REQUESTS)


def judges_errors(limits: Iterable[str]) -> bool:
    """Return whether one of some limits judges all failed requests of a trial."""
    every = (one for one in map(parse_limit, limits) if one.class_name is None and one.base is None)
    return any(one.metric in ("error_rate", "errors") for one in every)


def errors(trial: TrialEntry, rows: Columns) -> Iterator[Reason]:
    """Yield the reason of failed requests (D2), a note where a limit on errors judges them.

    The server's failures are a result; the latencies are then those of the other requests.
    """
    failed = shares(rows, {})["error_rate"]
    if not len(failed):
        sentence = "The scenario cancels every measured request (`cancel`): there is no latency and no error rate."
        yield Reason("errors", Level.WARN, sentence, "Lower the share of `cancel`.", OF_REQUESTS, size=np.inf)
        return
    count, share = int(failed.sum()), float(failed.mean())
    others = "latencies are those of the others"
    if rows.censored.any():
        others = "in latencies, those that never ended count as the slowest"
    sentence = f"{count} of {len(failed)} measured requests failed ({share:.1%}); {others}."
    if share == 1:
        sentence = f"{count} of {count} measured requests failed: nothing was measured."
    judged = judges_errors(trial.limits)
    advice = "Look at the errors."
    if not judged:
        advice += " A limit such as `error_rate <= 5%` states how many are acceptable."
    yield from thresholds.ERRORS.reasons(share, sentence, advice, OF_REQUESTS, note=judged and share < 1)
