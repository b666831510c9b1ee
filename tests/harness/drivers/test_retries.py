"""Retries: a refused request is sent again until a reply begins, within its time-out, and each attempt is counted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from engines.base import Endpoint
from harness.drivers import retries
from harness.drivers.base import Control, DriveReport
from harness.drivers.http.connection import Exchange
from harness.drivers.http.response import ResponseReader
from harness.drivers.outcome import Cut
from harness.drivers.retry_policy import RetryPolicy
from harness.drivers.stub import STREAM_HEAD, chunk
from harness.drivers.timeline import Trace
from harness.records import Record, Status
from harness.scenario.loads.retries import Retries
from tests.scripted_server import MS, Call, Plan, ScriptedServer, measure, open_plan, piece, reply, run, serving

BUSY = b'{"error": {"message": "too busy"}}'


def policy(times: int = 3, wait_ms: int = 20, *, on: tuple[int, ...] = (429, 503), connect: bool = True) -> RetryPolicy:
    """A policy with short waits."""
    return RetryPolicy(times, on, connect, wait_ms * MS)


def refusing(failures: int, status: str = "503 -", *headers: str) -> Callable[[Call], Awaitable[None]]:
    """A server that refuses each request so often, then answers."""
    seen: dict[bytes, int] = {}

    async def script(call: Call) -> None:
        seen[call.body] = seen.get(call.body, 0) + 1
        if seen[call.body] <= failures:
            await call.send(reply(status, BUSY, *headers))
        else:
            await call.good()

    return script


def took_ms(record: Record) -> float:
    """From due to the end."""
    return ((record.done_ns or 0) - (record.due_ns or 0)) / MS


def test_a_refused_request_is_sent_until_it_is_answered() -> None:
    """503 twice, then a reply: the request is a success that took both waits, the second twice as long as the first.
    Its first sending is where it began.
    """
    (record,), report, server = run(refusing(2), open_plan([0]), retries=policy())
    assert (record.status, record.error, record.http_status, record.retries) == (Status.OK, None, 200, 2)
    assert len(server.calls) == 3
    assert len({call.body for call in server.calls}) == 1
    assert took_ms(record) >= 20 + 40
    assert record.attempt_end == ["HTTP 503", "HTTP 503", "ok"]
    sent, done = record.attempt_sent_ns or [], record.attempt_done_ns or []
    assert (sent[0], done[-1]) == (record.sent_ns, record.done_ns)
    for ended, again, wait_ms in zip(done, sent[1:], (20, 40), strict=False):
        assert (again or 0) - (ended or 0) >= wait_ms * MS
    assert all((one or 0) < (end or 0) for one, end in zip(sent, done, strict=True))
    assert (record.first_token_ns or 0) - (record.sent_ns or 0) >= 60 * MS
    assert record.output_tokens == 2
    assert report.retried == {"HTTP 503": 2}
    assert report.recorded == 1


def test_without_retries_each_is_sent_once() -> None:
    """As before: the refusal is the outcome."""
    (record,), report, server = run(refusing(1), open_plan([0]))
    assert (record.status, record.retries, len(server.calls)) == (Status.REJECTED, 0, 1)
    assert (record.attempt_sent_ns, record.attempt_done_ns, record.attempt_end) == (None, None, None)
    assert report.retried == {}


def test_retries_run_out() -> None:
    """The last refusal is the outcome, and only what came before it was retried."""
    (record,), report, server = run(refusing(9), open_plan([0]), retries=policy(times=2, wait_ms=1))
    assert (record.status, record.http_status, record.retries) == (Status.REJECTED, 503, 2)
    assert record.error == "the server answered HTTP 503: too busy"
    assert len(server.calls) == 3
    assert report.retried == {"HTTP 503": 2}


def test_only_the_named_statuses_are_retried() -> None:
    """A 400 is the client's own fault, unless it is named."""
    (record,), _, server = run(refusing(1, "400 -"), open_plan([0]), retries=policy())
    assert (record.status, len(server.calls)) == (Status.HTTP_ERROR, 1)
    (record,), report, server = run(refusing(1, "400 -"), open_plan([0]), retries=policy(on=(400,)))
    assert (record.status, len(server.calls)) == (Status.OK, 2)
    assert report.retried == {"HTTP 400": 1}


