"""The battery in virtual time: fabricated trials of known truth, and their verdicts (docs/battery.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.analysis.stats import Floats, quantile
from harness.records import Record
from harness.verdict.reason import Level, Validity
from tests.fabricated import MS, changed, failed, streamed, trial_of
from tests.judged import judged

EVERY_MS, TTFT_MS, GAP_MS, TOKENS = 20.0, 50.0, 10.0, 10
LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
FLOOR_MS = 1.0


@dataclass(frozen=True)
class Made:
    """A fabricated trial.

    Attributes:
        ttft_ms: True times to the first token: from due for a load generator that is never late.
        changes: To the manifest's entry of the trial.
    """

    records: Sequence[Record]
    ttft_ms: Floats
    changes: dict[str, Any] = field(default_factory=dict)

    def judged(self) -> Validity:
        """The validity of the trial."""
        due_ns = self.records[-1].due_ns or 0
        own: dict[str, Any] = {
            "end_s": due_ns / 1e9 + EVERY_MS / 1e3,
            "planned": {"warmup": 0, "measure": len(self.records)},
        }
        return judged(trial_of(self.records, **(own | self.changes)))


def served(n: int = 1000, seed: int = 1) -> Floats:
    """True times to the first token of a steady server."""
    times: Floats = TTFT_MS * np.random.default_rng(seed).lognormal(0, 0.03, n)
    return times


def every(k: int, value: float, n: int = 1000, otherwise: float = 0.0) -> Floats:
    """The value for each so-many-th request."""
    values: Floats = np.where(np.arange(n) % k == k - 1, value, otherwise)
    return values


def opened(ttft_ms: Floats, lag_ms: Floats | float = 0.05, gap_ms: Floats | float = GAP_MS) -> list[Record]:
    """Open loop at a constant rate; latencies count from due and hold the lag."""
    lags, gaps = (np.broadcast_to(one, ttft_ms.shape) for one in (lag_ms, gap_ms))
    return [
        streamed(i, i * EVERY_MS, ttft_ms=float(first + lag), gap_ms=float(gap), tokens=TOKENS, lag_ms=float(lag))
        for i, (first, lag, gap) in enumerate(zip(ttft_ms, lags, gaps, strict=True))
    ]


def closed(ttft_ms: Floats, lag_ms: Floats | float, users: int = 4) -> list[Record]:
    """Closed loop whose users are sent again so long after each reply."""
    lags = np.broadcast_to(lag_ms, ttft_ms.shape)
    records, due_ms = [], [0.0] * users
    for i, (first, lag) in enumerate(zip(ttft_ms, lags, strict=True)):
        user = i % users
        one = streamed(i, due_ms[user], ttft_ms=float(first + lag), tokens=TOKENS, lag_ms=float(lag))
        records.append(changed(one, loop="closed", user=user))
        due_ms[user] = (records[-1].done_ns or 0) / MS
    return records


def read_late(record: Record, together: int) -> Record:
    """The first tokens were read in one read, late: all bear the stamp of the last of them."""
    times = list(record.chunk_ns or ())
    after = len(times) - together
    times[:together] = [times[together - 1]] * together
    waits = [round((together - 1) * GAP_MS * MS)] * together + [0] * after
    reads = [0] * together + list(range(1, after + 1))
    seen = {"first_token_ns": times[0], "first_answer_ns": times[0], "first_byte_ns": times[0]}
    return changed(record, chunk_ns=times, chunk_lag_ns=waits, chunk_read=reads, **seen)


def on_time() -> Made:
    """Everything as it should be."""
    return Made(opened(served()), served())


def late(lag_ms: Floats | float) -> Made:
    """Requests that leave late."""
    return Made(opened(served(), lag_ms), served())


def merged(k: int, lag_ms: Floats | float = 0.05) -> Made:
    """Each so-many-th first token was read with the three behind it."""
    records = opened(served(), lag_ms)
    return Made([read_late(one, 4) if i % k == 0 else one for i, one in enumerate(records)], served())


def frozen() -> Made:
    """The server sends nothing from 8 to 10 s, and what was due by then at its end."""
    begin_ns, end_ns = 8_000 * MS, 10_000 * MS
    records = opened(served())
    for one in records:
        times = [end_ns + i if begin_ns <= ns < end_ns else ns for i, ns in enumerate(one.chunk_ns or ())]
        first, last = times[0], max(times)
        changed(one, chunk_ns=times, first_token_ns=first, first_answer_ns=first, first_byte_ns=first)
        changed(one, last_token_ns=last, done_ns=last)
    return Made(records, np.array([((one.first_token_ns or 0) - (one.sent_ns or 0)) / MS for one in records]))


def changing(factor: Callable[[Floats], Floats]) -> Made:
    """A server whose times change by a factor of the time in seconds."""
    seconds = np.asarray(np.arange(1000) * EVERY_MS / 1e3, dtype=np.float64)
    by = factor(seconds)
    ttft_ms: Floats = served() * by
    return Made(opened(ttft_ms, gap_ms=GAP_MS * by), ttft_ms)


def drift(s: Floats) -> Floats:
    """2 % a second."""
    return 1 + 0.02 * s


def warm_up(s: Floats) -> Floats:
    """Four times slower at first, for 6 s."""
    return 1 + 3 * np.clip(1 - s / 6, 0, 1)


def overloaded() -> Made:
    """1.3 times as many requests as the server completes."""
    ttft_ms: Floats = served() + 0.3 * EVERY_MS * np.arange(1000)
    return Made(opened(ttft_ms), ttft_ms)


def told(**stored: Any) -> Made:
    """Replies of which the server says something else."""
    return Made([changed(one, **stored) for one in opened(served())], served())


def shortened() -> Made:
    """Replies of half the length that was requested."""
    return told(requested_output_tokens=2 * TOKENS)


def failing(k: int) -> Made:
    """All but each so-many-th request fail if k < 0, each k-th if k > 0."""
    records = opened(served())
    bad = [(i % abs(k) == 0) is (k > 0) for i in range(len(records))]
    made = [failed(i, i * EVERY_MS, "http_error", 5) if bad[i] else one for i, one in enumerate(records)]
    return Made(made, served()[~np.array(bad)])


def held_back() -> Made:
    """A proxy sends each reply in one piece at its end."""
    records = []
    for i, first_ms in enumerate(served()):
        whole_ms = float(first_ms) + (TOKENS - 1) * GAP_MS
        records.append(streamed(i, i * EVERY_MS, ttft_ms=whole_ms, tokens=TOKENS, per_chunk=TOKENS))
    return Made(records, served() + (TOKENS - 1) * GAP_MS)


def incomplete(missing: int) -> Made:
    """Requests without a record."""
    records = opened(served())
    return Made(records, served(), {"planned": {"warmup": 0, "measure": len(records) + missing}})


def users(lag_ms: float) -> Made:
    """A load generator that takes so long to send again."""
    return Made(closed(served(), lag_ms), served(), {"loop": "closed", "end_s": None})


def stamped_by_a_late_loop() -> Made:
    """Arrivals that the event loop stamped, 60 ms late at p99 of its beats."""
    records = [changed(one, clock="loop", chunk_lag_ns=None) for one in opened(served())]
    return Made(records, served(), {"client": {"heartbeat_p99_ms": 60.0}})


WARN, INVALID = Level.WARN, Level.INVALID
STEADY = ("not_steady", "warm_up")
SICK: dict[str, tuple[Callable[[], Made], tuple[str, ...], Level, str]] = {
    "one in ten sent 20 ms late": (lambda: late(every(10, 20.0)), ("client_late",), WARN, "tpot_ms"),
    "all sent 30 ms late": (lambda: late(30.0), ("client_late",), INVALID, "tpot_ms"),
    "one in five read late": (lambda: merged(5), ("arrivals",), WARN, "error_rate"),
    "sent and read late": (lambda: merged(5, every(10, 20.0)), ("client_late", "arrivals"), WARN, "error_rate"),
    "stamped by a late loop": (stamped_by_a_late_loop, ("arrivals",), WARN, "error_rate"),
    "frozen for 2 s": (frozen, ("stall",), WARN, "error_rate"),
    "2 %/s slower": (lambda: changing(drift), STEADY, WARN, "error_rate"),
    "warming up": (lambda: changing(warm_up), STEADY, WARN, "error_rate"),
    "overload": (overloaded, ("overload", "not_steady"), WARN, "error_rate"),
    "usage of twice the tokens": (lambda: told(output_tokens=2 * TOKENS), ("token_counts",), INVALID, "ttft_ms"),
    "usage of half the tokens": (lambda: told(output_tokens=TOKENS // 2), ("token_counts",), INVALID, "ttft_ms"),
    "replies half as long": (shortened, ("lengths",), WARN, "ttft_ms"),
    "prompts of a quarter": (lambda: told(prompt_tokens=5), ("prompts",), WARN, "tpot_ms"),
    "3 % errors": (lambda: failing(33), ("errors",), WARN, "memory_peak_bytes"),
    "two in three fail": (lambda: failing(-3), ("errors",), INVALID, "memory_peak_bytes"),
    "replies in one piece": (held_back, ("not_streamed",), WARN, "e2e_ms"),
    "1 of 1,000 records missing": (lambda: incomplete(1), ("load_missing",), WARN, "memory_peak_bytes"),
    "20 of 1,000 records missing": (lambda: incomplete(20), ("load_missing",), INVALID, "memory_peak_bytes"),
    "20 ms to send again": (lambda: users(20.0), ("client_slow",), WARN, "ttft_ms"),
    "100 ms to send again": (lambda: users(100.0), ("client_slow",), INVALID, "ttft_ms"),
}
HEALTHY: dict[str, Callable[[], Made]] = {
    "on time": on_time,
    "all sent 1.2 ms late": lambda: late(1.2),
    "three in a thousand sent 90 ms late": lambda: late(every(333, 90.0)),
    "three in a thousand read late": lambda: merged(333),
    "two errors in a thousand": lambda: failing(500),
    "2 ms to send again": lambda: users(2.0),
}


@cache
def sick(name: str) -> tuple[Made, Validity]:
    """Return a sick trial and its judgement."""
    made = SICK[name][0]()
    return made, made.judged()


@pytest.mark.parametrize("name", SICK)
def test_the_first_doubt_names_the_sickness_and_spares_what_is_well(name: str) -> None:
    """Its code, its level, and a metric that it has nothing to do with."""
    _, codes, level, well = SICK[name]
    _, found = sick(name)
    assert found.verdict is level
    assert found.reasons[0].code in codes
    assert found.reasons[0].sentence
    assert found.level_of(well) is Level.VALID


@pytest.mark.parametrize("name", SICK)
def test_the_truth_lies_within_the_stated_effect(name: str) -> None:
    """The ends that a doubt about TTFT states hold what a load generator without delays would have seen."""
    made, found = sick(name)
    stated = [one for reason in found.reasons for one in reason.effects if one.metric == "ttft_ms"]
    for effect in stated:
        truth = quantile(made.ttft_ms, LEVELS[effect.statistic])
        assert effect.low - FLOOR_MS <= truth <= effect.high + FLOOR_MS, effect


@pytest.mark.parametrize("name", HEALTHY)
def test_what_moves_no_number_is_no_doubt(name: str) -> None:
    """Every shown number is within its tolerance."""
    assert HEALTHY[name]().judged().reasons == ()


@settings(max_examples=12)
@given(n=st.floats(2, 4.3).map(lambda power: int(10**power)), is_closed=st.booleans(), seed=st.integers(0, 2**32))
@example(n=100, is_closed=False, seed=1)
@example(n=20_000, is_closed=True, seed=1)
def test_rare_hiccups_are_no_doubt_however_long_the_trial(n: int, is_closed: bool, seed: int) -> None:
    """No threshold of zero on a count that grows: one request in a thousand is sent, read or served late."""
    rng = np.random.default_rng(seed)
    ttft_ms, lag_ms = served(n, seed), np.full(n, 0.05)
    hiccups = rng.choice(n, 1 + n // 1000, replace=False)
    kinds = rng.integers(0, 3, len(hiccups))
    ttft_ms[hiccups[kinds == 0]] *= 5
    lag_ms[hiccups[kinds == 1]] = rng.uniform(5, 100)
    records = closed(ttft_ms, lag_ms) if is_closed else opened(ttft_ms, lag_ms)
    for i in hiccups[kinds == 2]:
        read_late(records[i], 4)
    noise = {"throttled_periods": n // 500, "throttled_ms": n / 50, "heartbeat_p99_ms": 4.0, "connect_errors": 0}
    changes: dict[str, Any] = {"loop": "closed", "end_s": None} if is_closed else {}
    assert Made(records, ttft_ms, changes | {"client": noise}).judged().reasons == ()
