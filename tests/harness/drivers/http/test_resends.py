"""Resent requests: connections that the server closes before, while and after it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from engines.base import Endpoint
from harness.drivers.http.connection import Connection
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk
from harness.records import Record, Status
from tests.scripted_server import MS, Call, Plan, ending, measure, open_plan, piece, reply, run

pytestmark = pytest.mark.slow

CLOSING = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


@pytest.fixture(autouse=True)
def at_once_is_whenever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine sees the end of a connection late; here it is always soon enough to be right behind a reply."""
    for name in ("connection.AT_ONCE_NS", "connection._SOON_NS", "pool.AT_ONCE_NS"):
        monkeypatch.setattr(f"harness.drivers.http.{name}", 10**18)


@pytest.fixture
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is used again at once, as one of a server that is known to leave them open."""
    monkeypatch.setattr("harness.drivers.http.pool._REST_NS", 0)


async def good(call: Call) -> None:
    """A good reply."""
    await call.good()


async def vanishing(call: Call) -> None:
    """Closes the connection instead of replying."""
    call.writer.close()


async def silent(call: Call) -> None:
    """Closes the connection behind a good reply, and says nothing of it."""
    await call.good()
    call.writer.close()


async def polite(call: Call) -> None:
    """Closes the connection behind a good reply that said so."""
    await call.send(CLOSING + chunk(piece()) + chunk(ending()) + LAST_CHUNK)
    call.writer.close()


def statuses(records: Sequence[Record]) -> list[str]:
    """Return the statuses."""
    return [record.status for record in records]


def habits(report: Any) -> list[str]:
    """The notes about connections that are closed after replies."""
    return [note for note in report.notes if "closes connections after their replies" in note]


@pytest.mark.parametrize("plan", [open_plan(range(0, 100, 5)), Plan(20, users=4)], ids=["open", "closed"])
def test_a_request_that_was_read_and_dropped_is_an_error(plan: Plan) -> None:
    """Twenty are planned, twenty arrive, twenty are connection errors: nothing is asked twice behind anybody's back."""
    records, report, server = run(vanishing, plan)
    assert statuses(records) == [Status.CONNECTION_ERROR] * 20
    assert len(server.calls) == 20
    assert report.resends == sum(record.resends for record in records) == 0
    assert not [note for note in report.notes if "sent again" in note]


@pytest.mark.usefixtures("no_rest")
def test_a_request_dropped_on_a_connection_that_had_served_before_is_an_error() -> None:
    """That the server had answered on it once is no sign that it did not read the second."""

    async def script(call: Call) -> None:
        await (vanishing if call.number == 1 else good)(call)

    records, report, server = run(script, Plan(3, users=1), warm_connections=1)
    assert statuses(records) == [Status.OK, Status.CONNECTION_ERROR, Status.OK]
    assert (len(server.calls), report.resends) == (3, 0)


def test_a_request_with_a_partial_reply_is_not_resent() -> None:
    """A first byte is proof that it was read."""

    async def script(call: Call) -> None:
        if call.number != 1:
            await call.good()
            return
        await call.send(STREAM_HEAD + chunk(piece()))
        call.writer.close()

    records, report, server = run(script, Plan(2, users=1), warm_connections=1)
    assert statuses(records) == [Status.OK, Status.TRUNCATED]
    assert (len(server.calls), report.resends) == (2, 0)


@pytest.mark.parametrize("think_ms", [0, 5])
@pytest.mark.parametrize("script", [silent, polite])
def test_no_request_is_read_twice_or_lost_where_connections_close_after_replies(script: Any, think_ms: int) -> None:
    """Whenever the end of a connection is seen, each of thirty requests is read once and answered."""
    records, report, server = run(script, Plan(30, users=3, think_ns=think_ms * MS))
    assert statuses(records) == [Status.OK] * 30
    assert len(server.calls) == 30
    assert report.resends == sum(record.resends for record in records)
    assert all(record.resends in (0, 1) for record in records)


@pytest.mark.usefixtures("no_rest")
@pytest.mark.parametrize("unread", [True, False])
def test_only_what_was_not_read_is_sent_again(monkeypatch: pytest.MonkeyPatch, unread: bool) -> None:
    """A request is resent once, with a note, if its bytes were unacknowledged at the end; otherwise it is an error."""
    monkeypatch.setattr(Connection, "_unacknowledged", lambda self: unread)

    async def script(call: Call) -> None:
        await (vanishing if call.number == 1 else good)(call)

    records, report, server = run(script, Plan(3, users=1), warm_connections=1)
    assert statuses(records) == [Status.OK, Status.OK if unread else Status.CONNECTION_ERROR, Status.OK]
    assert [record.resends for record in records] == [0, int(unread), 0]
    assert len(server.calls) == 3 + unread
    assert report.resends == unread
    assert [note for note in report.notes if note.startswith("1 request was sent again")] != [] if unread else True


