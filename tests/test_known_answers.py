"""Known answers: from plan to report, on engines whose times arithmetic can tell, in virtual time.

docs/known-answers.md lists them by their numbers; `test_known_queues.py` has those of theory's queues.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.base import Chunk, ChunkKind, EngineSpec, Request, Usage
from engines.simulated import SimulatedEngine
from harness.analysis.reading import read
from harness.cli.commands.report import report_data
from harness.drivers import stub
from harness.records import Loop, Phase, Record, Status
from harness.schedule.requests import Schedule
from harness.store.run import Run
from reports.writers import markdown
from tests import scripted_server
from tests.driven import driven_on, measured, number, simulated
from tests.fabricated import failed, streamed, value
from tests.plans import exact_schedule
from tests.stored import KEY, results_of

pytestmark = pytest.mark.slow

MS = 1_000_000
SECOND = 1_000_000_000
FROZEN = {"ttft_ms": 10, "tpot_ms": 0, "stall": {"at_s": 30, "for_s": 1}}


def driven(schedule: Schedule, **options: Any) -> list[Record]:
    """The records of a schedule on a simulated engine, in virtual time."""
    records, _ = driven_on(simulated(**options), schedule)
    assert {record.status for record in records if record.phase != Phase.COOLDOWN} == {Status.OK}
    return records


class Scripted(SimulatedEngine):
    """Replies with given chunks, each so many ms after the request came."""

    def __init__(self, steps: Sequence[tuple[float, Chunk]]) -> None:
        super().__init__(EngineSpec("simulated"))
        self._steps = steps

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The script."""
        before_ms = 0.0
        for at_ms, chunk in self._steps:
            await asyncio.sleep((at_ms - before_ms) / 1000)
            before_ms = at_ms
            yield chunk


def stored_ms(run_folder: Path, metric: str) -> NDArray[np.float64]:
    """What the analysis reads of a metric in the only trial of a stored run; +inf where it is censored."""
    (trial,) = Run.open(run_folder).trials()
    return read(trial).observed[metric].values


def quantiles(values: NDArray[np.float64], *percents: float) -> list[float]:
    """Order statistics (the inverse of the empirical distribution) with exact ranks, to the microsecond."""
    ranks = [math.ceil(Fraction(str(percent)) * len(values) / 100) for percent in percents]
    return [round(float(np.sort(values)[rank - 1]), 3) for rank in ranks]


def test_an_open_loop_sees_the_whole_freeze(tmp_path: Path) -> None:
    """Known answer 3: 100/s for 60 s, 10 ms each, a freeze of 1 s: 101 requests suffer, p99 420 ms, mean 18.58 ms."""
    schedule = exact_schedule(1, kind="sustained", rate=100, arrivals="constant", duration="60s")
    results = results_of(tmp_path / "run", driven(schedule, **FROZEN), schedule, slo={"e2e_ms": 10.5})
    latencies = stored_ms(tmp_path / "run", "e2e_ms")
    assert (len(latencies), (latencies > 10.5).sum()) == (6000, 101)
    assert quantiles(latencies, 98, 98.5, 99, 99.5, 99.9, 100) == [10, 120, 420, 720, 960, 1010]
    assert number(results, "e2e_ms", "mean") == pytest.approx(18.58, abs=0.005)
    assert number(results, "e2e_ms", "max") == pytest.approx(1010, abs=1e-3)
    assert number(results, "attainment") == pytest.approx(1 - 101 / 6000, abs=1e-9)
    assert number(results, "offered_rps") == pytest.approx(100, abs=1e-9)
    assert results.facts[KEY]["requests"]["measure"] == 6000
    p99 = value(results.summary, "e2e_ms", "p99")
    assert (p99["bound"], p99["n_eff"] < 368) == ("lower", True)  # one freeze is one event, not 101 observations


def test_a_closed_loop_hides_the_freeze_and_says_that_it_is_closed(tmp_path: Path) -> None:
    """Known answer 4: the same server with one user: one slow request, p99 10 ms; records and report say `closed`."""
    schedule = exact_schedule(1, kind="single_user", duration="60s")
    records = driven(schedule, **FROZEN)
    results = results_of(tmp_path / "run", records, schedule)
    latencies = stored_ms(tmp_path / "run", "e2e_ms")
    assert (len(latencies), (latencies > 10.5).sum()) == (5900, 1)
    assert quantiles(latencies, 99, 100) == [10, 1010]
    assert number(results, "e2e_ms", "p99") == pytest.approx(10, abs=1e-3)
    assert {record.loop for record in records} == {Loop.CLOSED}
    assert "| sustained | closed |" in markdown.render(report_data(results))