@pytest.mark.parametrize(
    ("said", "own_ms", "least_ms"),
    [("0", 60_000, 0), ("0.2", 60_000, 200), ("-1", 30, 30), ("Mon, 30 Nov 2026 08:00:00 GMT", 30, 30)],
)
def test_the_server_says_how_long_to_wait(said: str, own_ms: int, least_ms: float) -> None:
    """`Retry-After` in seconds replaces our own wait; anything else, such as a date, does not."""
    script = refusing(1, "429 -", f"retry-after: {said}")
    (record,), _, _ = run(script, open_plan([0]), retries=policy(wait_ms=own_ms), timeout_ms=300_000)
    assert (record.status, record.retries) == (Status.OK, 1)
    assert least_ms <= took_ms(record) < 60_000


def test_no_retry_begins_after_the_time_out() -> None:
    """The server asks for a minute and the time-out is 2 s: the refusal is the outcome at once."""
    script = refusing(1, "429 -", "retry-after: 60")
    (record,), report, server = run(script, open_plan([0]), retries=policy(), timeout_ms=2000)
    assert (record.status, record.retries, len(server.calls)) == (Status.REJECTED, 0, 1)
    assert report.retried == {}


def test_the_time_out_is_that_of_all_attempts_together() -> None:
    """The second attempt hangs; the request ends 1 s after it was due, not after it was sent again."""

    async def script(call: Call) -> None:
        if call.number:
            await asyncio.get_running_loop().create_future()
        await call.send(reply("503 -", BUSY))

    (record,), report, _ = run(script, open_plan([0]), retries=policy(wait_ms=900), timeout_ms=1000)
    assert (record.status, record.retries) == (Status.TIMEOUT, 1)
    assert 1000 <= took_ms(record) < 1900
    assert report.retried == {"HTTP 503": 1}


@pytest.mark.parametrize("begun", [STREAM_HEAD, STREAM_HEAD + chunk(piece())])
def test_a_reply_that_has_begun_is_never_asked_for_again(begun: bytes) -> None:
    """The connection ends after the head, or after the first token: that is the outcome."""

    async def script(call: Call) -> None:
        await call.send(begun)
        call.hang_up()

    (record,), report, server = run(script, open_plan([0]), retries=policy())
    assert record.status in (Status.TRUNCATED, Status.CONNECTION_ERROR, Status.EMPTY)
    assert (record.retries, len(server.calls), report.retried) == (0, 1, {})


def test_a_connection_that_fails_before_the_reply_is_tried_again() -> None:
    """The server hangs up on the first two calls. Without `connect` that is the outcome."""

    async def script(call: Call) -> None:
        if call.number < 2:
            call.hang_up()
        else:
            await call.good()

    (record,), report, _ = run(script, open_plan([0]), retries=policy(wait_ms=1))
    assert (record.status, record.retries, report.retried) == (Status.OK, 2, {"connect": 2})
    (record,), report, _ = run(script, open_plan([0]), retries=policy(connect=False))
    assert (record.status, record.retries, report.retried) == (Status.CONNECTION_ERROR, 0, {})