@pytest.mark.usefixtures("no_rest")
def test_a_request_is_sent_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new connection that ends in the same way it is an error."""
    monkeypatch.setattr(Connection, "_unacknowledged", lambda self: True)

    async def script(call: Call) -> None:
        await (good if call.number == 0 else vanishing)(call)

    records, report, server = run(script, Plan(2, users=1), warm_connections=1)
    assert statuses(records) == [Status.OK, Status.CONNECTION_ERROR]
    assert ([record.resends for record in records], report.resends, len(server.calls)) == ([0, 1], 1, 3)


@pytest.mark.usefixtures("no_rest")
def test_the_clock_of_a_request_that_is_sent_again_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies count from the first sending; what the server took to lose it is in them, and no lag of the client."""
    monkeypatch.setattr(Connection, "_unacknowledged", lambda self: True)
    log_ns: list[int] = []

    async def script(call: Call) -> None:
        if call.number == 1:
            await call.send(b"", after_ms=30)
            log_ns.extend(call.log_ns)
            call.writer.close()
        else:
            await call.good()

    records, report, _ = run(script, Plan(2, users=1), warm_connections=1)
    again = records[1]
    assert (again.status, again.resends) == (Status.OK, 1)
    assert again.sent_ns is not None
    assert again.first_token_ns is not None
    assert again.sent_ns + report.t0_ns < log_ns[0] < again.first_token_ns + report.t0_ns


def test_a_connection_found_closed_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed connection is not written to, so no request is sent twice."""
    monkeypatch.setattr(Connection, "gone", lambda self: self.used)
    records, report, server = run(good, Plan(3, users=1), warm_connections=1)
    assert statuses(records) == [Status.OK] * 3
    assert (len(server.calls), server.connections, report.resends) == (3, 3, 0)
    assert [record.connection_reused for record in records][:2] == [True, False]


@pytest.mark.parametrize("script", [silent, polite])
def test_three_connections_closed_in_a_row_are_a_habit(script: Any) -> None:
    """Two may be chance; from the third on one is opened ahead for each request, and a note says so once."""
    assert not habits(run(script, Plan(2, users=1, think_ns=MS), warm_connections=1)[1])
    assert len(habits(run(script, Plan(9, users=1, think_ns=MS), warm_connections=1)[1])) == 1


@pytest.mark.usefixtures("no_rest")
def test_a_connection_that_is_kept_breaks_the_row() -> None:
    """Closed twice, kept once and used again, closed twice: no habit."""

    async def script(call: Call) -> None:
        await (good if call.number == 2 else polite)(call)

    records, report, server = run(script, Plan(5, users=1, think_ns=MS), warm_connections=1)
    assert statuses(records) == [Status.OK] * 5
    assert [call.connection for call in server.calls] == [0, 1, 2, 2, 3]
    assert not habits(report)


async def draining(call: Call) -> None:
    """Ends the connection behind a good reply, then reads what comes and throws it away, as llama.cpp does."""
    await call.good()
    call.writer.write_eof()
    await call.reader.read()
    call.writer.close()


@pytest.mark.parametrize("users", [1, 3, 40])
def test_a_server_that_throws_away_what_comes_behind_its_reply_fails_nobody(users: int) -> None:
    """No request goes down a connection after its reply, until it is known that the server leaves those open."""
    records, report, server = run(draining, Plan(6 * users, users=users))
    assert statuses(records) == [Status.OK] * 6 * users
    assert len(server.calls) == 6 * users
    assert len(habits(report)) == 1


def test_a_rested_connection_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one was left open for long enough, others are opened; then they serve in turn."""
    monkeypatch.setattr("harness.drivers.http.pool._REST_NS", 10**18)
    records, _, server = run(good, Plan(5, users=1), warm_connections=1)
    assert statuses(records) == [Status.OK] * 5
    assert server.connections == 5
    monkeypatch.setattr("harness.drivers.http.pool._REST_NS", 0)
    assert run(good, Plan(5, users=1), warm_connections=1)[2].connections == 1


def test_no_more_than_sixteen_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is not flooded with connections while this is being learnt."""
    monkeypatch.setattr("harness.drivers.http.pool._REST_NS", 10**18)
    assert run(good, Plan(100, users=1), warm_connections=1)[2].connections == 17


def test_connections_closed_after_refusals_are_no_habit() -> None:
    """A server that closes with an error keeps those of good replies."""

    async def script(call: Call) -> None:
        await call.send(reply("503 busy", b"{}", "connection: close"))
        call.writer.close()

    records, report, _ = run(script, Plan(5, users=1), warm_connections=1)
    assert statuses(records) == [Status.REJECTED] * 5
    assert not habits(report)


def test_what_the_other_side_takes_to_accept_is_known() -> None:
    """On a new connection from dispatch until the last byte was taken, on an open one next to nothing; what is left of
    the lag is the client's.
    """
    records, report, _ = run(good, open_plan([0, 0, 40]), warm_connections=1)
    fresh = [record for record in records if record.connected_ns is not None]
    assert fresh
    for record in records:
        assert record.accepting_ns is not None
        taken_ns = record.sent_ns - record.dispatched_ns  # type: ignore[operator]
        assert record.accepting_ns == taken_ns if record in fresh else 0 <= record.accepting_ns <= taken_ns
    own_ms = [(one.sent_ns - one.due_ns - one.accepting_ns) / 1e6 for one in records]  # type: ignore[operator]
    assert report.send_lag_max_ms == pytest.approx(max(own_ms))


def test_what_was_never_sent_was_never_accepted() -> None:
    """A request without a server is not resent either."""
    records, _ = asyncio.run(measure(Endpoint("http://127.0.0.1:9", "openai-completions"), open_plan([0])))
    assert [(record.accepting_ns, record.resends) for record in records] == [(None, 0)]
