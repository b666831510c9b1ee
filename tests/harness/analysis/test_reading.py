"""A trial with too many chunks to keep gives what a small one gives."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis import one_pass
from harness.analysis.chunks import ChunkLists
from harness.analysis.one_pass import arrived_in
from harness.analysis.rates import chunk_weights
from harness.analysis.reading import read
from harness.analysis.series.trial import series_of
from harness.analysis.stats import Ordered, autocorrelation_time, merged
from harness.analysis.summary import levels_for, measure, tidy
from harness.records import Record, record_schema, to_columns
from harness.store.streams import StreamWriter, read_parquet, to_parquet
from tests.fabricated import MS, FabricatedTrial, S, failed, streamed, trial_of

ALL_KEPT = 10**9
WIDTH = 1 / one_pass.BUCKETS


def mixed(n: int = 900) -> FabricatedTrial:
    """Requests of every sort, stored in another order than they fell due."""
    rng = np.random.default_rng(3)
    records: list[Record] = []
    for i in range(n):
        due_ms, name = i * 20.0, ("chat", "batch")[i % 2]
        phase = "warmup" if i < 50 else "measure"
        made = streamed(
            i,
            due_ms,
            ttft_ms=float(rng.lognormal(4, 0.3)),
            gap_ms=float(rng.lognormal(2.5, 0.6)),
            tokens=int(rng.integers(1, 40)),
            per_chunk=1 + i % 3,
            class_name=name,
            phase=phase,
        )
        if i % 11 == 0:
            made.chunk_tokens = None if i % 2 else [None] * len(made.chunk_ns or ())
        if i % 13 == 0:
            made.status, made.done_ns = "timeout", (made.done_ns or 0) + 20 * S
        if i % 17 == 0:
            made.status = "stream_error"
        if i % 29 == 0:
            made = failed(i, due_ms, "http_error", 5, class_name=name, phase=phase)
        made.cached_tokens = 15 * (i % 5 == 0)
        if i % 31 == 0:
            made.chunk_ns = made.chunk_tokens = None
        records.append(made)
    order = rng.permutation(n)
    return trial_of([records[i] for i in order], start_s=1.0, end_s=n * 0.02, slo={"stall_ms": 50.0})


def summary_of(trial: FabricatedTrial, most_kept: int) -> pd.DataFrame:
    """The summary, with so many chunks kept."""
    return tidy(measure(trial, read(trial, levels_for(()), most_kept), trial.samples()))


def test_counted_and_kept_chunks_give_one_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of every class agrees; quantiles of gaps to within a bucket, effective sizes roughly."""
    monkeypatch.setattr(one_pass, "SLICE_CHUNKS", 700)
    trial = mixed()
    kept, counted = summary_of(trial, ALL_KEPT), summary_of(trial, 0)
    keys = ["class", "repetition", "metric", "statistic"]
    same = [*keys, "n", "unit", "source"]
    pd.testing.assert_frame_equal(counted[same], kept[same])
    plain = np.floor(np.minimum(counted["n_eff"], kept["n_eff"])) > 500  # far from where a quantile becomes a bound
    assert (counted["bound"] == kept["bound"])[plain].all()
    for column in ("value", "low", "high"):
        exact = ~kept["metric"].isin(["icl_ms", "itl_ms"]) | kept["statistic"].isin(["max", "min", "mean"])
        np.testing.assert_allclose(counted[column][exact], kept[column][exact], rtol=1e-9)
    values = [frame["value"][plain & kept["metric"].isin(["icl_ms", "itl_ms"])] for frame in (counted, kept)]
    np.testing.assert_allclose(*values, rtol=WIDTH)
    np.testing.assert_allclose(counted["n_eff"], kept["n_eff"], rtol=0.25)


def test_counted_and_kept_chunks_give_one_plot() -> None:
    """Tokens over time agree whether each chunk is looked at or only those of requests that reach across an edge."""
    trial = mixed()
    kept, counted = (series_of(read(trial, most_kept=kept), trial.samples(), {}, {})["rates"] for kept in (ALL_KEPT, 0))
    pd.testing.assert_frame_equal(kept, counted)


