"""One fabricated trial for each doubt, whose sentences docs/caveats.md quotes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.records import Record
from harness.store.manifest import SearchEntry, SearchVisit
from harness.verdict.reason import Reason, Validity
from tests.fabricated import MS, FabricatedTrial, S, changed, failed, noisy, streamed, trial_of
from tests.judged import judged


def late() -> FabricatedTrial:
    """Every twentieth request leaves 60 ms late, on a busy machine."""
    records = [
        streamed(i, i * 20.0, ttft_ms=80 + lag, lag_ms=lag)
        for i in range(3000)
        for lag in [60.0 if i % 20 == 0 else 0.1]
    ]
    return trial_of(records, client={"cpu_peak_share": 0.97})


def slow() -> FabricatedTrial:
    """Sixty-four users who are sent again 75 ms after each reply of 1,315 ms."""
    records: list[Record] = []
    for i in range(64 * 20):
        due = (i // 64) * 1390.0 + i % 64
        records.append(streamed(i, due, ttft_ms=155, tokens=124, lag_ms=75, loop="closed", user=i % 64))
    return trial_of(records, loop="closed", end_s=None)


def read_late() -> FabricatedTrial:
    """A tenth of the first tokens bear the stamp of the fourth chunk."""
    records = []
    for i in range(600):
        one = streamed(i, i * 100.0, ttft_ms=80.0 + i % 3)
        if i % 10 == 0:
            times = list(one.chunk_ns or ())
            times[:4] = [times[3]] * 4
            reads, waits = [0] * 4 + list(range(1, 7)), [30 * MS] * 4 + [0] * 6
            changed(one, chunk_ns=times, first_token_ns=times[0], chunk_read=reads, chunk_lag_ns=waits)
        records.append(one)
    return trial_of(records)


def overload() -> FabricatedTrial:
    """One request every 100 ms, each taking 130 ms of a single slot."""
    ended, records = 0.0, []
    for i in range(300):
        begin = max(i * 100.0, ended)
        ended = begin + 130.0
        records.append(streamed(i, i * 100.0, ttft_ms=begin - i * 100.0 + 40.0, lag_ms=0))
    return trial_of(records, end_s=30.0)


def warming_up() -> FabricatedTrial:
    """Four times as slow at the beginning, for 10 s of 60."""
    return trial_of(
        [streamed(i, i * 100.0, ttft_ms=80 * (4 - 3 * min(1, i / 100)) + i % 7, lag_ms=0) for i in range(600)]
    )


def drifting() -> FabricatedTrial:
    """A fifth slower at the end than at the beginning."""
    return trial_of([streamed(i, i * 100.0, ttft_ms=100 * (1 + i / 3000) + i % 5, lag_ms=0) for i in range(600)])


def frozen() -> FabricatedTrial:
    """No token between 5 s and 7 s."""
    records = []
    for i in range(600):
        due = i * 20.0
        wait = max(0.0, 7000.0 - due) if due >= 4950.0 else 0.0
        records.append(streamed(i, due, ttft_ms=50.0 + wait, tokens=4, gap_ms=5.0))
    return trial_of(records, end_s=12.0)


def all_of(n: int = 600, client: dict[str, Any] | None = None, **changes: Any) -> FabricatedTrial:
    """Healthy requests, all changed alike."""
    return trial_of([changed(one, **changes) for one in noisy(1, n)], client=client or {})


def refused() -> FabricatedTrial:
    """Three in a hundred fail."""
    records = noisy(1, 600)
    records[::33] = [failed(one.request, (one.due_ns or 0) / MS, "http_error", 5) for one in records[::33]]
    return trial_of(records)


def searching(end_s: float) -> SearchEntry:
    """A search with a ramp of 10 s and a measurement until `end_s`, both at 10/s."""
    spans_s = {"ramp": (0.0, 10.0), "confirm": (10.0, end_s)}
    visits = [
        SearchVisit(state=state, rate=10.0, start_ns=round(a * S), end_ns=round(b * S), counted_from_ns=round(a * S))
        for state, (a, b) in spans_s.items()
    ]
    return SearchEntry(attainment=0.95, width=0.066, ended="largest_rate", visits=visits)


EXAMPLES: dict[str, Callable[[], FabricatedTrial]] = {
    "load_missing": lambda: trial_of(noisy(1), planned={"measure": 612, "warmup": 0}),
    "errors": refused,
    "client_late": late,
    "client_slow": slow,
    "arrivals": read_late,
    "not_steady": drifting,
    "warm_up": warming_up,
    "overload": overload,
    "token_counts": lambda: all_of(output_tokens=80, chunk_tokens=None),
    "lengths": lambda: all_of(output_tokens=20, requested_output_tokens=40),
    "prompts": lambda: trial_of(
        [changed(one, requested_prompt_tokens=400, prompt_tokens=100) for one in noisy(1)],
        prompt_length_source={"default": "tokenizer"},
    ),
    "not_streamed": lambda: trial_of(
        [streamed(i, i * 100.0, ttft_ms=360.0, tokens=32, gap_ms=0.01, chunk_read=[0] * 32) for i in range(100)]
    ),
    "machine": lambda: trial_of(noisy(1), others_on_gpus=2),
    "stall": frozen,
    "search_late": lambda: trial_of(late().made, search=searching(60.0), slo={"ttft_ms": 500.0}),
    "search_missed": lambda: trial_of(noisy(1), search=searching(60.0), slo={"ttft_ms": 60.0}),
}


def example(code: str) -> Reason:
    """Return the doubt of an example."""
    found: Validity = judged(EXAMPLES[code]())
    return next(one for one in found.reasons if one.code == code)
