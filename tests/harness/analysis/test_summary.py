"""Analysis: known answers for every definition."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.latencies import observe
from harness.analysis.reading import read
from harness.analysis.summary import COLUMNS, summarise
from harness.metrics import METRICS
from harness.records import Record, Sample
from tests.estimates import quantile_estimate
from tests.fabricated import MS, FabricatedTrial, S, cell_entry, failed, noisy, streamed, trial_entry, trial_of, value


def test_tokens_per_second_count_arrivals_in_the_window() -> None:
    """2 requests/s, each 100 tokens evenly over 10 s, are 200 tokens/s; counting the drain too would say 171."""
    records = [
        streamed(i, i * 500.0, ttft_ms=100, tokens=100, gap_ms=100, phase=phase)
        for i, phase in enumerate(["warmup"] * 40 + ["measure"] * 120 + ["cooldown"] * 40)
    ]
    summary = summarise([trial_of(records, start_s=20.0, end_s=80.0)])
    found = value(summary, "output_tokens_per_s")
    assert found["value"] == pytest.approx(200.0, rel=0.005)
    assert value(summary, "offered_rps")["value"] == 2.0
    assert value(summary, "mean_concurrency")["value"] == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("kept", ["no chunks", "no counts"])
def test_tokens_per_second_without_chunk_data(kept: str) -> None:
    """Without arrival times tokens are spread between first and last; without counts chunks count alike."""
    kinds: dict[str, dict[str, Any]] = {
        "no chunks": {"chunk_ns": None, "chunk_tokens": None},
        "no counts": {"chunk_tokens": None},
    }
    changes = kinds[kept]
    records = [streamed(i, i * 500.0, ttft_ms=100, tokens=100, gap_ms=100, **changes) for i in range(160)]
    summary = summarise([trial_of(records, start_s=20.0, end_s=60.0)])
    assert value(summary, "output_tokens_per_s")["value"] == pytest.approx(200.0, rel=0.01)


@pytest.fixture(scope="module")
def censored_summary() -> pd.DataFrame:
    """9 700 good, 100 HTTP errors, 100 streams cut after the first token, 100 that hang until 30 s; a second of warm-up
    before.
    """
    rng = np.random.default_rng(1)
    kinds = rng.permutation(["good"] * 9700 + ["http"] * 100 + ["cut"] * 100 + ["hang"] * 100)
    made = {
        "good": lambda i: streamed(i, 1000 + i * 10.0, ttft_ms=20, tokens=9, gap_ms=10),
        "http": lambda i: failed(i, 1000 + i * 10.0, "http_error", 5, http_status=500),
        "cut": lambda i: streamed(i, 1000 + i * 10.0, ttft_ms=20, tokens=3, gap_ms=10, status="stream_error"),
        "hang": lambda i: failed(i, 1000 + i * 10.0, "timeout", 30_000),
    }
    warmup = [streamed(10_000 + i, i * 10.0, ttft_ms=20, tokens=9, phase="warmup") for i in range(100)]
    slo = {"ttft_ms": 50.0, "tpot_ms": None, "e2e_ms": 200.0, "stall_ms": None}
    records = [*warmup, *(made[kind](i) for i, kind in enumerate(kinds))]
    return summarise([trial_of(records, start_s=1.0, end_s=101.0, slo=slo)])


def test_failures_are_counted_exactly(censored_summary: pd.DataFrame) -> None:
    """Errors are 3 %, attainment 97 %, offered all of them."""
    assert value(censored_summary, "error_rate")["value"] == 0.03
    assert value(censored_summary, "attainment")["value"] == 0.97
    assert value(censored_summary, "offered_rps")["value"] == 100.0
    assert value(censored_summary, "goodput_rps")["value"] == 97.0


def test_hangs_are_censored_not_dropped(censored_summary: pd.DataFrame) -> None:
    """End to end has 9 800 observations; p95 is 100 ms, p99 is above 30 s."""
    p99 = value(censored_summary, "e2e_ms", "p99")
    assert (p99["n"], p99["bound"], p99["low"]) == (9800, "lower", 30_000.0)
    assert math.isnan(p99["value"])
    assert value(censored_summary, "e2e_ms", "p95")["value"] == 100.0
    assert value(censored_summary, "e2e_ms", "mean")["bound"] == "lower"
    assert value(censored_summary, "e2e_ms", "max")["low"] == 30_000.0


def test_the_rank_below_the_censored_ones_is_a_point(censored_summary: pd.DataFrame) -> None:
    """p98.9 of 9 800 is rank 9 693, still among the 9 700 that completed."""
    values = np.concatenate([np.full(9700, 100.0), np.full(100, np.inf)])
    assert quantile_estimate([values], 0.989, n_eff=9800).value == 100.0


def test_a_first_token_before_a_failure_counts(censored_summary: pd.DataFrame) -> None:
    """The population of ttft is 9 900: streams that were cut had their first token; p99 lies among the hangs."""
    p99 = value(censored_summary, "ttft_ms", "p99")
    assert (p99["n"], p99["bound"]) == (9900, "lower")
    assert value(censored_summary, "ttft_ms", "p95")["value"] == 20.0


def observed(*records: Record) -> dict[str, list[float]]:
    """The observations of a trial with these records."""
    columns = read(trial_of(records)).columns
    return {name: found.values.tolist() for name, found in observe(columns.measured).items()}


def test_chunks_of_four_tokens() -> None:
    """100 tokens in 25 chunks, 40 ms apart: tpot 960 / 99, adjusted 10, gaps 40, per token 10."""
    found = observed(streamed(0, 0, ttft_ms=200, tokens=100, per_chunk=4, gap_ms=40))
    assert found["e2e_ms"] == [1160.0]
    assert found["tpot_ms"] == [pytest.approx(960 / 99)]
    assert found["tpot_adj_ms"] == [pytest.approx(10.0)]
    assert found["icl_ms"] == pytest.approx([40.0] * 24)
    assert found["itl_ms"] == pytest.approx([10.0] * 96)


def test_chunks_without_counts_have_no_time_per_token() -> None:
    """Without counts per chunk there is neither itl nor adjusted tpot, rather than a guess."""
    found = observed(streamed(0, 0, tokens=100, per_chunk=4, gap_ms=40, chunk_tokens=None))
    assert found["itl_ms"] == found["tpot_adj_ms"] == []
    assert len(found["icl_ms"]) == 24


def test_one_token_has_no_time_per_token() -> None:
    """tpot of a single token is absent, not zero and not negative."""
    found = observed(streamed(0, 0, tokens=1))
    assert found["tpot_ms"] == found["icl_ms"] == found["stall_max_ms"] == found["output_tokens_per_s_per_user"] == []
    assert found["ttft_ms"] == found["e2e_ms"] == [100.0]


def test_an_empty_reply_has_no_latency() -> None:
    """A reply that ended without a token failed."""
    found = observed(failed(0, 0, "empty", 300))
    assert found["ttft_ms"] == found["e2e_ms"] == found["tpot_ms"] == []
    summary = summarise([trial_of([failed(0, 0, "empty", 300)], end_s=None)])
    assert value(summary, "error_rate")["value"] == 1.0


def test_reasoning_comes_before_the_answer() -> None:
    """ttft counts reasoning, ttfo the first token of the answer."""
    found = observed(streamed(0, 0, ttft_ms=200, tokens=100, first_answer_ns=700 * MS))
    assert (found["ttft_ms"], found["ttfo_ms"]) == ([200.0], [700.0])


def test_a_reply_that_is_not_streamed() -> None:
    """It has an end, and no first token; its tokens arrive at its end."""
    record = streamed(0, 0, ttft_ms=500, tokens=50, gap_ms=0, lag_ms=3.0)
    for name in ("first_token_ns", "first_answer_ns", "last_token_ns", "chunk_ns", "chunk_tokens"):
        setattr(record, name, None)
    found = observed(record)
    assert found["ttft_ms"] == found["tpot_ms"] == []
    assert (found["e2e_ms"], found["e2e_service_ms"]) == ([500.0], [497.0])
    summary = summarise([trial_of([record], end_s=1.0)])
    assert value(summary, "output_tokens_per_s")["value"] == 50.0


def test_due_and_sent_stand_beside_each_other() -> None:
    """A request sent 30 ms late shows 100 ms from due and 70 ms from sent."""
    found = observed(streamed(0, 0, ttft_ms=100, lag_ms=30))
    assert (found["ttft_ms"], found["ttft_service_ms"], found["send_lag_ms"]) == ([100.0], [70.0], [30.0])


def test_cancelled_and_unsent_requests_have_no_latency() -> None:
    """What the plan gives up is in no error and no latency but the first token, which came; what was never sent is in
    no metric.
    """
    records = [streamed(0, 1000), streamed(1, 1100, status="cancelled"), Record(request=2, due_ns=1200 * MS)]
    records.append(streamed(3, 0, phase="warmup"))
    found = observed(*records)
    assert found["ttft_ms"] == found["ttft_service_ms"] == [100.0, 100.0]
    assert found["e2e_ms"] == [190.0]
    assert len(found["tpot_ms"]) == len(found["stall_max_ms"]) == len(found["norm_latency_ms"]) == 1
    summary = summarise([trial_of(records, start_s=1.0, end_s=2.0)])
    assert value(summary, "offered_rps")["value"] == 2.0
    assert value(summary, "error_rate")["value"] == 0.0
    assert value(summary, "error_rate")["n"] == 1


def test_what_the_plan_gave_up_is_neither_good_nor_bad_but_its_tokens_count() -> None:
    """Three good, one failed, four given up: attainment 3 / 4, errors 1 / 4, all 8 offered, tokens of 7."""
    given_up = [streamed(number, 1000 + 10 * number, status="cancelled") for number in range(4)]
    good = [streamed(number, 1000 + 10 * number) for number in range(4, 7)]
    records = [streamed(8, 0, phase="warmup"), *given_up, *good, failed(7, 1075, "http_error", 5)]
    for classes in ({}, {"class_slo": {"default": {"ttft_ms": 1000.0}}}):
        trial = trial_of(records, start_s=1.0, end_s=2.0, slo={"ttft_ms": 1000.0}, **classes)
        summary = summarise([trial])
        assert value(summary, "attainment")["value"] == 0.75
        assert value(summary, "error_rate")["value"] == 0.25
        assert value(summary, "goodput_rps")["value"] == 3.0
        assert value(summary, "offered_rps")["value"] == 8.0
        assert value(summary, "output_tokens_per_s")["value"] == 70.0


def test_a_stall_that_ended_in_a_timeout_is_not_lost() -> None:
    """The wait since the last token is the longest gap, at least."""
    late = streamed(0, 0, tokens=5, gap_ms=10, status="timeout", done_ns=30 * S)
    found = read(trial_of([late, streamed(1, 50)])).observed
    assert found["stall_max_ms"].values.tolist() == [math.inf, 10.0]
    assert found["stall_max_ms"].bounds.tolist() == [30_000.0 - 140.0, 10.0]
    assert found["icl_ms"].values.tolist() == [*[10.0] * 4, math.inf, *[10.0] * 9]
    assert found["icl_ms"].clusters is not None
    assert found["icl_ms"].clusters.tolist() == [5, 9]


@given(st.lists(st.tuples(st.integers(1, 6), st.floats(0, 50), st.booleans()), min_size=1, max_size=12))
def test_gaps_agree_with_a_plain_loop(shapes: list[tuple[int, float, bool]]) -> None:
    """The arrays give what a loop over requests gives, whatever the numbers of chunks."""
    records = [
        streamed(i, i * 10.0, tokens=tokens, gap_ms=gap, status="ok" if ok else "stream_error")
        for i, (tokens, gap, ok) in enumerate(shapes)
    ]
    expected = []
    for record in records:
        times = record.chunk_ns or []
        if record.status == "ok":
            expected += [(b - a) / MS for a, b in itertools.pairwise(times)]
    assert observed(*records)["icl_ms"] == pytest.approx(expected)


def test_a_trial_limited_by_requests_says_its_window() -> None:
    """Eleven measured of ten a second: the window begins with the second, which meets the first, and ends when the
    first is due that is not measured; none of them makes a rate smaller.
    """
    records = [streamed(i, 1000.0 + i * 100.0, phase="measure" if i < 11 else "cooldown") for i in range(13)]
    summary = summarise([trial_of(records, start_s=1.0, end_s=2.1, slo={"e2e_ms": 200.0})])
    for name in ("offered_rps", "completed_rps", "goodput_rps"):
        found = value(summary, name)
        assert (found["value"], found["window"]) == (pytest.approx(10.0), "1.100 s to 2.100 s")
    assert value(summary, "e2e_ms", "p50")["n"] == 11


def test_classes_have_rows_of_their_own() -> None:
    """Mixed traffic is summarised together and by class, each held to its own limits."""
    records = [
        streamed(i, i * 100.0, ttft_ms=100 if i % 2 else 300, class_name="chat" if i % 2 else "batch")
        for i in range(200)
    ]
    slo = {"batch": {"ttft_ms": 400.0}, "chat": {"ttft_ms": 50.0}}
    summary = summarise([trial_of(records, end_s=20.0, class_slo=slo)])
    assert sorted(summary["class"].unique()) == ["all", "batch", "chat"]
    assert value(summary, "ttft_ms", "p50", **{"class": "chat"})["value"] == pytest.approx(100)
    assert value(summary, "attainment", **{"class": "chat"})["value"] == 0.0
    assert value(summary, "attainment")["value"] == 0.5


def test_repetitions_are_pooled_never_averaged() -> None:
    """The pooled p95 is the quantile of all requests, and each repetition keeps its own row."""
    trials = []
    for repetition, slower in ((1, 1.0), (2, 1.5)):
        cell = cell_entry(repetition=repetition, start={"load_s": float(repetition)})
        trials.append(FabricatedTrial(cell, trial_entry(), noisy(repetition, slower=slower)))
    summary = summarise(trials)
    every = np.sort(np.concatenate([observed(*trial.made)["ttft_ms"] for trial in trials]))
    assert value(summary, "ttft_ms", "p50")["value"] == pytest.approx(every[599])
    assert value(summary, "ttft_ms", "p50", repetition="1")["n"] == 600
    assert value(summary, "load_s")["value"] == 1.5


def test_memory_is_the_servers_during_the_trial() -> None:
    """Readings of the client, of other times and of other sources do not count."""
    t0_ns = 1_000 * S
    readings = [
        Sample(t0_ns - 30 * S, "engine", "rss_bytes", 9e9),
        Sample(t0_ns - 1 * S, "engine", "rss_bytes", 1e9),
        Sample(t0_ns + 1, "engine", "rss_bytes", 2e9),
        Sample(t0_ns + 2, "client", "rss_bytes", 8e9, "client"),
        Sample(t0_ns + 500 * S, "engine", "rss_bytes", 9e9),
        Sample(t0_ns + 1, "host", "memory_used_share", 0.5),
        Sample(t0_ns + 1, "gpu0", "memory_used_bytes", 3e9),
        Sample(t0_ns + 1, "gpu1", "memory_used_bytes", 1e9),
        Sample(t0_ns + 1, "gpu0", "memory_total_bytes", 4e9),
        Sample(t0_ns + 1, "gpu1", "memory_total_bytes", 4e9),
    ]
    summary = summarise([trial_of([streamed(0, 0), streamed(1, 1000)], readings)])
    assert value(summary, "rss_peak_bytes")["value"] == 2e9
    assert value(summary, "system_memory_peak_share")["value"] == 0.5
    assert value(summary, "gpu_memory_peak_bytes")["value"] == 4e9
    assert value(summary, "gpu_memory_peak_share")["value"] == 0.5


def test_a_trial_without_requests_has_a_summary() -> None:
    """Nothing measured gives no latency, and no error."""
    summary = summarise([trial_of([])])
    assert list(summary.columns) == list(COLUMNS)
    assert "ttft_ms" not in set(summary["metric"])


def test_every_row_names_a_registered_metric_and_its_unit() -> None:
    """Summary and registry agree."""
    summary = summarise([trial_of(noisy(1))], extra=[("ttft_ms", "p99.9")])
    for row in summary.to_dict("records"):
        metric = METRICS[row["metric"]]
        assert row["unit"] == metric.unit
        assert row["statistic"] in (*metric.statistics, "p99.9")
    assert value(summary, "ttft_ms", "p99.9")["bound"] == "lower"