@given(
    st.lists(st.lists(st.integers(0, 100), min_size=0, max_size=6), min_size=1, max_size=8),
    st.integers(1, 7),
    st.sampled_from([10.0, 12.5, 33.0]),
)
@settings(max_examples=60)
def test_tokens_between_edges_are_what_a_histogram_says(times: list[list[int]], parts: int, width: float) -> None:
    """Whatever lies on an edge, before the first or after the last."""
    sizes = np.array([len(request) for request in times])
    ns = np.array([moment for request in times for moment in sorted(request)], dtype=np.int64)
    lists = ChunkLists(sizes, ns, np.ones(len(ns), dtype=np.int32))
    total = np.where(np.arange(len(sizes)) % 2, sizes * 2.0, np.nan)
    edges = 10.0 + np.arange(parts + 1) * width
    expected = np.histogram(ns, edges, weights=chunk_weights(lists, lists.each(), total))[0]
    assert arrived_in(lists, lists.each(), total, edges) == pytest.approx(expected)


def test_equal_gaps_are_given_as_they_are() -> None:
    """Where all gaps of a bucket are the same, its mean is exactly that gap."""
    trial = trial_of([streamed(i, i * 10.0, gap_ms=12.345678) for i in range(200)])
    found = summary_of(trial, 0).query("metric == 'icl_ms' and repetition == 'pooled'")
    assert set(found["value"].round(9)) == {12.345678}


def test_a_wait_that_was_cut_off_is_censored_when_counted_too() -> None:
    """p50 of gaps is a number, the largest only a lower bound."""
    records = [streamed(i, i * 10.0, tokens=5, status="timeout" if i == 3 else "ok") for i in range(100)]
    records[3].done_ns = (records[3].last_token_ns or 0) + 9 * S
    found = summary_of(trial_of(records), 0).query("metric == 'icl_ms' and repetition == 'pooled'")
    rows = found.set_index("statistic")
    assert rows.loc["p50", "value"] == pytest.approx(10.0)
    assert (rows.loc["max", "bound"], rows.loc["max", "low"]) == ("lower", 9000.0)


@given(st.lists(st.lists(st.integers(0, 9), max_size=20), min_size=1, max_size=4))
def test_counted_values_have_the_ranks_of_single_ones(runs: list[list[int]]) -> None:
    """Every rank gives the same value, alone or merged."""
    single = [Ordered.of(np.array(run, dtype=np.float64)) for run in runs]
    distinct, counts = np.unique(runs[0], return_counts=True)
    first = Ordered.counted(distinct.astype(np.float64), counts.astype(np.int64))
    whole, other = merged(single), merged([first, *single[1:]])
    assert whole.n == other.n == sum(map(len, runs))
    assert [whole.at(rank + 1) for rank in range(whole.n)] == [other.at(rank + 1) for rank in range(whole.n)]


@pytest.mark.parametrize("memory", [0.0, 0.9, 0.999])
def test_long_series_are_judged_in_blocks(memory: float) -> None:
    """The autocorrelation time of a first-order process, (1 + a) / (1 - a), is found whatever its length."""
    from scipy.signal import lfilter

    noise = np.random.default_rng(1).normal(size=400_000)
    found = autocorrelation_time(lfilter([1.0], [1.0, -memory], noise))
    assert found == pytest.approx((1 + memory) / (1 - memory), rel=0.25)


def test_row_groups_grow_together_and_can_be_sampled(tmp_path: Path) -> None:
    """Small batches become one group; batches read back hold bounded numbers of elements, in order."""
    with StreamWriter(tmp_path / "r.arrows", record_schema(), to_columns, rows=16) as writer:
        for i in range(600):
            writer.add(Record(i, chunk_ns=[i * MS] * 10, chunk_tokens=[1] * 10))
    to_parquet([tmp_path / "r.arrows"], tmp_path / "r.parquet", record_schema())
    batches = list(read_parquet(tmp_path / "r.parquet", ["request", "chunk_ns"], elements=1000))
    assert {batch.num_rows for batch in batches} == {100}
    assert [row for batch in batches for row in batch.column("request").to_pylist()] == list(range(600))


def test_chunks_of_batches_agree_with_a_plain_loop() -> None:
    """Whatever is missing of a request's chunks and their counts, its numbers are those that a loop over it finds."""
    trial = mixed(200)
    each = read(trial).columns.each
    for i, record in enumerate(sorted(trial.made, key=lambda record: record.due_ns or 0)):
        ns, tokens = record.chunk_ns or [], record.chunk_tokens or []
        tokens = tokens if len(tokens) == len(ns) else [None] * len(ns)
        counts = [math.nan if one is None else one for one in tokens]
        assert (each.sizes[i], each.known[i]) == (len(ns), np.isfinite(counts).sum())
        np.testing.assert_array_equal(each.counted[i], sum(counts) if counts else math.nan)
        np.testing.assert_array_equal(each.first[i], counts[0] if counts else math.nan)
        np.testing.assert_array_equal(each.longest_ns[i], np.diff(ns).max() if len(ns) > 1 else math.nan)
