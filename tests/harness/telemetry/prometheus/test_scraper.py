"""Pages are read for as long as an engine is up, with its key where they are its own; failures are counted and said."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
from page_server import PageServer, page, serving_page

from engines.base import EngineSpec
from harness.errors import StorageFailed
from harness.records import Sample
from harness.run import pages as server_pages
from harness.run import run
from harness.run.pages import orders_for, pages_beside
from harness.scenario.metrics_urls import MetricsPage
from harness.schedule.cells import Cell
from harness.store.manifest import CellEntry, TrialEntry
from harness.telemetry.prometheus import page as page_reader
from harness.telemetry.prometheus.page import CLEAR_OF_AN_END_NS, EVERY_NS, Due
from harness.telemetry.prometheus.scraper import ENGINE_IS_HERE
from harness.telemetry.prometheus.tally import Tally

pytestmark = pytest.mark.slow

MS = 1_000_000
WAIT_S = 60  # for what comes at once on a machine that is not busy
NOWHERE = "http://127.0.0.1:9/metrics"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page fails because this machine is busy."""
    monkeypatch.setattr(page_reader, "PATIENCE_S", WAIT_S)


def cell(*asked: str | dict[str, Any], scope: str = "server", **spec: Any) -> Cell:
    """A cell of engine http with these pages named; without any, none is."""
    pages = tuple(MetricsPage.model_validate({"url": one} if isinstance(one, str) else one) for one in asked)
    return Cell(0, "000-http", None, "http", None, None, 1, EngineSpec("http", **spec), (), scope, pages=pages or None)


class Watched:
    """Pages beside a cell, as the parent of a run reads them; `entry` is the cell's."""

    def __init__(self, one: Cell, sink: Callable[[Sample], None] | None = None) -> None:
        self.samples: queue.Queue[Sample] = queue.Queue()
        self.pages = pages_beside(one, sink or self.samples.put)
        self.entry = CellEntry(trials=[TrialEntry(index=0)], unread=["no GPU"])

    def reading(self) -> AbstractContextManager[None]:
        """Read them for as long as a block lasts."""
        return run.reading(self.pages, self.entry)

    def hear(self, kind: str, **rest: Any) -> None:
        """An event of the child."""
        self.pages.hear({"event": kind, **rest})

    def begin(self, *own: str) -> list[Tally]:
        """The engine has started and a trial begun; what is told of its pages."""
        self.hear("started", engine={"metrics_urls": list(own)})
        self.entry.trials[0].pages = []
        self.pages.begin_tallies(self.tallies)
        return self.tallies

    @property
    def tallies(self) -> list[Tally]:
        """What the trial says of the pages."""
        pages = self.entry.trials[0].pages
        assert pages is not None
        return pages

    def ask(self) -> None:
        """A moment at which the page is to be read is now."""
        self.hear("trial_ended", trial=0)

    def next(self, source: str, name: str) -> Sample:
        """The next reading of this name."""
        while (sample := self.samples.get(timeout=WAIT_S)).source != source or sample.name != name:
            pass
        return sample


def until(found: Callable[[], bool]) -> None:
    """Until something has come true."""
    give_up_at = time.monotonic() + WAIT_S
    while not found():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def test_an_engines_own_page_is_read_without_being_named() -> None:
    """Readings are the server's, with middle and width; the trial contains the statistics."""
    with serving_page(page("vllm")) as server:
        watched = Watched(cell())
        with watched.reading():
            before_ns = time.monotonic_ns()
            (tally,) = watched.begin(server.url) or [Tally()]
            sample = watched.next("server0", "generation_tokens")
            after_ns = time.monotonic_ns()
        assert (sample.value, sample.scope) == (1200, "server")
        assert before_ns < sample.at_ns < after_ns
        assert 0 < sample.width_ns < after_ns - before_ns
        (tally,) = watched.tallies
        assert (tally.url, tally.source, tally.kind, tally.reason) == (server.url, "server0", "vllm", None)
        assert tally.scrapes >= 1
        assert (tally.ms_per_scrape or 0.0) > 0
        assert watched.entry.unread == ["no GPU"]
        assert watched.entry.page_reader is not None
        assert 0 <= (watched.entry.page_reader.cpu_share or 0.0) < 1
    json.dumps(watched.entry.stored())


