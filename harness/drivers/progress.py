"""Progress of a trial, updated per record: counts and the last few latencies, in constant memory.

Adding a record costs a few comparisons, because it happens between two requests. `facts` does the rest. Rates are
differences between two calls of `facts`.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

from harness.drivers.timeline import NS_PER_S, NowNs
from harness.records import Loop, Phase, Record, Status, exhausted, read_late
from harness.schedule.chains import Int64
from harness.schedule.requests import Schedule
from harness.schedule.timing import Window

RECENT = 50
SILENT_AFTER = 10
RATE_OVER_S = 5.0
RATE_AT_LEAST_OVER_S = 1.0
MOST_LOOKS = 64
LONGEST_REASON = 60
_NO_FAILURE = (Status.OK, Status.CANCELLED)
_WORDS = {
    Status.HTTP_ERROR: "an HTTP error",
    Status.REJECTED: "rejected",
    Status.STREAM_ERROR: "an error inside the reply",
    Status.TRUNCATED: "incomplete reply",
    Status.EMPTY: "an empty reply",
    Status.TIMEOUT: "timed out",
    Status.CONNECTION_ERROR: "no connection",
    Status.UNFINISHED: "unfinished",
    Status.NOT_SENT: "not sent",
}


class Progress:
    """Counts of one trial. Latencies cover only the most recent requests: an indication, not a result.

    `now_ns` is the clock of the calls. Records have offsets from T0 on a clock of the same speed.
    """

    def __init__(self, schedule: Schedule, now_ns: NowNs = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._schedule = schedule
        self._statuses: Counter[str] = Counter()
        self._recent: deque[Record] = deque(maxlen=RECENT)
        self._tokens = 0
        self._warm_up_first_tokens = self._warm_up_read_late = 0
        self._last_failed: Record | None = None
        self._looks: deque[tuple[int, int, int]] = deque(maxlen=MOST_LOOKS)
        self._t0_ns: int | None = None
        self._last_done_ns = 0
        self._unreachable = 0
        self._unreachable_since_ns: int | None = None
        self._unreachable_reason = ""

    @property
    def _due_ns(self) -> Int64 | None:
        return self._schedule.due_ns if self._schedule.loop is Loop.OPEN else None

    @property
    def _window(self) -> Window:
        return self._schedule.window

    def add(self, record: Record) -> None:
        """Count one finished request."""
        self._statuses[record.status] += 1
        if record.done_ns is not None:
            self._last_done_ns = max(self._last_done_ns, record.done_ns)
        if record.output_tokens is not None:
            self._tokens += record.output_tokens
        if record.phase == Phase.WARMUP and record.first_token_ns is not None:
            self._warm_up_first_tokens += 1
            self._warm_up_read_late += read_late(record)
        self._recent.append(record)
        if record.status not in _NO_FAILURE:
            self._last_failed = record
        if record.status == Status.CONNECTION_ERROR and not exhausted(record.error):
            self._unreachable += 1
            if self._unreachable_since_ns is None:
                self._unreachable_since_ns = record.done_ns
                self._unreachable_reason = record.error or ""
        elif record.status == Status.OK:
            self._unreachable, self._unreachable_since_ns = 0, None

    def silence(self) -> str | None:
        """Return the reason if the trial ended in an unbroken row of failed connections, and since when."""
        everything = self._statuses.total() - self._statuses[Status.NOT_SENT]
        if self._unreachable < min(SILENT_AFTER, max(1, everything)) or self._unreachable_since_ns is None:
            return None
        since = f"from {self._unreachable_since_ns / 1e9:.1f} s on to the end ({self._unreachable} requests)"
        return f"the server could not be reached {since}: {self._unreachable_reason}"

    def facts(self) -> dict[str, Any]:
        """Return the values of a display.

        Rates cover the last seconds. `ttft_ms` and `tpot_ms` are medians of the last requests, `send_lag_ms` and
        `read_lag_ms` maxima. `elapsed_s` counts from T0, None before anything ended. `due` counts the requests that had
        to be sent by now (open loops). `phase` is the present one, by the last request that ended. Of the warm-up, the
        first tokens are counted, and those of them that were read late.
        """
        end_ns = self._window.end_ns
        return {
            "done": self._statuses.total(),
            "planned": self._schedule.to_be_done,
            "ends_s": None if end_ns is None else end_ns / 1e9,
            "failed": self._statuses.total() - self._statuses[Status.OK] - self._statuses[Status.CANCELLED],
            "last_failure": None if self._last_failed is None else in_words(self._last_failed),
            "phase": str(self._window.phase_of(self._last_done_ns)),
            "warm_up_first_tokens": self._warm_up_first_tokens,
            "warm_up_read_late": self._warm_up_read_late,
            **_latencies(self._recent),
            **self._look(),
        }

    def _look(self) -> dict[str, float | None]:
        """Return the rates since an earlier call, and the planned number of requests by now."""
        now_ns = self._now_ns()
        self._looks.append((now_ns, self._statuses[Status.OK], self._tokens))
        while len(self._looks) > 2 and now_ns - self._looks[1][0] >= RATE_OVER_S * NS_PER_S:
            self._looks.popleft()
        then_ns, completed, tokens = self._looks[0]
        seconds = (now_ns - then_ns) / NS_PER_S
        if self._last_done_ns:  # T0 is the earliest time consistent with all offsets seen
            seen_ns = now_ns - self._last_done_ns
            self._t0_ns = seen_ns if self._t0_ns is None else min(self._t0_ns, seen_ns)
        elapsed_s = None if self._t0_ns is None else (now_ns - self._t0_ns) / NS_PER_S
        found: dict[str, float | None] = {"due": None}
        counts = {"completed_rps": self._statuses[Status.OK] - completed, "tokens_per_s": self._tokens - tokens}
        if self._due_ns is not None and elapsed_s is not None:
            now, before = (int((elapsed_s - ago) * NS_PER_S) for ago in (0.0, seconds))
            first, last = (int(self._due_ns.searchsorted(moment, "right")) for moment in (before, now))
            found["due"], counts["offered_rps"] = last, last - first
        enough = seconds >= RATE_AT_LEAST_OVER_S
        rates = {name: number / seconds if enough else None for name, number in counts.items()}
        return {"elapsed_s": elapsed_s, "offered_rps": None, **found, **rates}


def together(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Combine the `Progress.facts` of several processes that share a plan; empty if there are none."""
    if not reports:
        return {}

    def known(name: str) -> list[Any]:
        return [one[name] for one in reports if one.get(name) is not None]

    found: dict[str, Any] = {
        name: sum(known(name)) for name in ("done", "failed", "warm_up_first_tokens", "warm_up_read_late")
    }
    found |= {name: sum(known(name)) if known(name) else None for name in ("completed_rps", "tokens_per_s")}
    found |= {name: _median(known(name)) for name in ("ttft_ms", "tpot_ms")}
    largest = ("send_lag_ms", "read_lag_ms", "elapsed_s", "due", "offered_rps")  # each process knows the whole plan
    found |= {name: max(known(name), default=None) for name in largest}
    found["last_failure"] = next(iter(known("last_failure")), None)
    found["phase"] = max(known("phase"), key=list(Phase).index)
    return found


