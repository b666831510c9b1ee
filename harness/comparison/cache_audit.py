"""Cache audit: does a server answer repeated prompts from a result cache?

A user sends prompts one after the other, half of which repeat an earlier one. Repeats must not be faster than distinct
prompts by more than 10 % (as MLPerf's TEST04 has it), from sent to the last token. A prefix cache makes the first token
sooner, and the tokens after it are generated anew. So a repeat that ends, all in all, in less than half the time that a
distinct prompt takes for the tokens after its first comes from a result cache: that holds even where a network hands
over several tokens at once.

Each repeat is compared with a distinct prompt that was sent near it, so that a machine that is busy for a while slows
both. Each distinct prompt is compared once: pairs that shared one would depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.stats import Floats
from harness.comparison.change import Change, of_pairs
from harness.scenario.margins import Scale
from harness.scenario.model import Scenario
from harness.scenario.reader import restore
from harness.store.run import MANIFEST, Run

FOLDER = "cache-audit"
REQUESTS, REPEATED = 40, 0.5
FASTER, AT_ONCE = 0.9, 0.5
"""Ratios below which repeats are faster than distinct prompts, and whole repeats than the later tokens of those."""
LEAST_PAIRS = 6
_LEAST_MS = 0.01
_COLUMNS = ("request", "repeats", "status", "sent_ns", "first_token_ns", "last_token_ns", "done_ns")
_LEFT_OUT = ("turns", "think_time", "cancel", "prefix")
RESULT, PREFIX, NONE, UNKNOWN = "result cache", "prefix cache", "none", "unknown"


def audit_scenario(scenario: Scenario) -> Scenario:
    """Return the scenario of the audit: the same configurations, under a single user who repeats prompts."""
    tree = scenario.resolved()
    workload = {key: value for key, value in tree.get("workload", {}).items() if key not in _LEFT_OUT}
    load = {"kind": "single_user", "name": FOLDER, "requests": REQUESTS}
    engines = [{key: value for key, value in block.items() if key != "load"} for block in tree["engines"]]
    kept = {key: value for key, value in tree.items() if key not in ("limits", "classes", "compare", "quality", "slo")}
    changed = {"workload": {**workload, "repeat": REPEATED}, "load": [load], "engines": engines, "repetitions": 1}
    return restore({**kept, **changed}, Path("scenario.yaml"))


@dataclass(frozen=True, slots=True)
class Times:
    """Times of repeats beside those of distinct prompts, ms; [pairs, 2]: distinct, repeat. NaN where unknown.

    Attributes:
        e2e: From sent to the last token, or to the end of a reply that was not streamed.
        first: From sent to the first token.
        after: From the first token to the last.
    """

    e2e: Floats
    first: Floats
    after: Floats


@dataclass(frozen=True, slots=True)
class Audit:
    """What the audit of a configuration found.

    Attributes:
        kind: RESULT, PREFIX, NONE or UNKNOWN.
        sentence: What was found, with both numbers.
        distinct_ms, repeated_ms: Medians of the end-to-end time; NaN without observations.
    """

    configuration: str
    kind: str
    sentence: str
    distinct_ms: float = math.nan
    repeated_ms: float = math.nan
    pairs: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return its fields; unknown numbers are None."""
        known = {name: getattr(self, name) for name in ("configuration", "kind", "sentence", "pairs")}
        times = {name: getattr(self, name) for name in ("distinct_ms", "repeated_ms")}
        return known | {name: value if math.isfinite(value) else None for name, value in times.items()}


def audits_of(run: Path) -> tuple[Audit, ...]:
    """Return what a stored audit found, a configuration each. Raises RunUnreadable if it cannot be read."""
    return tuple(_audits(Run.open(run))) if (run / MANIFEST).exists() else ()


def _audits(run: Run) -> Iterator[Audit]:
    for one in run.trials():
        name = " ".join(filter(None, one.cell.keys))
        rows = one.records(_COLUMNS)
        yield judged(name, times_of({column: rows[column].tolist() for column in _COLUMNS}))


def times_of(records: Mapping[str, Sequence[Any]]) -> Times:
    """Return the times of repeats beside those of distinct prompts near them, each once; of requests that succeeded.

    Args:
        records: The columns `_COLUMNS` of a trial.
    """
    from scipy.optimize import linear_sum_assignment

    numbers = np.array(records["request"], dtype=np.int64)
    again = np.isfinite(np.array(records["repeats"], dtype=np.float64))
    good = np.array([status == "ok" for status in records["status"]], dtype=np.bool_)
    distinct, repeats = np.flatnonzero(good & ~again), np.flatnonzero(good & again)
    far: Any = np.abs(numbers[distinct][:, None] - numbers[repeats])
    rows, columns = linear_sum_assignment(far)
    pairs = np.stack([distinct[rows], repeats[columns]], axis=1)
    names = ("sent_ns", "first_token_ns", "last_token_ns", "done_ns")
    sent, begun, last, done = (np.array(records[name], dtype=np.float64)[pairs] for name in names)
    ended = np.where(np.isnan(last), done, last)
    return Times((ended - sent) / 1e6, (begun - sent) / 1e6, (last - begun) / 1e6)


def judged(configuration: str, times: Times) -> Audit:
    """Return what the times say."""
    count = len(times.e2e)
    if count < LEAST_PAIRS:
        why = f"{count} repeats beside distinct prompts were answered, {LEAST_PAIRS} are needed to tell a result cache."
        return Audit(configuration, UNKNOWN, why, pairs=count)
    distinct, repeated = (float(value) for value in np.median(times.e2e, axis=0))
    kind, sentence = _told(times, f"{_ms(repeated)}, distinct ones {_ms(distinct)}")
    return Audit(configuration, kind, sentence, distinct, repeated, count)


def _told(times: Times, both: str) -> tuple[str, str]:
    """Return the kind, and a sentence. both: the medians of the end-to-end times."""
    whole, first, after = (_ratio(one) for one in (times.e2e, times.first, times.after))
    generated = _ratio(np.stack([times.after[:, 0], times.e2e[:, 1]], axis=1))
    if _is_faster(whole) and generated.known and generated.interval()[1] < AT_ONCE:
        return RESULT, f"Repeated prompts took {both} (E2E): a result cache answers them."
    if _is_faster(whole) and not after.known:
        why = "a result cache or a prefix cache, which only streamed replies of several tokens tell apart"
        return UNKNOWN, f"Repeated prompts took {both} (E2E): {why}."
    if _is_faster(whole) and _is_faster(after):
        return (
            UNKNOWN,
            f"Repeated prompts took {both} (E2E), less after the first token, too: by which cache is unknown.",
        )
    if _is_faster(first) and not _is_faster(after):
        begun = [_ms(float(value)) for value in np.nanmedian(times.first, axis=0)]
        why = "a prefix cache, for the tokens after took as long"
        return PREFIX, f"Repeated prompts began after {begun[1]}, distinct ones after {begun[0]} (TTFT): {why}."
    if not whole.known or whole.interval()[0] < FASTER:
        return UNKNOWN, f"Repeated prompts took {both} (E2E): they differ too much to tell a result cache."
    return NONE, f"Repeated prompts took {both} (E2E): no result cache."


def _ratio(times: Floats) -> Change:
    """Return the ratio of repeats to distinct prompts, of the pairs whose times are known."""
    known = times[np.isfinite(times).all(axis=1)]
    return of_pairs(Scale.RATIO, [(max(a, _LEAST_MS), max(b, _LEAST_MS)) for a, b in known])


def _is_faster(ratio: Change) -> bool:
    return ratio.known and ratio.interval()[1] < FASTER


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"