def test_an_engine_without_a_page_is_requested_once_without_a_report() -> None:
    """Only the facts of the trial tell why."""
    with serving_page(None) as server:
        watched = Watched(cell())
        with watched.reading():
            tallies = watched.begin(server.url)
            until(lambda: any(one.reason for one in tallies))
            watched.ask()
        assert len(server.asked) == 1
    assert tallies[0].reason == "answers with status 404"
    assert (tallies[0].failures + tallies[0].scrapes, watched.entry.unread) in (
        (0, ["no GPU"]),
        (1, ["no GPU"]),
    )
    assert watched.samples.empty()


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "answers with status 404"), ("other 1\n", "holds none of the names that are known")],
)
def test_a_failing_page_of_the_scenario_is_reported_once_and_retried(text: str | None, why: str) -> None:
    """A server that comes up later is read."""
    with serving_page(text) as server:
        watched = Watched(cell(server.url))
        with watched.reading():
            tallies = watched.begin()
            until(lambda: len(server.asked) >= 2)
            server.text = page("llamacpp")
            watched.ask()
            assert watched.next("server0", "waiting_requests").value == 4
    assert watched.entry.unread == ["no GPU", f"The page {server.url} {why}."]
    assert (tallies[0].kind, tallies[0].reason) == ("llamacpp", why)
    assert tallies[0].failures >= 1


def test_a_slow_page_is_a_failure_and_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that hangs costs its time-out; the readings before it stay all there are."""
    monkeypatch.setattr(page_reader, "PATIENCE_S", 0.8)
    with serving_page(page("vllm")) as server:
        watched = Watched(cell())
        with watched.reading():
            tallies = watched.begin(server.url)
            watched.next("server0", "running_requests")
            server.held.clear()
            watched.ask()
            until(lambda: tallies[0].failures > 0)
        taken = tallies[0].scrapes
        assert tallies[0].reason == "did not answer within 0.8 s"
        assert taken >= 1
        assert all(sample.value == 0 for sample in watched.samples.queue if sample.name == "running_requests")


def test_a_page_is_never_requested_twice_at_a_time() -> None:
    """Whatever moments are wished for."""
    with serving_page(page("vllm")) as server:
        watched = Watched(cell())
        with watched.reading():
            watched.begin(server.url)
            watched.next("server0", "running_requests")
            now_ns = time.monotonic_ns()
            for ms in range(5):
                window = {"start_ns": ms * MS, "end_ns": 2 * ms * MS}
                watched.hear("clock", t0_ns=now_ns, window=window)
            asked = len(server.asked)
            until(lambda: len(server.asked) > asked)
        assert server.at_once == 1


def test_the_ends_of_a_window_are_scheduled_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """T0 is told before it comes: the page is read right at the ends, whatever is read besides."""
    monkeypatch.setattr(page_reader, "EVERY_NS", 3600 * 1000 * MS)  # nothing else in this time
    with serving_page(page("vllm")) as server:
        watched = Watched(cell())
        with watched.reading():
            watched.begin(server.url)
            watched.next("server0", "running_requests")
            t0_ns = time.monotonic_ns() + 50 * MS
            watched.hear("clock", t0_ns=t0_ns, window={"start_ns": 100 * MS, "end_ns": 200 * MS})
            first_ns = watched.next("server0", "running_requests").at_ns
            assert first_ns >= t0_ns + 100 * MS
            if first_ns < t0_ns + 200 * MS:  # else it came so late that it stands for both ends
                assert watched.next("server0", "running_requests").at_ns >= t0_ns + 200 * MS


def test_a_stopping_engine_is_left_alone() -> None:
    """A page that is gone because the engine is, is no failure; another start has another page."""
    with serving_page(page("vllm")) as first, serving_page(page("llamacpp")) as second:
        watched = Watched(cell())
        with watched.reading():
            watched.begin(first.url)
            watched.next("server0", "preemptions")
            watched.hear("starting")
            watched.begin(second.url)
            watched.hear("started", engine={"metrics_urls": [second.url]})  # said again after the first request
            assert watched.next("server0", "waiting_requests").value == 4
        (tally,) = watched.tallies
        assert (tally.url, tally.failures) == (second.url, 0)


def test_a_reading_that_was_due_before_the_engine_stops_is_still_made() -> None:
    """The page of a trial's end, which its books need; a page that is gone by then is no failure."""
    with serving_page(page("vllm")) as server:
        watched = Watched(cell(server.url))
        with watched.reading():
            watched.begin()
            watched.next("server0", "running_requests")
            server.held.clear()
            asked = len(server.asked)
            end_ns = time.monotonic_ns()
            watched.ask()
            until(lambda: len(server.asked) > asked)
            watched.hear("stopping")
            server.held.set()
        found = [one.at_ns for one in watched.samples.queue if one.name == "running_requests"]
        assert max(found) > end_ns
    assert (watched.tallies[0].failures, watched.entry.unread) == (0, ["no GPU"])