def test_a_closed_loop_obeys_its_law(tmp_path: Path) -> None:
    """Known answer 14: eight users, 1 s of thinking and 1 of service: 4.00/s, 4.00 in flight, as Little says."""
    schedule = exact_schedule(1, kind="sustained", users=8, think_time="1s", warmup="10s", duration="500s")
    results = results_of(tmp_path / "run", driven(schedule, ttft_ms=1000, tpot_ms=0), schedule)
    per_s, in_flight = number(results, "completed_rps"), number(results, "mean_concurrency")
    assert per_s == pytest.approx(4.0, rel=0.005)  # X = N / (R + Z)
    assert in_flight == pytest.approx(4.0, rel=0.005)
    assert in_flight == pytest.approx(per_s * number(results, "e2e_service_ms", "mean") / 1000, rel=0.001)


def test_a_warm_up_leaves_as_many_measured_requests_as_were_asked_for() -> None:
    """Three users, one second a reply, 5 s of warm-up: 15 warm-up requests, then exactly the 10 to be measured;
    the two users who find none left go on beside the last.
    """
    schedule = exact_schedule(1, kind="sustained", users=3, requests=10, warmup="5s")
    records = driven(schedule, ttft_ms=1000, tpot_ms=0)
    assert Counter(record.phase for record in records) == {Phase.WARMUP: 15, Phase.MEASURE: 10, Phase.COOLDOWN: 2}
    assert schedule.count is None


def test_tokens_are_counted_when_they_come(tmp_path: Path) -> None:
    """Known answer 12: 2/s, 100 tokens over 10 s each: 200 tokens/s in the window; whole answers over all time, 171."""
    schedule = exact_schedule(100, kind="sustained", rate=2, arrivals="constant", warmup="20s", duration="60s")
    records = driven(schedule, ttft_ms=100, tpot_ms=100)
    results = results_of(tmp_path / "run", records, schedule)
    assert number(results, "output_tokens_per_s") == pytest.approx(200, rel=0.005)
    last_ns = max(record.last_token_ns or 0 for record in measured(records))
    naive = sum(record.output_tokens or 0 for record in measured(records)) / ((last_ns - 20 * SECOND) / SECOND)
    assert naive == pytest.approx(171.4, rel=0.01)


def fate(request: int) -> Record:
    """Of a hundred, one is refused, one cut off after 20 ms of tokens, one hangs; the others take 100 ms."""
    due_ms = request * 10
    if request % 100 == 1:
        return failed(request, due_ms, Status.HTTP_ERROR, 5, http_status=500)
    if request % 100 == 2:
        cut = streamed(request, due_ms, ttft_ms=20, tokens=3, gap_ms=10, status=Status.TRUNCATED)
        return replace(cut, done_ns=(due_ms + 60) * MS)
    if request % 100 == 3:
        return failed(request, due_ms, Status.TIMEOUT, 30_000)
    return streamed(request, due_ms, ttft_ms=20, tokens=9, gap_ms=10)


def test_failures_are_kept_and_hangs_are_bounds(tmp_path: Path) -> None:
    """Known answer 13: of 10,000, 100 are refused, 100 cut, 100 hang: error rate 3.00 %, attainment .9700, p98.9 100 ms
    and p99 more than 30,000 ms, where a tool that drops what hangs prints 100 ms.
    """
    results = results_of(
        tmp_path / "run",
        [fate(request) for request in range(10_000)],
        window={"start_ns": 0, "end_ns": 100 * SECOND},
        limits=["e2e_ms p98.9 <= 200", "error_rate <= 0.05"],
        slo={"ttft_ms": 50.0, "e2e_ms": 1000.0},
    )
    assert results.facts[KEY]["statuses"] == {"ok": 9700, "http_error": 100, "truncated": 100, "timeout": 100}
    assert number(results, "error_rate") == pytest.approx(0.03, abs=1e-12)
    assert number(results, "attainment") == pytest.approx(0.97, abs=1e-12)
    e2e, ttft = (value(results.summary, name, "p99") for name in ("e2e_ms", "ttft_ms"))
    assert (e2e["n"], e2e["bound"], math.isnan(e2e["value"])) == (9800, "lower", True)
    assert e2e["low"] == pytest.approx(30_000)
    assert (ttft["n"], ttft["bound"]) == (9900, "lower")
    assert number(results, "e2e_ms", "p98.9") == pytest.approx(100, abs=1e-3)
    seen = stored_ms(tmp_path / "run", "e2e_ms")
    assert quantiles(seen[np.isfinite(seen)], 99) == [100]  # what a tool says that drops what hangs


