"""The truth of a run, from the server's log: what each shown number would be with a perfect load generator."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.battery.cases import Case
from harness.analysis.stats import Floats, quantile
from harness.records import Phase, Status
from harness.store.run import Run

if TYPE_CHECKING:
    import pandas as pd

LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
LEAST_FOR_P99 = 100
EDGE_NS = 5e6
NS_PER_S = 1e9
LOAD = "load value"
_COLUMNS = ("phase", "sent_ns", "done_ns", "status")


@dataclass(frozen=True)
class Truth:
    """The ends between which the true number lies: equal, but for rates, whose window has no exact edge."""

    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Truth:
        """Return a known truth."""
        return cls(value, value)

    def off_by(self, value: float) -> float:
        """Return how far a number is from it."""
        return max(self.low - value, value - self.high, 0.0)


@dataclass(frozen=True)
class _Log:
    """What the server did for each request of a run, in the order of arrival, beside what the client recorded."""

    came: Floats  # ns from T0, as all times here
    first: Floats  # NaN without a token
    last: Floats
    tokens: Floats
    measured: Any
    ok: Any
    ended: Floats  # last token, or the moment at which the client gave up


def truth_of(case: Case, run: Run, log: Path | None, window: str) -> dict[str, Truth]:
    """Return the truth by "metric statistic". window: as the summary words it.

    Raises ValueError if the log does not hold the requests that the run sent.
    """
    if case.simulated is not None:
        exact = {"ttft_ms": case.simulated["ttft_ms"], "tpot_ms": case.simulated["tpot_ms"]}
        return {f"{name} {p}": Truth.exactly(value) for name, value in exact.items() for p in LEVELS}
    if log is None:
        return {}
    trial = run.trials()[0]
    found = _matched(trial.records(_COLUMNS), np.loadtxt(log, ndmin=2), float(trial.trial.t0_ns or 0))
    return _latencies(found) | _rates(found, _edges(window), case.users)


def _matched(records: pd.DataFrame, log: Floats, t0_ns: float) -> _Log:
    """Match requests with the log by their order. Requests before T0 are the run's own."""
    sent = records[records["sent_ns"].notna()].sort_values("sent_ns", kind="stable")
    log = log[np.argsort(log[:, 0], kind="stable")] if len(log) else np.empty((0, 5))
    came, first, last, tokens, _ = log[log[:, 0] >= t0_ns - EDGE_NS].T
    if len(came) != len(sent):
        raise ValueError(f"the server's log has {len(came)} requests, the run sent {len(sent)}")
    first, last = (np.where(times > 0, times - t0_ns, np.nan) for times in (first, last))
    ok = (sent["status"] == Status.OK).to_numpy()
    ended = np.where(ok, last, sent["done_ns"].to_numpy(dtype=np.float64, na_value=np.nan))
    measured = (sent["phase"] == Phase.MEASURE).to_numpy()
    return _Log(came - t0_ns, first, last, tokens, measured, ok, ended)


def _latencies(log: _Log) -> dict[str, Truth]:
    rows = log.measured & log.ok
    ttft, e2e = ((times - log.came)[rows] / 1e6 for times in (log.first, log.last))
    streamed = rows & (log.tokens > 1)
    tpot = ((log.last - log.first)[streamed] / 1e6) / (log.tokens[streamed] - 1)
    return {
        f"{name} {p}": Truth.exactly(quantile(values, level))
        for name, values in (("ttft_ms", ttft), ("tpot_ms", tpot), ("e2e_ms", e2e))
        for p, level in LEVELS.items()
        if len(values) >= (LEAST_FOR_P99 if p == "p99" else 1)
    }


def _edges(window: str) -> tuple[float, float] | None:
    """Return the ends of a window in ns; None where it ends with the last reply."""
    found = re.match(r"([\d.e+-]+) s to ([\d.e+-]+) s", window)
    return (float(found[1]) * NS_PER_S, float(found[2]) * NS_PER_S) if found else None


def _rates(log: _Log, edges: tuple[float, float] | None, users: int | None) -> dict[str, Truth]:
    done, when = log.last[log.ok], _token_times(log)
    if edges is None:
        rows = log.measured & log.ok
        seconds = (np.nanmax(log.ended[rows]) - np.nanmin(log.came[rows])) / NS_PER_S if rows.any() else math.nan
        amounts = {"completed_rps": float(rows.sum()), "output_tokens_per_s": float(log.tokens[rows].sum())}
        return {
            f"{name} value": Truth.exactly(float(amount / seconds)) for name, amount in amounts.items() if seconds > 0
        }
    found = {
        "completed_rps value": _rate_within(done, edges),
        "output_tokens_per_s value": _rate_within(when, edges),
    }
    if users is not None:
        begin, end = edges
        inside = np.minimum(log.ended, end) - np.maximum(log.came, begin)
        found[LOAD] = Truth.exactly(float(np.nansum(np.maximum(inside, 0.0))) / (end - begin))
    return found


def _rate_within(moments: Floats, edges: tuple[float, float]) -> Truth:
    begin, end = edges

    def count(margin: float) -> float:
        return float(((moments >= begin - margin) & (moments < end + margin)).sum())

    seconds = (end - begin) / NS_PER_S
    return Truth(count(-EDGE_NS) / seconds, count(EDGE_NS) / seconds)


def _token_times(log: _Log) -> Floats:
    """Return when each token left, spread evenly between the first and the last of its reply."""
    rows = np.isfinite(log.first) & (log.tokens > 0)
    sizes = log.tokens[rows].astype(np.int64)
    index = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    gaps = (log.last - log.first)[rows] / np.maximum(sizes - 1, 1)
    times: Floats = np.repeat(log.first[rows], sizes) + index * np.repeat(gaps, sizes)
    return times


def floor(key: str) -> float:
    """Return the least that matters: 1 ms of TTFT and E2E."""
    return 0.0 if key.startswith("tpot_ms") or key.endswith("value") else 1.0


def tolerance(key: str, truth: float) -> float:
    """Return by how much a number may be off: 5 %, p99 10 %, rates and the load 3 %; at least the floor."""
    share = 0.03 if key.endswith("value") else 0.10 if key.endswith("p99") else 0.05
    return max(share * abs(truth), floor(key))
