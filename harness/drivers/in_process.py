"""Client of engines in this process: a task per request, a time stamp per yielded chunk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from engines.base import Chunk, ChunkKind, InProcessEngine, Request
from engines.dialects.base import ReadChunk
from harness.drivers.conversations import cancel_reason
from harness.drivers.due_queue import Due, Prepared
from harness.drivers.outcome import Cut, stream_verdict
from harness.drivers.timeline import NS_PER_S, Outcome, Trace
from harness.drivers.trial import Client, TrialState
from harness.errors import by_name
from harness.records import FAILED, Status

_PASS_NS = 1_000_000
_UNBEGUN = 16  # limit of tasks that were created but have not run yet, so that the loop can do other work


class InProcessClient(Client):
    """Sends one trial to an engine in this process, in real or virtual time."""

    def __init__(self, state: TrialState, engine: InProcessEngine, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(state, loop, None)
        self._engine = engine
        self._loop = loop
        self._tasks: dict[asyncio.Task[None], tuple[Due, Trace, Request]] = {}
        self._why_cut = "the trial was ended at once"
        self._unbegun = 0
        self._prepared = Prepared(
            self._conversations.request, self._queue, lambda request: len(request.prompt), limit_bytes=8 << 20
        )

    def prepare(self) -> None:
        self._prepared.fill()

    def close(self) -> None:
        super().close()
        for task in self._tasks:
            task.cancel()

    def _dispatch(self) -> None:
        queue = self._queue
        pause_ns = self._now_ns() + _PASS_NS
        while not self._ending and not queue.over:
            due_ns, now_ns = queue.next_due_ns, self._now_ns()
            if due_ns is None or due_ns > now_ns or now_ns > pause_ns or self._unbegun >= _UNBEGUN:
                break
            due = queue.take()
            if self._given_up(due, now_ns):
                continue
            request, trace = self._prepared.take(due), self._state.trace(due)
            task = self._loop.create_task(self._one(due, trace, request))
            self._unbegun += 1
            self._tasks[task] = due, trace, request
            task.add_done_callback(self._forget)
        if not self._ending:
            self._alarm.set(queue.next_due_ns)
            self._end_if_over()

    def _forget(self, task: asyncio.Task[None]) -> None:
        due, trace, request = self._tasks.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._state.fail(error)
        elif trace.done_ns is None and not self._state.finished.done():  # cut off before its first step
            self._unbegun -= 1
            self._ended(due, trace, request, [], Cut(Status.UNFINISHED, self._why_cut))
        self._end_if_over()

    async def _one(self, due: Due, trace: Trace, request: Request) -> None:
        """Run one request from its first step to its record."""
        self._unbegun -= 1
        trace.sent_ns = trace.dispatched_ns = self._now_ns()
        chunks: list[ReadChunk] = []
        cut: Cut | None = None
        timeout_ns = self._state.settings.timeout_ns
        deadline_ns = due.due_ns + timeout_ns
        cancel_at_ns = deadline_ns if due.row.cancel_ns is None else self._now_ns() + due.row.cancel_ns
        try:
            async with asyncio.timeout_at(min(deadline_ns, cancel_at_ns) / NS_PER_S):
                await self._read(request, trace, chunks)
        except TimeoutError:
            cut = Cut(Status.TIMEOUT, f"not finished {timeout_ns / NS_PER_S:g} s after it was due")
            if cancel_at_ns < deadline_ns:
                cut = Cut(Status.CANCELLED, cancel_reason(due.row))
        except asyncio.CancelledError:
            cut = Cut(Status.UNFINISHED, self._why_cut)
        except Exception as error:  # any failure of an engine fails the request, not the trial
            cut = Cut(Status.STREAM_ERROR, by_name("the engine failed", error))
        self._ended(due, trace, request, chunks, cut)
        self._dispatch()

    def _ended(self, due: Due, trace: Trace, request: Request, chunks: list[ReadChunk], cut: Cut | None) -> None:
        """Release the request's follower and store its record."""
        trace.done_ns = self._now_ns()
        outcome = _outcome(chunks, cut, request)
        next_turn = self._conversations.add_reply(due.row, outcome)
        if next_turn is not None:
            self._prepared.want(next_turn)
        self._queue.ended(due, trace.done_ns, failed=outcome.status in FAILED)
        self._state.record(trace, outcome)

    async def _read(self, request: Request, trace: Trace, chunks: list[ReadChunk]) -> None:
        stream: AsyncIterator[Chunk] = self._engine.generate(request)
        now_ns = self._now_ns
        arrivals: list[int] = []
        try:
            async for chunk in stream:
                arrivals.append(now_ns())
                chunks.append(ReadChunk(len(chunks), chunk))
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
            trace.arrivals, trace.lags = arrivals, [-1] * len(arrivals)
            if chunks:
                trace.first_body_read = 0

    def _cut_all(self, reason: str) -> None:
        self._why_cut = reason
        for task in list(self._tasks):
            task.cancel()

    def _tick(self, now_ns: int) -> None:
        self._prepared.step()

    def _end_if_over(self) -> None:
        self._state.report_counted()
        if not self._queue.over or self._state.finished.done():
            return
        if self._tasks and not self._ending and not self._state.control.stopped:
            self._ending = True
            self._cut_all("cut off: every measured request had ended")
        if not self._tasks:
            self._ending = True
            self._state.finished.set_result(None)


def _outcome(chunks: list[ReadChunk], cut: Cut | None, request: Request) -> Outcome:
    if cut is not None:
        return Outcome(cut.status, cut.reason, None, chunks, request.stream)
    server_error = next((chunk.text for _, chunk in chunks if chunk.kind is ChunkKind.ERROR), None)
    kinds = {chunk.kind for _, chunk in chunks}
    status, error = stream_verdict(kinds, server_error, None, streamed=request.stream)
    return Outcome(status, error, None, chunks, request.stream)
