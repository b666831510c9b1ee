"""Requests that the plan gives up: whoever is fast among them would make the others look slow, so they judge nothing.

The plan draws who gives up, whatever the server does, so that those who stay are a fair sample.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from harness.analysis.facts import errors_of
from harness.analysis.latencies import observe, of_each
from harness.analysis.reading import read
from harness.analysis.stats import Floats
from harness.analysis.summary import summarise
from harness.records import Record, Status
from tests.fabricated import MS, S, failed, streamed, trial_of, value

N = 4000
GIVES_UP_MS = 1000.0
SLO = {"ttft_ms": None, "tpot_ms": None, "e2e_ms": 4000.0, "stall_ms": None}


def tried(request: int, service_ms: float, *, gives_up: bool) -> Record:
    """A request every 10 ms, its first token after half of the service and the second at the end, given up by then or
    not.
    """
    due_ms = 10.0 * request
    record = streamed(request, due_ms, ttft_ms=service_ms / 2, tokens=2, gap_ms=service_ms / 2)
    if not gives_up:
        return record
    record.planned_cancel_ns = round(GIVES_UP_MS * MS)
    if service_ms <= GIVES_UP_MS:
        return record
    record.status, record.done_ns, record.output_tokens = Status.CANCELLED, round((due_ms + GIVES_UP_MS) * MS), None
    seen = 1 if service_ms / 2 <= GIVES_UP_MS else 0
    record.chunk_ns, record.chunk_tokens = (record.chunk_ns or [])[:seen], [1] * seen
    if not seen:
        record.first_byte_ns = record.first_token_ns = record.first_answer_ns = None
    record.last_token_ns = record.first_token_ns
    return record


@pytest.fixture(scope="module")
def services_ms() -> Floats:
    """Exponential with mean 2 s, at the 4,000 middles of equal shares, in random order."""
    exact: Floats = -2000.0 * np.log1p(-(np.arange(N) + 0.5) / N)
    return np.random.default_rng(1).permutation(exact)


@pytest.fixture(scope="module")
def summary(services_ms: Floats) -> pd.DataFrame:
    """Each service comes twice in a row, once by a request that the plan gives up and once by one that it does not."""
    records = [tried(i, float(services_ms[i // 2]), gives_up=i % 2 == 0) for i in range(2 * N)]
    return summarise([trial_of(records, end_s=N / 50, slo=SLO)])


@pytest.mark.parametrize(("statistic", "share"), [("p50", 0.5), ("p95", 0.95)])
def test_latencies_are_those_of_whom_the_plan_lets_wait(summary: pd.DataFrame, statistic: str, share: float) -> None:
    """p50 1,386 and p95 5,991 ms, half of it to the first token; the survivors of a give-up would say 854 and 5,274."""
    truth_ms = -2000 * math.log(1 - share)
    e2e, ttft = (value(summary, name, statistic) for name in ("e2e_ms", "ttft_ms"))
    assert (e2e["n"], ttft["n"]) == (N, N)
    assert e2e["value"] == pytest.approx(truth_ms, rel=0.003)
    assert ttft["value"] == pytest.approx(truth_ms / 2, rel=0.003)
    assert value(summary, "tpot_ms", statistic)["value"] == pytest.approx(truth_ms / 2, rel=0.003)
    assert value(summary, "norm_latency_ms", statistic)["value"] == pytest.approx(truth_ms / 2, rel=0.003)


def test_attainment_is_that_of_whom_the_plan_lets_wait(summary: pd.DataFrame) -> None:
    """1 - exp(-2) end within 4 s; nobody failed."""
    attained, errors = value(summary, "attainment"), value(summary, "error_rate")
    assert (attained["n"], errors["n"], errors["value"]) == (N, N, 0)
    assert attained["value"] == pytest.approx(1 - math.exp(-2), abs=0.0003)


def test_a_give_up_that_was_not_needed_counts_in_no_latency() -> None:
    """It would have been needed, had the reply been slow: end, gaps, time per token, good and bad are of the others."""
    slow = streamed(0, 0, ttft_ms=300, gap_ms=30)
    quick = streamed(1, 10, ttft_ms=100, gap_ms=10, planned_cancel_ns=S)
    columns = read(trial_of([slow, quick])).columns
    assert columns.planned_cancel.tolist() == [False, True]
    found = {name: one.values.tolist() for name, one in observe(columns.measured).items()}
    assert found["e2e_ms"] == found["e2e_service_ms"] == found["e2e_close_ms"] == [570.0]
    assert found["tpot_ms"] == found["tpot_adj_ms"] == found["stall_max_ms"] == [30.0]
    assert found["icl_ms"] == found["itl_ms"] == [30.0] * 9
    assert found["norm_latency_ms"] == [57.0]
    assert found["ttft_ms"] == found["ttfb_ms"] == [300.0, 100.0]  # it was seen, as every one's was
    each = of_each(columns)
    assert np.isnan(each["e2e_ms"]).tolist() == np.isnan(each["tpot_ms"]).tolist() == [False, True]


def given_up_early(request: int, due_ms: float) -> Record:
    """Cancelled before its first token."""
    return failed(request, due_ms, Status.CANCELLED, 50, planned_cancel_ns=50 * MS)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (given_up_early(2, 20), [200.0]),
        (failed(2, 20, Status.HTTP_ERROR, 5, planned_cancel_ns=50 * MS), [200.0, 100.0]),
        (failed(2, 20, Status.CONNECTION_ERROR, 5, planned_cancel_ns=50 * MS), [200.0, 100.0]),
        (streamed(2, 20, ttft_ms=50, status=Status.CANCELLED), [200.0, 100.0, 50.0]),
    ],
    ids=["none came", "refused", "lost", "one came"],
)
def test_first_tokens_count_where_each_had_one(other: Record, expected: list[float]) -> None:
    """One that was given up before hides how long it would have taken: then none of them counts; one that failed hides
    nothing.
    """
    records = [streamed(0, 0, ttft_ms=200), streamed(1, 10, ttft_ms=100, planned_cancel_ns=S), other]
    columns = read(trial_of(records)).columns
    assert observe(columns.measured)["ttft_ms"].values.tolist() == expected
    assert np.isnan(of_each(columns)["ttft_ms"]).sum() == 3 - len(expected)


def test_a_slow_server_does_not_look_fast_because_the_slow_are_given_up() -> None:
    """Twice as slow, half given up after 1 s: 100 ms and 200 ms to the first token, whoever saw one."""
    found = []
    for slower in (1, 2):
        ttft = [slower * one for one in (50, 100, 150, 700)]
        records = []
        for i in range(40):
            mine = ttft[i // 2 % 4]
            if i % 2:
                records.append(streamed(i, i * 10, ttft_ms=mine, tokens=1))
            elif mine > GIVES_UP_MS:
                records.append(failed(i, i * 10, Status.CANCELLED, GIVES_UP_MS, planned_cancel_ns=S))
            else:
                records.append(streamed(i, i * 10, ttft_ms=mine, tokens=1, planned_cancel_ns=S))
        found.append(value(summarise([trial_of(records, end_s=1.0)]), "ttft_ms", "p50")["value"])
    assert found == [100, 200]


def test_an_error_of_whoever_gives_up_is_told_but_in_no_share() -> None:
    """It stands among the errors of the trial; `error_rate` is of the four who stay."""
    records = [streamed(i, 100 * i) for i in range(3)]
    records += [failed(3, 300, Status.HTTP_ERROR, 5), failed(4, 400, Status.HTTP_ERROR, 5, planned_cancel_ns=S)]
    trial = trial_of(records, end_s=1.0, slo=SLO)
    found = summarise([trial])
    assert (value(found, "error_rate")["value"], value(found, "error_rate")["n"]) == (0.25, 4)
    assert (value(found, "attainment")["value"], value(found, "attainment")["n"]) == (0.75, 4)
    assert [error["requests"] for error in errors_of(trial.records())] == [2]


def test_runs_that_do_not_tell_the_plan_are_judged_by_what_came_of_it() -> None:
    """Their column is null: who was cancelled is known, who might have been is not."""
    records = [streamed(0, 0), streamed(1, 10, status=Status.CANCELLED)]
    reading = read(trial_of(records))
    assert reading.frame["planned_cancel_ns"].isna().all()
    assert reading.columns.planned_cancel.tolist() == [False, True]
