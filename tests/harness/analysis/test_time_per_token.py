"""Time per token, gaps and normalised latency: known answers where a naive count of tokens or gaps is off by one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import Chunk, ChunkKind, Usage
from engines.dialects.base import ReadChunk
from harness.analysis.latencies import good, observe
from harness.analysis.reading import read
from harness.analysis.stats import LEVELS
from harness.analysis.summary import measure, tidy
from harness.drivers.timeline import Outcome, Trace, build_record
from harness.records import Loop, Record, Status
from harness.schedule.requests import Row
from tests.fabricated import MS, S, failed, streamed, trial_of, value

GAP_MS = 50.0
ROW = Row(0, "default", None, 0, None, "measure", None, 0, 0, 1, 400)


def observed(*records: Record) -> dict[str, list[float]]:
    """The observations of a trial with these records."""
    columns = read(trial_of(records)).columns
    return {name: found.values.tolist() for name, found in observe(columns.measured).items()}


def built(texts: int, finish: Sequence[Chunk], *, streamed: bool = True, at_ms: Sequence[float] = ()) -> Record:
    """The record of a reply with so many pieces of text, 50 ms apart from 200 ms on, and what came after, 50 ms later
    unless told.
    """
    chunks = [*(Chunk(ChunkKind.CONTENT, "x") for _ in range(texts)), *finish]
    after = at_ms or [200 + GAP_MS * texts] * len(finish)
    arrivals = [round(at * MS) for at in (*(200 + GAP_MS * i for i in range(texts)), *after)]
    trace = Trace(ROW, 0, "measure", sent_ns=0, arrivals=arrivals, lags=[0] * len(arrivals), done_ns=arrivals[-1])
    pieces = [ReadChunk(read_in, chunk) for read_in, chunk in enumerate(chunks)]
    return build_record(trace, Outcome(Status.OK, None, 200, pieces, streamed), 0, Loop.OPEN, chunks=True, text=False)


@pytest.mark.parametrize("tokens", [3, 5, 10, 20, 100])
@pytest.mark.parametrize("reason", ["stop", "length", "max_tokens", "tool_calls", "end_turn"])
def test_time_per_token_does_not_depend_on_how_many_there_are(tokens: int, reason: str) -> None:
    """50.0 ms apart: a reply cut at its length shows every token; one that ends by itself shows the last, which is
    counted, as the event that says so.
    """
    cut = reason in ("length", "max_tokens")
    end = [Chunk(ChunkKind.FINISH, finish_reason=reason), Chunk(ChunkKind.USAGE, usage=Usage(1, tokens))]
    record = built(tokens if cut else tokens - 1, end)
    assert record.finish_ns == round((200 + GAP_MS * (tokens - (not cut))) * MS)
    assert record.output_tokens == tokens
    found = observed(record)
    assert found["tpot_ms"] == [GAP_MS]
    assert found["output_tokens_per_s_per_user"] == [20.0]
    assert found["icl_ms"] == [GAP_MS] * (tokens - 1 - (not cut))
    assert found["e2e_ms"] == [(record.last_token_ns or 0) / MS]  # the text is there before
    within = read(trial_of([record])).columns
    assert good(within, {"tpot_ms": GAP_MS})[0].tolist() == [True]
    assert good(within, {"tpot_ms": GAP_MS - 0.001})[0].tolist() == [False]


@pytest.mark.parametrize(
    ("source", "counted", "borne"),
    [("usage", 10, None), ("usage", 10, 1), ("engine", 10, 1), ("tokenizer", 12, None), ("chunks", 10, None)],
)
def test_an_end_that_nobody_counted_is_no_token(source: str, counted: int, borne: int | None) -> None:
    """Ten texts 50 ms apart and an end 50 ms later: the nine gaps are the time of the tokens but the first, whoever
    counted them without the end.
    """
    record = streamed(0, 0, ttft_ms=100, tokens=10, gap_ms=50, finish_reason="stop", finish_ns=600 * MS)
    record.token_source, record.output_tokens, record.chunk_tokens = source, counted, [borne] * 10
    assert observed(record)["tpot_ms"] == [pytest.approx(450 / (counted - 1))]


def test_tokens_after_the_first_chunk_are_divided_alike() -> None:
    """Chunks of four every 200 ms and an end of its own: 9 tokens, of which 5 in the 250 ms behind the first chunk."""
    record = streamed(0, 0, ttft_ms=100, tokens=8, per_chunk=4, gap_ms=200)
    record.output_tokens, record.finish_reason, record.finish_ns = 9, "stop", 350 * MS
    found = observed(record)
    assert found["tpot_adj_ms"] == [50.0]
    assert found["tpot_ms"] == [250 / 8]


@pytest.mark.parametrize("finish_ms", [None, 300.0, 400.0])
def test_an_end_that_came_with_the_last_text_or_is_not_known_adds_nothing(finish_ms: float | None) -> None:
    """The last token is then the last text; an event from before it is no later."""
    record = streamed(0, 0, ttft_ms=100, tokens=7, gap_ms=50, finish_reason="stop")
    record.finish_ns = None if finish_ms is None else round(finish_ms * MS)
    assert observed(record)["tpot_ms"] == [50.0]


def test_the_finishing_event_is_the_last_that_says_why() -> None:
    """Usage and what follows are no tokens; a reply that was not streamed has no time for it."""
    said = [Chunk(ChunkKind.FINISH, finish_reason="stop"), Chunk(ChunkKind.USAGE, usage=Usage(1, 3))]
    assert built(2, said, at_ms=[310, 390]).finish_ns == 310 * MS
    assert built(2, [said[0], *said], at_ms=[301, 310, 390]).finish_ns == 310 * MS
    assert built(2, [said[1]], at_ms=[390]).finish_ns is None
    assert built(2, said, streamed=False).finish_ns is None


def test_a_reply_whose_last_text_says_why_ends_there() -> None:
    """Servers that say so in the event of the last text: four texts, four tokens, three gaps."""
    record = built(4, [Chunk(ChunkKind.FINISH, finish_reason="stop")], at_ms=[350])
    assert (record.finish_ns, record.last_token_ns, record.output_tokens) == (350 * MS, 350 * MS, 4)
    assert observed(record)["tpot_ms"] == [50.0]


def uneven(request: int, due_ms: float, gaps_ms: Sequence[float], tokens: Sequence[int]) -> Record:
    """A reply whose chunks come 100 ms after it was due and then after these gaps, and bear so many tokens."""
    times, at = [], due_ms + 100.0
    for gap in (0.0, *gaps_ms):
        at += gap
        times.append(round(at * MS))
    record = streamed(request, due_ms, tokens=len(times), output_tokens=sum(tokens))
    record.chunk_ns, record.chunk_tokens = times, list(tokens)
    record.last_token_ns = record.done_ns = times[-1]
    return record


def test_a_gap_that_a_chunk_without_tokens_ends_is_part_of_the_next() -> None:
    """10 ms to an empty chunk and 20 more to one of two tokens: 15 ms for each of these, not 10, and nothing lost."""
    found = observed(uneven(0, 0, [10, 20, 30], [1, 0, 2, 1]))
    assert found["itl_ms"] == [15.0, 15.0, 30.0]
    assert found["icl_ms"] == [10.0, 20.0, 30.0]


def test_gaps_without_tokens_do_not_reach_into_the_next_reply() -> None:
    """An empty chunk at the end of one reply, and at the beginning of another: each has its own gaps."""
    records = [
        uneven(0, 0, [10, 20], [1, 1, 0]),
        uneven(1, 10, [5, 10], [0, 0, 1]),
        uneven(2, 20, [40], [1, 1]),
        uneven(3, 30, [7], [1, 0]),
        uneven(4, 40, [8, 9], [1, 0, 3]),
    ]
    assert observed(*records)["itl_ms"] == [10.0, 15.0, 40.0, *[pytest.approx(17 / 3)] * 3]


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), min_size=1, max_size=8), min_size=1, max_size=6)
)
def test_times_per_token_add_up_to_the_time_they_took(replies: list[list[tuple[int, int]]]) -> None:
    """From the first chunk to the last that bears a token, whatever lies between; kept or counted as they pass."""
    records, expected = [], 0.0
    for number, rest in enumerate(replies):
        gaps, tokens = [float(gap) for gap, _ in rest], [1, *(amount for _, amount in rest)]
        records.append(uneven(number, 10.0 * number, gaps, tokens))
        last = max(place for place, amount in enumerate(tokens) if amount)
        expected += sum(gaps[:last])
    trial = trial_of(records)
    assert sum(observed(*records)["itl_ms"]) == pytest.approx(expected)
    borne = sum(amount for rest in replies for _, amount in rest)
    if borne:
        counted = tidy(measure(trial, read(trial, LEVELS, most_kept=0), trial.samples()))
        assert value(counted, "itl_ms", "mean")["value"] == pytest.approx(expected / borne, abs=0.001)


def test_normalised_latency_of_a_time_out_is_not_lost() -> None:
    """A reply of ten tokens in 190 ms: 19 each. One of ten that took 30 s was slower than 3 s for each, whatever came
    of it; one that is longer than it was asked for is taken at what came.
    """
    records = [
        streamed(0, 0),
        failed(1, 10, Status.TIMEOUT, 30_000),
        streamed(2, 20, tokens=4, status=Status.UNFINISHED, done_ns=20 * MS + 5 * S, requested_output_tokens=10),
        streamed(3, 30, tokens=20, status=Status.TIMEOUT, done_ns=30 * MS + 30 * S, requested_output_tokens=10),
        failed(4, 40, Status.HTTP_ERROR, 5),
    ]
    found = read(trial_of(records)).observed["norm_latency_ms"]
    assert found.values.tolist() == [19.0, math.inf, math.inf, math.inf]
    assert found.bounds.tolist() == [19.0, 3000.0, 500.0, 1500.0]


def test_normalised_latency_has_as_many_observations_as_the_latency() -> None:
    """Of 100 replies ten never ended: p90 is known of both, p95 is a bound of both."""
    records = [failed(i, i * 10, Status.TIMEOUT, 30_000) if i % 10 == 5 else streamed(i, i * 10) for i in range(100)]
    trial = trial_of(records)
    summary = tidy(measure(trial, read(trial), trial.samples()))
    for name, known in (("e2e_ms", 190.0), ("norm_latency_ms", 19.0)):
        assert value(summary, name, "p50")["value"] == pytest.approx(known)
        assert (value(summary, name, "p95")["bound"], value(summary, name, "p95")["n"]) == ("lower", 100)


def test_what_the_other_side_took_to_accept_is_not_the_clients_lag() -> None:
    """Sent 30 ms late, of which the server took 20 to accept: 10 of our own; the first token is 100 ms from due."""
    found = observed(streamed(0, 0, lag_ms=30, accepting_ns=20 * MS), streamed(1, 100, lag_ms=3))
    assert found["send_lag_ms"] == [10.0, 3.0]
    assert found["ttft_ms"] == [100.0, 100.0]
    assert found["ttft_service_ms"] == [70.0, 97.0]


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_reasoning_that_is_kept_from_us_is_no_divisor(shown: bool, reason: str) -> None:
    """300 thoughts and ten tokens of answer, 50.0 ms apart: thoughts that were shown are tokens with a time."""
    thoughts = [Chunk(ChunkKind.REASONING, "t")] * 300 if shown else []
    texts = [*thoughts, *[Chunk(ChunkKind.CONTENT, "x")] * 10]
    end = [Chunk(ChunkKind.FINISH, finish_reason=reason), Chunk(ChunkKind.USAGE, usage=Usage(9, 310, 300))]
    arrivals = [round((200 + GAP_MS * i) * MS) for i in range(len(texts))]
    arrivals += [arrivals[-1]] * 2
    trace = Trace(ROW, 0, "measure", sent_ns=0, arrivals=arrivals, lags=[0] * len(arrivals), done_ns=arrivals[-1])
    pieces = [ReadChunk(read_in, chunk) for read_in, chunk in enumerate([*texts, *end])]
    outcome = Outcome(Status.OK, None, 200, pieces)
    record = build_record(trace, outcome, 0, Loop.OPEN, chunks=True, text=False)
    found = observed(record)
    assert record.output_tokens == 310
    assert found["tpot_ms"] == [pytest.approx(GAP_MS)]
    assert found["output_tokens_per_s_per_user"] == [pytest.approx(20.0)]
    within = read(trial_of([record])).columns
    assert good(within, {"tpot_ms": GAP_MS + 0.001})[0].tolist() == [True]
    assert good(within, {"tpot_ms": GAP_MS - 0.001})[0].tolist() == [False]


def test_reasoning_in_the_text_is_a_divisor() -> None:
    """Ten pieces of text, of which the server says that seven are reasoning: they were shown."""
    record = streamed(0, 0, ttft_ms=100, tokens=10, gap_ms=50)
    record.reasoning_tokens = 7
    assert observed(record)["tpot_ms"] == [50.0]


def test_reasoning_beyond_the_output_is_not_taken_from_it() -> None:
    """Some servers count it beside the output: 10 tokens of answer are 10."""
    record = streamed(0, 0, ttft_ms=100, tokens=10, gap_ms=50)
    record.reasoning_tokens = 300
    assert observed(record)["tpot_ms"] == [50.0]


def test_tokens_of_one_moment_have_no_time_per_token() -> None:
    """They came in one read: neither TPOT nor speed has such a request, so that the two agree."""
    records = [streamed(i, i * 100.0, tokens=32, gap_ms=0 if i % 2 else 5.0) for i in range(40)]
    observed = read(trial_of(records)).observed
    assert len(observed["tpot_ms"].values) == len(observed["output_tokens_per_s_per_user"].values) == 20
    assert observed["tpot_ms"].values.min() == pytest.approx(5.0)