def in_words(record: Record) -> str:
    """Return a short reason for which a request failed."""
    if record.http_status is not None and record.status in (Status.HTTP_ERROR, Status.REJECTED):
        return f"HTTP {record.http_status}"
    words = _WORDS.get(Status(record.status), record.status)
    reason = " ".join((record.error or "").split())
    if record.status in (Status.CONNECTION_ERROR, Status.STREAM_ERROR) and reason:
        return reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…"
    return words


def _latencies(records: Iterable[Record]) -> dict[str, float | None]:
    found: dict[str, list[float]] = {name: [] for name in ("ttft_ms", "tpot_ms", "send_lag_ms", "read_lag_ms")}
    for one in records:
        held_ns = one.held_ns or 0
        start_ns = one.due_ns if one.loop != Loop.CLOSED or one.sent_ns is None else one.sent_ns - held_ns
        if start_ns is not None and one.first_token_ns is not None:
            found["ttft_ms"].append((one.first_token_ns - start_ns) / 1e6)
        if one.due_ns is not None and one.sent_ns is not None:
            found["send_lag_ms"].append((one.sent_ns - one.due_ns - held_ns - (one.accepting_ns or 0)) / 1e6)
        tokens = _shown(one)
        if tokens > 1 and one.first_token_ns is not None:
            last_ns = one.first_token_ns if one.last_token_ns is None else one.last_token_ns
            found["tpot_ms"].append((last_ns - one.first_token_ns) / (tokens - 1) / 1e6)
        if one.chunk_lag_ns and one.chunk_lag_ns[0] >= 0:
            found["read_lag_ms"].append(one.chunk_lag_ns[0] / 1e6)
    medians = {name: _median(found[name]) for name in ("ttft_ms", "tpot_ms")}
    return medians | {name: max(found[name], default=None) for name in ("send_lag_ms", "read_lag_ms")}


def _shown(record: Record) -> int:
    """Count output tokens without reasoning that was counted but not shown; see `Columns.shown_tokens`."""
    tokens, hidden = record.output_tokens or 0, record.reasoning_tokens or 0
    return tokens - hidden if hidden < tokens and record.first_answer_ns == record.first_token_ns else tokens


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
