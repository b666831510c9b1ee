"""Reader of the Prometheus pages of servers and exporters while a cell runs, in a process that sends nothing.

A page is requested once a second and at both ends of a trial's window, never twice at a time. Failures are counted and
reported once; a failed value is never zero.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from engines.secrets import masked
from harness.errors import HarnessError
from harness.records import Sample
from harness.telemetry.prometheus.names import CPU_COUNTERS, HOST, SERVER, Page, cpu_share
from harness.telemetry.prometheus.page import Due, PageFailed, PageOrder, PageReader, session_for
from harness.telemetry.prometheus.tally import Tally

if TYPE_CHECKING:
    import aiohttp

PROBES = 3
ENGINE_IS_HERE = "an exporter is read only where the server is elsewhere: this machine is read directly"

Sink = Callable[[Sample], None]
Orders = Callable[[Sequence[str]], list[PageOrder]]


class ServerPages:
    """Pages of one cell, read while the engine is up, as the child's events report.

    All work runs on a thread of its own, so that the parent delays nothing. `hear` may be called from any thread.
    `orders` returns the pages to read, from those of the engine. If a page is likely, libraries are loaded while the
    engine starts: on a busy machine that takes longer than is left before the first request.
    """

    def __init__(self, sink: Sink, orders: Orders, *, server_is_here: bool, likely: bool = False) -> None:
        self._likely = likely
        self._sink = sink
        self._orders = orders
        self._server_is_here = server_is_here
        self._readers: dict[PageReader, tuple[Due, asyncio.Task[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._own: tuple[str, ...] | None = None
        self._to_probe = 0
        self._probed = asyncio.Event()
        self._gpus: dict[tuple[str, str], str] = {}
        self._cpu: dict[str, dict[str, float]] = {}
        self._loop = asyncio.new_event_loop()
        self._began: tuple[int, int] | None = None
        self.cpu_share: float | None = None  # processor time of reading, of one core; None if nothing was read
        self._not_stored: HarnessError | None = None
        self.unread: list[str] = []  # pages of the scenario that could not be read, once each

    def hear(self, event: Mapping[str, Any]) -> None:
        """Process an event of the child (see `harness.run.child`)."""
        kind = event["event"]
        if kind == "started":
            self._post(self._watch, tuple(event["engine"].get("metrics_urls") or ()))
        elif kind in ("starting", "stopping"):
            self.forget()
        elif kind == "clock":
            ends = (event["window"]["start_ns"], event["window"]["end_ns"])
            self._post(self._read_at, *(event["t0_ns"] + end for end in ends if end is not None))
        elif kind == "trial_ended":
            self._post(self._read_at, time.monotonic_ns())

    def begin_tallies(self, tallies: list[Tally]) -> None:
        """Append a tally of each page, for a trial that begins; they go on counting there."""
        self._post(self._begin_tallies, tallies)

    def forget(self) -> None:
        """Stop reading, because the engine stops; a reading that was due before is still made."""
        self._post(self._forget)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read the pages during the block, once the engine has started. Raises the error of storing a reading."""
        thread = threading.Thread(target=self._run, name="server-pages", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.forget()
            self._post(self._loop.stop)
            thread.join()
        if self._not_stored is not None:
            raise self._not_stored

    def _run(self) -> None:
        self._loop.set_exception_handler(self._broken)
        if self._likely:
            _load_libraries()
        self._loop.run_forever()
        self._loop.run_until_complete(self._end_tasks())
        self._loop.close()
        if self._began is not None:
            cpu_ns, lasted_ns = (now - then for now, then in zip(_clocks(), self._began, strict=True))
            self.cpu_share = cpu_ns / lasted_ns

    async def _end_tasks(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _post(self, action: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(action, *arguments)

    def _forget(self) -> None:
        now_ns = time.monotonic_ns()
        for reader, (due, task) in self._readers.items():
            if reader.source and due.owes(now_ns):
                reader.ending = True
            else:
                task.cancel()
        self._readers, self._own = {}, None

    def _watch(self, own: tuple[str, ...]) -> None:
        if own == self._own:
            return  # a repeated event of the same start
        self._forget()
        self._own = own
        orders = self._orders(own)
        if orders and self._began is None:
            _load_libraries()
            self._began = _clocks()
        now_ns = time.monotonic_ns()
        dues = {PageReader(order): Due(now_ns) for order in orders}
        self._to_probe, self._probed = len(orders), asyncio.Event()
        tasks = [self._loop.create_task(self._follow(reader, due)) for reader, due in dues.items()]
        self._readers = {reader: (due, task) for (reader, due), task in zip(dues.items(), tasks, strict=True)}
        self._tasks += tasks

    def _begin_tallies(self, tallies: list[Tally]) -> None:
        for reader in self._readers:
            reader.begin_tally()
            tallies.append(reader.tally)
        self._read_at(time.monotonic_ns())  # before T0

    def _read_at(self, *moments_ns: int) -> None:
        for due, _ in self._readers.values():
            due.at(*moments_ns)

    async def _follow(self, reader: PageReader, due: Due) -> None:
        try:
            async with session_for(reader.order) as (session, url):
                await self._probe(reader, session, url)
                while not (reader.dropped or reader.ending):
                    await due.wait()
                    began_ns = time.monotonic_ns()
                    read = await self._scrape(reader, session, url)
                    due.done(began_ns, again=not read and reader.misses < PROBES)
        except PageFailed as failure:  # unusable TLS files
            reader.tally.reason = str(failure)
            self._report_failure(reader, failure)
            self._end_probe()
        except HarnessError as error:
            self._not_stored = error
        except Exception as error:  # a bug here must not cost the measurements
            reader.dropped, reader.tally.reason = True, masked(f"is no longer read: {type(error).__name__}: {error}")
            self.unread.append(f"The page {reader.order.url} {reader.tally.reason}.")
            self._end_probe()

    def _broken(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report an error outside all pages."""
        error = context.get("exception")
        what = masked(f"{type(error).__name__}: {error}") if error else context["message"]
        self.unread.append(f"Reading of pages failed: {what}.")

    async def _probe(self, reader: PageReader, session: aiohttp.ClientSession, url: str) -> None:
        """Find the kind of a page before any reading is kept."""
        try:
            await reader.fetch(session, url)
            reader.dropped = self._server_is_here and not _is_server_page(reader.kind)
            reader.tally.reason = ENGINE_IS_HERE if reader.dropped else None
        except PageFailed as failure:
            reader.dropped = failure.final and not reader.order.requested
            self._report_failure(reader, failure)
        self._end_probe()
        await self._probed.wait()

    def _end_probe(self) -> None:
        """Number the servers in the order of their pages, after the last probe."""
        self._to_probe -= 1
        if not self._to_probe:
            servers = [one for one in self._readers if not one.dropped and _is_server_page(one.kind)]
            for number, one in enumerate(servers):
                one.source = one.tally.source = f"{SERVER}{number}"
            self._probed.set()

    async def _scrape(self, reader: PageReader, session: aiohttp.ClientSession, url: str) -> bool:
        """Read a page and keep its values. Return False if it could not be read."""
        try:
            page, before_ns, after_ns = await reader.fetch(session, url)
        except PageFailed as failure:
            reader.dropped = reader.kind is None and reader.misses >= PROBES and not reader.order.requested
            if not reader.ending:
                self._report_failure(reader, failure)
            return False
        for source, name, value in self._readings(reader, page):
            self._sink(Sample((before_ns + after_ns) // 2, source, name, value, SERVER, after_ns - before_ns))
        return True

    def _report_failure(self, reader: PageReader, failure: PageFailed) -> None:
        """Report a failure once per page that the scenario names; other failures are facts of a trial."""
        if reader.order.requested and not any(reader.order.url in known for known in self.unread):
            self.unread.append(f"The page {reader.order.url} {failure}.")

    def _readings(self, reader: PageReader, page: Page) -> list[tuple[str, str, float]]:
        """Return (source, name, value) of the kept values of a page."""
        kept = [(reader.source, one.name, one.value) for one in page.found if one.source == SERVER]
        machine = [one for one in page.found if one.source != SERVER and not self._server_is_here]
        counters = {one.name: one.value for one in machine if one.name in CPU_COUNTERS}
        before, self._cpu[reader.order.url] = self._cpu.get(reader.order.url, {}), counters
        share = cpu_share(before, counters)
        kept += [] if share is None else [(HOST, "cpu_share", share)]
        shown = [one for one in machine if one.name not in CPU_COUNTERS]
        return kept + [(self._unique(reader.order.url, one.source), one.name, one.value) for one in shown]

    def _unique(self, url: str, source: str) -> str:
        """Return a unique source name: two exporters may both have a GPU 0."""
        if source == HOST:
            return HOST
        if (url, source) not in self._gpus:
            taken = {*self._gpus.values()}
            number = next(n for n in range(len(taken) + 1) if f"gpu{n}" not in taken)
            self._gpus[url, source] = f"gpu{number}" if source in taken else source
        return self._gpus[url, source]


def _load_libraries() -> None:
    """Import what reading a page needs; the processor time is none of the reading's."""
    import_module("aiohttp")
    import_module("prometheus_client.parser")


def _clocks() -> tuple[int, int]:
    """Return the CPU time of this thread, and the time."""
    return time.thread_time_ns(), time.monotonic_ns()


def _is_server_page(kind: str | None) -> bool:
    """Return True if a page holds a server's own readings, or has not answered yet."""
    return kind is None or not {*kind.split("+")} <= {"dcgm", "node"}