def test_chunks_of_four_keep_their_tokens(tmp_path: Path) -> None:
    """Known answer 10: 100 tokens in 25 chunks of 4, first at 200 ms, every 40: last at 1,160, tpot 960 / 99 = 9.697,
    adjusted 10.000, chunks 40.0 and tokens 10.0 apart.
    """
    schedule = exact_schedule(100, kind="single_user", requests=1)
    records = driven(schedule, ttft_ms=200, tpot_ms=10, tokens_per_chunk=4)
    results_of(tmp_path / "run", records, schedule)
    assert (records[0].output_tokens, list(records[0].chunk_tokens or ())) == (100, [4] * 25)
    for metric, expected in {
        "ttft_ms": 200,
        "e2e_ms": 1160,
        "tpot_ms": 9.697,
        "tpot_adj_ms": 10,
        "icl_ms": 40,
        "itl_ms": 10,
    }.items():
        assert stored_ms(tmp_path / "run", metric) == pytest.approx(expected, abs=5e-4), metric
    assert [len(stored_ms(tmp_path / "run", metric)) for metric in ("icl_ms", "itl_ms")] == [24, 96]


@pytest.mark.parametrize("tokens", [3, 5, 10, 20, 100])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_token_every_50_ms_is_a_tpot_of_50_ms(tmp_path: Path, tokens: int, reason: str) -> None:
    """However many there are: where a reply ends by itself the last one counted is the end itself, without a text,
    which the finishing event brings; where it is cut at its length all have a text, and what follows is no token.
    """
    texts = tokens - (reason == "stop")
    steps = [(200.0 + 50 * i, Chunk(ChunkKind.CONTENT, "a", tokens=1)) for i in range(texts)]
    ended_ms = 200.0 + 50 * (tokens - 1) + (7 if reason == "length" else 0)
    steps += [
        (ended_ms, Chunk(ChunkKind.FINISH, finish_reason=reason)),
        (ended_ms, Chunk(ChunkKind.USAGE, usage=Usage(16, tokens))),
    ]
    schedule = exact_schedule(100, kind="single_user", requests=1)
    records, _ = driven_on(Scripted(steps), schedule)
    results_of(tmp_path / "run", records, schedule)
    assert (records[0].output_tokens, records[0].finish_ns) == (tokens, ended_ms * MS)
    for metric in ("tpot_ms", "tpot_adj_ms", "icl_ms"):
        assert stored_ms(tmp_path / "run", metric) == pytest.approx(50.0, abs=1e-6), metric
    assert stored_ms(tmp_path / "run", "e2e_ms") == pytest.approx(200 + 50 * (texts - 1))
    assert stored_ms(tmp_path / "run", "output_tokens_per_s_per_user") == pytest.approx(20)


FINISH = Chunk(ChunkKind.FINISH, finish_reason="stop")


