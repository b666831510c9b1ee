"""The client's counts against the server's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.analysis.reading import read
from harness.analysis.samples.server_counts import IN_FLIGHT, books_of
from harness.records import Record, Sample, Status
from harness.store.manifest import CellEntry
from harness.verdict.tokens import books_reasons
from tests.fabricated import FabricatedTrial, S, cell_entry, changed, failed, noisy, streamed, trial_entry
from tests.queues import one_server, poisson_arrivals_ns

T0_S = 1000


def counters(at_s: float, tokens: float, prompts: float, source: str = "server0") -> list[Sample]:
    """A page as it was read so long after T0."""
    at_ns = round((T0_S + at_s) * S)
    named = {"generation_tokens": tokens, "prompt_tokens": prompts}
    return [Sample(at_ns, source, name, amount, width_ns=2_000_000) for name, amount in named.items()]


def books(
    records: list[Record], pages: list[Sample], cell: CellEntry | None = None, **changes: Any
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What is held against each other, by what it is about, and the sentences of the reasons."""
    trial = trial_entry(**changes)
    made = FabricatedTrial(cell or cell_entry(trials=[trial]), trial, records, pages)
    found = books_of(made.cell, trial, read(made), made.samples())
    return {entry["what"]: entry for entry in found}, [one.sentence for one in books_reasons({"books": found})]


def replies(n: int = 100) -> list[Record]:
    """Two a second, each 10 tokens of output and 20 of prompt."""
    return [streamed(i, i * 500 + 100) for i in range(n)]


@pytest.mark.parametrize(("more", "balanced"), [(0, True), (9, True), (12, False), (-12, False), (500, False)])
def test_the_servers_tokens_are_ours(more: int, balanced: bool) -> None:
    """1,000 tokens between the pages around the trial: one percent more or less is another client, or a loss."""
    pages = [*counters(-0.1, 5000, 70), *counters(20, 5400, 900), *counters(61, 6000 + more, 2070)]
    found, reasons = books(replies(), pages)
    entry = found["output tokens"]
    assert (entry["client"], entry["client_most"], entry["server"]) == (1000, 1000, 1000 + more)
    assert entry["source"] == "server0"
    assert entry["difference_share"] == pytest.approx(more / max(1000, 1000 + more))
    assert found["prompt tokens"]["difference_share"] == 0
    assert bool(reasons) is not balanced
    if reasons:
        assert reasons == [
            f"Counts disagree: the server counted {1000 + more:,} output tokens, the load generator 1,000."
        ]


def test_all_phases_count_and_what_was_given_up_counts_as_far_as_it_may_have_gone() -> None:
    """Warm-up is in the server's counters, too; of a reply that was cut the server may have made any number."""
    records = replies(98)
    changed(records[0], phase="warmup")
    records += [
        streamed(98, 50_000, tokens=4, status="cancelled", requested_output_tokens=10, prompt_tokens=None),
        failed(99, 50_500, "timeout", 1000),
    ]
    records[-1].requested_prompt_tokens = 20
    found, _ = books(records, [*counters(-1, 0, 0), *counters(61, 990, 1980)])
    assert (found["output tokens"]["client"], found["output tokens"]["client_most"]) == (984, 1000)
    assert (found["prompt tokens"]["client"], found["prompt tokens"]["client_most"]) == (1960, 2000)
    assert {entry["difference_share"] for entry in found.values()} == {0}


def test_a_server_may_count_the_attempts_that_it_refused() -> None:
    """Ten requests were sent twice: what the server did with the first ten attempts nobody knows."""
    records = [changed(one, retries=int(one.request < 10)) for one in replies()]
    for extra in (0, 10):
        found, _ = books(records, [*counters(-1, 0, 0), *counters(61, 1000 + 10 * extra, 2000 + 20 * extra)])
        assert {entry["difference_share"] for entry in found.values()} == {0}
    found, _ = books(records, [*counters(-1, 0, 0), *counters(61, 1110, 2220)])
    assert min(entry["difference_share"] for entry in found.values()) > 0