def test_a_server_that_starts_late_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens until the first attempt has failed. What was never sent before counts from its first sending, and
    the time until then is the server's, also on a connection that another request has opened: no part of our own lag.
    """
    put_off, server = retries.Retries.put_off, ScriptedServer(Call.good)

    async def main() -> tuple[list[Record], DriveReport]:
        loop, starts = asyncio.get_running_loop(), list[asyncio.Task[None]]()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        def start_then(*failed: Any) -> bool:
            if not starts:
                starts.append(loop.create_task(server.start(port=port)))
            return put_off(*failed)

        monkeypatch.setattr(retries.Retries, "put_off", start_then)
        endpoint = Endpoint(f"http://127.0.0.1:{port}", "openai-completions", "stub")
        plan, patient = open_plan([0, 100]), policy(times=9, wait_ms=200)
        found = await measure(endpoint, plan, retries=patient, warm_connections=0)
        server.kill()
        return found

    (record, later), report = asyncio.run(main())
    assert [one.status for one in (record, later)] == [Status.OK] * 2
    assert record.retries >= 1
    assert report.retried == {"connect": record.retries + later.retries}
    sent, dispatched = record.sent_ns or 0, record.dispatched_ns or 0
    assert record.accepting_ns == sent - dispatched >= 200 * MS


def test_what_this_machine_lacks_is_not_asked_for_again() -> None:
    """A request that found no file or port fails as it does without retries; what the server did is tried again."""
    waiting = retries.Retries(policy(), 60_000 * MS, {})
    for reason, again in (("nothing listens", True), ("no connection: Too many open files", False)):
        trace = Trace(Plan(1, due_ns=[0]).row(0), 0, "measure", done_ns=5)
        exchange = Exchange(trace, b"", ResponseReader())
        assert waiting.put_off(exchange, Cut(Status.CONNECTION_ERROR, reason)) is again, reason


def test_a_request_that_waits_for_its_next_attempt_keeps_its_place() -> None:
    """Two places, the first request refused once: the third is sent when the second has ended, not before."""
    order: list[str] = []

    async def script(call: Call) -> None:
        first = call.number == 0
        order.append("refused" if first else "answered")
        await (call.send(reply("503 -", BUSY)) if first else call.good())

    plan = open_plan([0, 0, 0, 0])
    records, _, _ = run(script, plan, retries=policy(wait_ms=300), most_in_flight=1)
    assert [one.status for one in records] == [Status.OK] * 4
    assert [one.retries for one in records] == [1, 0, 0, 0]
    assert order == ["refused", *["answered"] * 4]
    assert (records[1].held_ns or 0) >= 300 * MS


def test_users_go_on_when_the_last_attempt_has_ended() -> None:
    """Closed loop: the next request of the user is due after all attempts."""
    records, _, server = run(refusing_every_other(), Plan(4, users=1), retries=policy(wait_ms=5))
    assert [one.status for one in records] == [Status.OK] * 4
    assert [one.retries for one in records] == [1] * 4
    assert len(server.calls) == 8
    assert all((after.due_ns or 0) >= (one.done_ns or 0) for one, after in pairwise(records))


def refusing_every_other() -> Callable[[Call], Awaitable[None]]:
    """A server that refuses each first call of two."""

    async def script(call: Call) -> None:
        await (call.good() if call.number % 2 else call.send(reply("503 -", BUSY)))

    return script


def test_a_stopped_load_sends_nothing_again() -> None:
    """What waits for its next attempt when the load is stopped ends with the refusal that it has."""
    control = Control()

    async def script(call: Call) -> None:
        await call.send(reply("503 -", BUSY))
        asyncio.get_running_loop().call_later(0.1, control.stop)

    patient = {"retries": policy(wait_ms=60_000), "timeout_ms": 300_000}
    (record,), report, server = run(script, open_plan([0]), control=control, **patient)
    assert (record.status, record.http_status, record.retries) == (Status.REJECTED, 503, 0)
    assert took_ms(record) < 5000
    assert (len(server.calls), report.retried) == (1, {})


def test_load_after_the_window_is_cut_off_while_it_waits() -> None:
    """A cooldown request that waits for its next attempt does not keep the trial running."""

    async def script(call: Call) -> None:
        await (call.good() if call.number == 0 else call.send(reply("503 -", BUSY)))

    async def main() -> list[Record]:
        async with serving(slow_first) as server:
            plan = open_plan([0, 10], phases=[1, 2])
            patient = policy(wait_ms=60_000)
            return (await measure(server.endpoint, plan, retries=patient, timeout_ms=300_000))[0]

    async def slow_first(call: Call) -> None:
        if call.number == 0:
            await asyncio.sleep(0.1)
        await script(call)

    first, after = asyncio.run(main())
    assert first.status == Status.OK
    assert (after.status, after.error) == (Status.UNFINISHED, "cut off: every measured request had ended")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"times": 2}, RetryPolicy(2, (429, 503), True, 500 * MS)),
        ({"times": 1, "on": [500], "wait": "1s"}, RetryPolicy(1, (500,), False, 1000 * MS)),
        ({"times": 1, "on": "connect"}, RetryPolicy(1, (), True, 500 * MS)),
    ],
)
def test_the_policy_is_what_the_scenario_says(given: dict[str, Any], found: RetryPolicy) -> None:
    """With its defaults: what a client of OpenAI's does about a busy server."""
    assert RetryPolicy.of(Retries.model_validate(given)) == found
    assert RetryPolicy.of(None) is None
    assert RetryPolicy.of(Retries.model_validate({"times": 0})) is None


def test_what_read_an_earlier_attempt_is_let_go() -> None:
    """It and its parser hold each other, and nothing collects them while the load runs."""
    released: list[bool] = []
    trace = SimpleNamespace(attempts=[], attempt_sent_ns=1, done_ns=2, stamps=[b""], read_ns=[1])
    exchange: Any = SimpleNamespace(reply=SimpleNamespace(release=lambda: released.append(True)), trace=trace)
    assert retries._begun_again(exchange, "429").reply is not None
    assert released == [True]
    assert (len(trace.attempts), trace.stamps, trace.read_ns) == (1, [], [])