@pytest.mark.parametrize(
    ("steps", "status", "expected"),
    [
        ([(200, Chunk(ChunkKind.CONTENT, "a", tokens=1)), (210, FINISH)], Status.OK, ([200], [200], [], 1)),
        ([(200, FINISH), (200, Chunk(ChunkKind.USAGE, usage=Usage(16, 0)))], Status.EMPTY, ([], [], [], 0)),
        ([(200, FINISH)], Status.EMPTY, ([], [], [], None)),
        (
            [
                (200 + 10 * i, Chunk(ChunkKind.REASONING if i < 50 else ChunkKind.CONTENT, "a", tokens=1))
                for i in range(100)
            ]
            + [(1190, FINISH)],
            Status.OK,
            ([200], [700], [10], 100),
        ),
    ],
    ids=["one token", "no token", "only an end", "fifty of reasoning"],
)
def test_replies_at_the_edge(
    tmp_path: Path, steps: list[tuple[float, Chunk]], status: Status, expected: tuple[Any, ...]
) -> None:
    """Known answer 11: one token has no tpot, never 0; none is a failure; ttft counts reasoning, ttfo does not."""
    schedule = exact_schedule(100, kind="single_user", requests=1)
    records, _ = driven_on(Scripted(steps), schedule)
    results_of(tmp_path / "run", records, schedule)
    ttft, ttfo, tpot, tokens = expected
    assert (records[0].status, records[0].output_tokens) == (status, tokens)
    for metric, wanted in (("ttft_ms", ttft), ("ttfo_ms", ttfo), ("tpot_ms", tpot)):
        assert stored_ms(tmp_path / "run", metric).tolist() == pytest.approx(wanted), metric


def delta(**said: str) -> bytes:
    """One event of a chat."""
    return stub.chunk(stub.event({"choices": [{"index": 0, "delta": said}]}))


SLOW_TO_SPEAK = (  # headers at 2 ms, the role at 5, an empty text at 10, a word at 200 and one at 220, then the usage
    (2, stub.STREAM_HEAD),
    (3, delta(role="assistant")),
    (5, delta(content="")),
    (190, delta(content="a")),
    (20, delta(content="b")),
    (0, stub.chunk(scripted_server.ending(2)) + stub.LAST_CHUNK),
)


def test_only_tokens_are_tokens(tmp_path: Path) -> None:
    """Known answer 9: neither the headers, the role nor an empty text is a first token, and there is one gap between
    two words, whatever else was sent; by the moments between which the server wrote, to a millisecond.
    """
    written_ns: list[int] = []

    async def slow_to_speak(call: scripted_server.Call) -> None:
        for after_ms, data in SLOW_TO_SPEAK:
            await call.send(data, after_ms)
            written_ns.append(time.monotonic_ns())

    async def main() -> tuple[list[Record], list[int], int]:
        async with scripted_server.serving(slow_to_speak) as server:
            chat = replace(server.endpoint, dialect="openai-chat")
            records, report = await scripted_server.measure(chat, scripted_server.open_plan([10]), timeout_ms=60_000)
            return records, server.calls[0].log_ns, report.t0_ns

    records, writing_ns, t0_ns = asyncio.run(main())
    results_of(tmp_path / "run", records)
    headers, role, _, first, second, _ = zip(*((np.array([writing_ns, written_ns]) - t0_ns) / MS), strict=True)
    (record,) = records
    due_ms, sent_ms = (record.due_ns or 0) / MS, (record.sent_ns or 0) / MS
    assert role[0] <= stored_ms(tmp_path / "run", "ttfb_ms")[0] + sent_ms < role[1] + 1
    assert headers[0] < (record.headers_ns or 0) / MS < first[0]
    assert first[0] <= stored_ms(tmp_path / "run", "ttft_ms")[0] + due_ms < first[1] + 1
    (gap,) = stored_ms(tmp_path / "run", "icl_ms")
    assert second[0] - first[1] - 1 < gap < second[1] - first[0] + 1
    assert stored_ms(tmp_path / "run", "tpot_ms") == pytest.approx([gap])
    assert stored_ms(tmp_path / "run", "ttft_ms")[0] > 190


def test_every_row_of_the_plan_is_a_record() -> None:
    """3,000 requests to be measured end in as many records with the planned due times, though the server is overloaded,
    and so do those that follow them until they have ended.
    """
    schedule = exact_schedule(1, kind="sustained", rate=300, requests=3000)
    records = driven(schedule, ttft_ms=10, tpot_ms=0, max_batch=1)
    assert schedule.due_ns is not None
    assert len(measured(records)) == 3000
    due_ns = dict(enumerate(schedule.due_ns.tolist()))
    assert {record.request: record.due_ns for record in records} == {i: due_ns[i] for i in range(len(records))}
    assert len(records) == 6000
    assert max(record.sent_ns - record.due_ns for record in records if record.sent_ns and record.due_ns) < MS