def test_a_prompt_that_nobody_counted_may_exceed_its_plan_as_the_others_do() -> None:
    """Without the model's tokenizer prompts have 4.4 times the planned tokens here, those of cut requests too."""
    records = [changed(one, requested_prompt_tokens=20, prompt_tokens=88) for one in replies(98)]
    records += [failed(98 + i, 50_000 + i, "unfinished", 1000) for i in range(2)]
    for one in records[-2:]:
        one.requested_prompt_tokens = 20
    found, reasons = books(records, [*counters(-1, 0, 0), *counters(61, 980, 8800)])
    assert (found["prompt tokens"]["client"], found["prompt tokens"]["client_most"]) == (8624, 8800)
    assert not reasons


def test_a_cached_prompt_may_be_counted_or_not() -> None:
    """llama.cpp's counter leaves out what came from its cache, vLLM's does not."""
    records = [changed(one, cached_tokens=15) for one in replies()]
    for counted in (500, 2000):
        found, reasons = books(records, [*counters(-1, 0, 0), *counters(61, 1000, counted)])
        assert found["prompt tokens"]["difference_share"] == 0
        assert not reasons
    assert books(records, [*counters(-1, 0, 0), *counters(61, 1000, 400)])[1]


def test_a_reply_from_a_result_cache_may_never_have_reached_the_server() -> None:
    """A gateway gave the same reply again: the server may have counted it, or not."""
    records = [changed(one, cached=number < 50) for number, one in enumerate(replies())]
    for counted in (500, 1000):
        assert not books(records, [*counters(-1, 0, 0), *counters(61, counted, 2 * counted)])[1]


def test_chunks_are_not_held_against_tokens() -> None:
    """Where nobody counts tokens there is nothing to compare."""
    records = [changed(one, token_source="chunks") for one in replies()]
    assert "output tokens" not in books(records, [*counters(-1, 0, 0), *counters(61, 990, 2000)])[0]


@pytest.mark.parametrize(
    "pages",
    [
        [],
        counters(61, 1000, 2000),
        counters(-1, 0, 0),
        [*counters(5, 0, 0), *counters(61, 1000, 2000)],
        [*counters(-1, 900, 900), *counters(30, 10, 10), *counters(61, 1000, 2000)],
        [*counters(-1, 0, 0), *counters(61, 500, 1000), *counters(-1, 0, 0, "server1")],
    ],
    ids=["no page", "none before", "none after", "too late", "started again", "one of two lost"],
)
def test_without_both_pages_nothing_is_compared(pages: list[Sample]) -> None:
    """A page before the first request and one after the last, of every server, without a new start between."""
    assert "output tokens" not in books(replies(), pages)[0]


def test_servers_add_up() -> None:
    """Two pages are two halves."""
    pages = [*counters(-1, 0, 0), *counters(61, 400, 900), *counters(-1, 7, 7, "server1")]
    pages += counters(61, 607, 1107, "server1")
    entry = books(replies(), pages)[0]["output tokens"]
    assert (entry["server"], entry["source"], entry["difference_share"]) == (1000, "server0+server1", 0)