def test_a_page_that_is_late_at_the_end_of_a_window_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, a few times; a tick that failed waits for the next."""
    monkeypatch.setattr(page_reader, "PATIENCE_S", 0.2)
    monkeypatch.setattr(page_reader, "EVERY_NS", 3600 * 1000 * MS)
    with serving_page(page("vllm")) as server:
        watched = Watched(cell())
        with watched.reading():
            tallies = watched.begin(server.url)
            watched.next("server0", "running_requests")
            server.held.clear()
            end_ns = time.monotonic_ns()
            watched.ask()
            until(lambda: tallies[0].failures > 0)
            server.held.set()
            until(lambda: any(one.at_ns > end_ns for one in [*watched.samples.queue]))


def test_a_fault_of_ours_in_reading_a_page_costs_no_run() -> None:
    """The error is one sentence, other pages continue, and measurements are kept."""

    def bursts(sample: Sample) -> None:
        if sample.source == "server0":
            raise ZeroDivisionError("a fault")
        taken.put(sample)

    taken: queue.Queue[Sample] = queue.Queue()
    with serving_page(page("vllm")) as first, serving_page(page("llamacpp")) as second:
        watched = Watched(cell(first.url, second.url), bursts)
        with watched.reading():
            watched.begin()
            assert taken.get(timeout=WAIT_S).source == "server1"
            until(lambda: bool(watched.pages.unread))
    assert watched.entry.unread[1:] == [f"The page {first.url} is no longer read: ZeroDivisionError: a fault."]


def test_a_fault_while_pages_are_looked_for_costs_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is a sentence, too."""
    monkeypatch.setattr(server_pages, "orders_for", lambda *_: 1 // 0)
    watched = Watched(cell())
    with watched.reading():
        watched.begin()
    assert watched.entry.unread[1:] == [
        "Reading of pages failed: ZeroDivisionError: integer division or modulo by zero."
    ]


def test_a_reading_of_a_page_that_cannot_be_stored_ends_the_run() -> None:
    """The error is like any other."""

    taken: list[Sample] = []

    def full(sample: Sample) -> None:
        taken.append(sample)
        raise StorageFailed("the disk is full")

    with serving_page(page("vllm")) as server:
        watched = Watched(cell(server.url), full)

        def read_until_it_fails() -> None:
            with watched.reading():
                watched.begin()
                until(lambda: bool(taken))

        with pytest.raises(StorageFailed):
            read_until_it_fails()


def exporters(server: PageServer, scope: str) -> tuple[list[Sample], list[dict[str, Any]], list[str]]:
    """Readings of an exporter's page: samples, statistics of the trial, unavailable values."""
    watched = Watched(cell(server.url, scope=scope))
    with watched.reading():
        tallies = watched.begin()
        until(lambda: any(one.reason for one in tallies) or watched.samples.qsize() >= 10)
    return list(watched.samples.queue), tallies, watched.entry.unread[1:]


def test_exporters_speak_for_a_server_elsewhere() -> None:
    """GPUs and host of the machine that serves; this machine is read directly."""
    with serving_page(page("dcgm") + page("node")) as server:
        samples, tallies, unread = exporters(server, "client")
        values = {(sample.source, sample.name): sample.value for sample in samples}
        assert values["gpu0", "memory_used_bytes"] == 80000 << 20
        assert values["gpu1", "sm_clock_mhz"] == 139
        assert values["host", "memory_used_share"] == 0.25
        assert not [source for source, _ in values if source.startswith("server")]
        assert {sample.scope for sample in samples} == {"server"}
        assert (tallies[0].kind, tallies[0].source, unread) == ("dcgm+node", None, [])
        samples, tallies, unread = exporters(server, "server")
        assert (samples, tallies[0].reason, unread) == ([], ENGINE_IS_HERE, [])


def test_gpus_of_several_machines_have_numbers_of_their_own() -> None:
    """Two exporters may both have a GPU 0."""
    with serving_page(page("dcgm")) as first, serving_page(page("dcgm")) as second:
        watched = Watched(cell(first.url, second.url, scope="client"))
        with watched.reading():
            watched.begin()
            seen: set[str] = set()
            while len(seen) < 4:
                seen.add(watched.samples.get(timeout=WAIT_S).source)
    assert seen == {"gpu0", "gpu1", "gpu2", "gpu3"}


def test_servers_are_numbered_in_the_order_of_their_pages() -> None:
    """Exporters between them do not count."""
    with serving_page(page("vllm")) as first, serving_page(page("node")) as host, serving_page(page("tgi")) as second:
        watched = Watched(cell(host.url, second.url, scope="client"))
        with watched.reading():
            tallies = watched.begin(first.url)
            watched.next("server1", "waiting_requests")
        assert [(one.kind, one.source) for one in tallies] == [
            ("vllm", "server0"),
            ("node", None),
            ("tgi", "server1"),
        ]


def test_names_of_a_page_can_be_stated() -> None:
    """A server of one's own."""
    with serving_page("my_queue 3\n") as server:
        watched = Watched(cell({"url": server.url, "names": {"waiting_requests": "my_queue"}}))
        with watched.reading():
            watched.begin()
            assert watched.next("server0", "waiting_requests").value == 3


def test_the_key_goes_to_the_same_server_only() -> None:
    """Scheme, host and port must be those of requests; neither the manifest nor a repr shows it."""
    key: dict[str, Any] = {
        "api_key": "sk-1",
        "headers": {"X-Tenant": "t"},
        "options": {"url": "http://a:8000/base", "tls": {"ca": "c"}},
    }
    own, other, asked = orders_for(cell("http://b:8000/metrics", "http://a:9400", **key), ["http://a:8000/metrics"])
    assert own.headers == {"X-Tenant": "t", "Authorization": "Bearer sk-1"}
    assert own.tls == {"ca": "c"}
    assert (other.headers, other.tls, asked.headers, asked.tls) == ({}, {}, {}, {})
    assert "sk-1" not in repr(own)
    with serving_page(page("vllm")) as server:
        watched = Watched(cell(api_key="sk-2"))
        with watched.reading():
            watched.begin(server.url)
            watched.next("server0", "running_requests")
        assert server.asked[0]["Authorization"] == "Bearer sk-2"
        assert "sk-2" not in json.dumps(watched.entry.stored())


def test_a_page_may_have_moved_within_its_server() -> None:
    """Some frameworks send us from /metrics to /metrics/; to another server our key does not follow."""
    with serving_page(page("vllm")) as server, serving_page(page("vllm")) as stranger:
        server.location = "/metrics/"
        watched = Watched(cell(api_key="sk-3"))
        with watched.reading():
            watched.begin(server.url, "no address")
            watched.next("server0", "running_requests")
        server.location = stranger.url + "/"
        watched = Watched(cell(api_key="sk-3"))
        with watched.reading():
            tallies = watched.begin(server.url)
            until(lambda: any(one.failures for one in tallies))
        assert stranger.asked == []
        assert tallies[0].reason == "answers with status 307"


def test_no_page_can_be_wished_for() -> None:
    """An empty list leaves the engine's own page alone too."""
    nothing = Cell(0, "000-http", None, "http", None, None, 1, EngineSpec("http"), (), pages=())
    assert orders_for(nothing, [NOWHERE]) == []


def moments(due: Due, until_ns: int) -> Sequence[int]:
    """When a page is asked, if each reading takes no time."""
    found: list[int] = []
    while (now_ns := due.next_ns(found[-1] if found else 0)) < until_ns:
        due.done(now_ns)
        found.append(now_ns)
    return found


def test_ticks_give_way_to_the_ends_of_a_window() -> None:
    """Once a second, and at the moments asked for; a tick right before one of those would be in its way."""
    due = Due(0)
    assert moments(due, 3 * EVERY_NS) == [0, EVERY_NS, 2 * EVERY_NS]
    end_ns = 4 * EVERY_NS + CLEAR_OF_AN_END_NS // 2
    due.at(3 * EVERY_NS + EVERY_NS // 2, end_ns)
    assert moments(due, 6 * EVERY_NS) == [3 * EVERY_NS, 3 * EVERY_NS + EVERY_NS // 2, end_ns, 5 * EVERY_NS]


def test_an_end_whose_reading_failed_stays_due_and_a_tick_does_not() -> None:
    """Until it is read, or given up."""
    due = Due(0)
    due.at(EVERY_NS // 4)
    due.done(EVERY_NS // 4, again=True)
    assert due.owes(EVERY_NS // 4)
    assert due.next_ns(EVERY_NS // 3) == EVERY_NS // 4
    due.done(EVERY_NS // 3)
    assert not due.owes(EVERY_NS // 3)
    assert due.next_ns(EVERY_NS // 3) == EVERY_NS


def test_ticks_that_were_missed_are_not_made_up_for() -> None:
    """After a long reading the page is asked once, and then on the old grid."""
    due = Due(0)
    due.at(EVERY_NS // 4, EVERY_NS // 2)
    late_ns = 5 * EVERY_NS + EVERY_NS // 3
    assert due.next_ns(late_ns) <= late_ns
    due.done(late_ns)
    assert due.next_ns(late_ns) == 6 * EVERY_NS