@pytest.mark.parametrize(
    ("neighbour", "compared"),
    [
        ({"t0_ns": (T0_S - 50) * S, "ended_ns": (T0_S - 2) * S}, True),
        ({"t0_ns": (T0_S - 50) * S, "ended_ns": (T0_S - 1) * S + S // 2}, False),
        ({"t0_ns": (T0_S - 50) * S}, False),
        ({"t0_ns": (T0_S + 62) * S}, True),
        ({"t0_ns": (T0_S + 60) * S}, False),
        ({"t0_ns": (T0_S + 60) * S, "session": 2}, True),
    ],
)
def test_what_other_trials_did_is_not_counted(neighbour: dict[str, Any], compared: bool) -> None:
    """Pages read before the trial before it had ended, or after the next had begun, hold their tokens."""
    other = trial_entry(id="001-other", **neighbour)
    cell = cell_entry(trials=[other, trial_entry()])
    found, _ = books(replies(), [*counters(-1, 0, 0), *counters(61, 1000, 2000)], cell)
    assert ("output tokens" in found) is compared


def test_a_trial_that_broke_off_has_no_books() -> None:
    """What was lost with it is unknown."""
    assert books(replies(), [*counters(-1, 0, 0), *counters(61, 1, 1)], status="failed") == ({}, [])


def queue_of(seed: int) -> tuple[list[Record], Callable[[float], int]]:
    """Requests of a queue that wait and are served one by one, and how many there are at a moment (seconds from T0);
    the first 5 s are warm-up.
    """
    n = 240
    served = one_server(poisson_arrivals_ns(4.5, n, seed), np.full(n, S // 5))
    arrived, done = served.arrived_ns, served.done_ns
    records = [
        streamed(i, at / 1e6, ttft_ms=(end - at) / 1e6, tokens=1, phase="warmup" if at < 5 * S else "measure")
        for i, (at, end) in enumerate(zip(arrived.tolist(), done.tolist(), strict=True))
    ]
    return records, lambda at_s: int(((arrived <= at_s * S) & (done > at_s * S)).sum())


def gauges(count: Callable[[float], float], until_s: int = 50) -> list[Sample]:
    """A page that was read once a second: one request runs, the others wait."""
    told = []
    for at_s in range(until_s):
        now = count(at_s)
        at_ns = (T0_S + at_s) * S
        told.append(Sample(at_ns, "server0", "running_requests", min(now, 1), width_ns=2_000_000))
        told.append(Sample(at_ns, "server0", "waiting_requests", max(now - 1, 0), width_ns=2_000_000))
    return told


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("more", "share", "balanced"), [(0, 1.0, True), (20, 1.0, False), (0, 0.2, False)])
def test_the_servers_requests_in_flight_are_ours(seed: int, more: int, share: float, balanced: bool) -> None:
    """Of a queue; not where somebody else's requests are there, too, or most of ours never came."""
    records, count = queue_of(seed)
    found, reasons = books(records, gauges(lambda at_s: count(at_s) * share + more), start_s=5.0, end_s=50.0)
    entry = found[IN_FLIGHT]
    assert entry["server"] == pytest.approx(np.mean([count(at_s) for at_s in range(5, 50)]) * share + more)
    assert (not reasons, entry["source"]) == (balanced, "server0")
    assert (entry["difference_share"] == 0) is balanced


def test_a_request_between_two_attempts_may_be_in_flight_or_not() -> None:
    """Half of the requests were sent again, so that the server may have had nothing of them for a while."""
    records, count = queue_of(1)
    for one in records[::2]:
        changed(one, retries=1)
    found, reasons = books(records, gauges(lambda at_s: 0.5 * count(at_s)), end_s=50.0)
    assert found[IN_FLIGHT]["difference_share"] == 0
    assert reasons == []


def test_requests_in_flight_do_not_depend_on_the_order_of_the_rows() -> None:
    """Workers write their rows as replies end; failed requests are no lower bound."""
    records, count = queue_of(1)
    for record in records[::3]:
        record.status = Status.HTTP_ERROR
    entries = [books(rows, gauges(count), start_s=5.0, end_s=50.0)[0][IN_FLIGHT] for rows in (records, records[::-1])]
    assert entries[0] == entries[1]


@pytest.mark.parametrize("lost", [None, "running_requests", "waiting_requests"])
def test_requests_in_flight_need_both_gauges_and_enough_readings(lost: str | None) -> None:
    """Else there is nothing to compare."""
    records, count = queue_of(1)
    pages = [one for one in gauges(count, 15 if lost is None else 50) if one.name != lost]
    assert IN_FLIGHT not in books(records, pages, start_s=0.0, end_s=50.0)[0]


def test_the_books_of_a_plain_trial_balance() -> None:
    """Nothing is said of it."""
    assert books(noisy(1), [])[1] == []
