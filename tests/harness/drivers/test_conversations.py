"""Conversations: later turns carry the replies that really came, wait for them, and end with them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from typing import Any

import pytest

from engines.base import Request
from engines.dialects import get
from harness.drivers.base import Control
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk, event
from harness.records import Loop, Status
from harness.schedule.requests import Schedule, build
from tests.conversing import in_virtual_time, served
from tests.plans import load_of, workload_of
from tests.scripted_server import MS, SECOND, Call, ending, piece

pytestmark = pytest.mark.slow

TALKS = {"kind": "sessions", "rate": 20, "sessions": 4, "turns": 3, "think_time": "20ms"}


def plan_of(workload: dict[str, Any] | None = None, **load: Any) -> Schedule:
    """A plan of conversations."""
    return build(load_of(**(load or TALKS)), workload_of(prompt_tokens=12, **(workload or {})), 5)


def test_turns_carry_the_replies_that_came_in_process() -> None:
    """Each turn knows the prompts and replies before it, and falls due after reply and think time."""
    plan = plan_of()
    records, asked = in_virtual_time(plan, ttft_ms=30, tpot_ms=2)
    assert plan.to_be_done == len(records) == 12
    by_prompt = {request.prompt: request for request in asked}
    for record in records:
        request = by_prompt[plan.request(record.request).prompt]
        earlier = [one for one in records if one.session == record.session and one.turn < record.turn]
        assert [turn.reply for turn in request.history] == [one.text for one in earlier]
        assert [turn.prompt for turn in request.history] == [plan.request(one.request).prompt for one in earlier]
        assert record.status == Status.OK
        if record.turn:
            before = earlier[-1]
            assert record.due_ns == before.done_ns + 20 * MS  # type: ignore[operator]
            assert (record.after, record.think_ns, record.loop) == (before.request, 20 * MS, Loop.CLOSED)
        else:
            assert (record.after, record.think_ns, record.loop) == (None, None, Loop.OPEN)


def test_a_transcript_puts_each_reply_behind_its_prompt() -> None:
    """The exact form that engines of one text get, and what chats get."""
    plan = plan_of()
    _, asked = in_virtual_time(plan)
    request = next(one for one in asked if len(one.history) == 2)
    first, second = request.history
    text = f"{first.prompt}{first.reply}\n\n{second.prompt}{second.reply}\n\n{request.prompt}"
    assert request.transcript == text
    assert json.loads(get("openai-completions").encode(request, None).body)["prompt"] == text
    assert json.loads(get("openai-chat").encode(request, None).body)["messages"] == [
        {"role": "user", "content": first.prompt},
        {"role": "assistant", "content": first.reply},
        {"role": "user", "content": second.prompt},
        {"role": "assistant", "content": second.reply},
        {"role": "user", "content": request.prompt},
    ]
    with pytest.raises(ValueError, match="cannot continue with token ids"):
        assert Request((1, 2), 1, history=request.history).transcript


@pytest.mark.parametrize("think_time", ["0s", "20ms"])
def test_turns_carry_the_replies_that_came_over_the_wire(think_time: str) -> None:
    """A chat server that numbers its replies finds them in the next turn, however short the think time is."""

    async def numbered(call: Call) -> None:
        delta = event({"choices": [{"index": 0, "delta": {"content": f" reply {call.number}"}}]})
        end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        await call.send(STREAM_HEAD + chunk(delta) + chunk(end + event(b"[DONE]")) + LAST_CHUNK)

    plan = plan_of(kind="sessions", rate=50, sessions=6, turns=3, think_time=think_time)
    records, bodies, _ = asyncio.run(served(plan, numbered, "openai-chat"))
    assert [record.status for record in records] == [Status.OK] * 18
    replies: dict[int | None, list[str | None]] = defaultdict(list)
    for record in records:
        asked = plan.request(record.request).prompt
        body = next(body for body in bodies if body["messages"][-1]["content"] == asked)
        said = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        assert said == replies[record.session]
        replies[record.session].append(record.text)
    assert all(record.due_ns <= record.sent_ns for record in records)  # type: ignore[operator]


def test_users_hold_one_conversation_after_the_other() -> None:
    """In a closed loop; the load's think time lies between conversations, the workload's between turns."""
    plan = plan_of({"turns": 2, "think_time": "50ms"}, kind="sustained", users=2, requests=9, think_time="1s")
    records, asked = in_virtual_time(plan, ttft_ms=10, tpot_ms=0)
    assert [(record.user, record.session, record.turn) for record in records] == [
        (0, 0, 0), (1, 1, 0), (0, 0, 1), (1, 1, 1), (0, 2, 0), (1, 3, 0), (0, 2, 1), (1, 3, 1), (0, 4, 0)
    ]  # fmt: skip
    assert {record.loop for record in records} == {Loop.CLOSED}
    assert [record.think_ns for record in records[2:6]] == [50 * MS, 50 * MS, SECOND, SECOND]
    begun = {plan.request(record.request).prompt for record in records if not record.turn}
    assert sorted(len(request.history) for request in asked if request.prompt in begun) == [0] * 5
    assert sum(len(request.history) for request in asked) == 4


def test_a_failed_turn_ends_its_conversation() -> None:
    """Later turns are `not_sent` with a reason; other conversations and users continue."""
    records, _ = in_virtual_time(plan_of(), error_every=5)
    assert len(records) == 12
    failed = [record for record in records if record.status == Status.STREAM_ERROR]
    assert failed
    for record in records:
        broken = [one for one in failed if one.session == record.session and one.turn < record.turn]
        if broken:
            assert record.status == Status.NOT_SENT
            assert record.sent_ns is None
            assert record.error == (
                f"the conversation was interrupted: its turn {broken[0].turn + 1} had failed (stream error)"
            )
            assert record.due_ns > broken[0].done_ns  # type: ignore[operator]
    plan = plan_of({"turns": 3}, kind="sustained", users=2, requests=20)
    records, _ = in_virtual_time(plan, error_every=4)
    assert {Status.OK, Status.NOT_SENT, Status.STREAM_ERROR} == {record.status for record in records}


def test_another_request_takes_the_place_of_a_turn_that_was_not_sent() -> None:
    """Two users, 20 requests, every fourth fails: 20 are sent, of them 5 fail, whatever was broken off."""
    plan = plan_of({"turns": 3}, kind="sustained", users=2, requests=20)
    records, _ = in_virtual_time(plan, error_every=4)
    sent = [record for record in records if record.sent_ns is not None]
    assert Counter(record.status for record in sent) == {Status.OK: 15, Status.STREAM_ERROR: 5}
    assert len(records) > 20


def test_a_failed_turn_ends_its_conversation_over_the_wire() -> None:
    """An HTTP error in the first turn of one of two conversations: its two later turns are not sent."""
    plan = plan_of(kind="sessions", rate=20, sessions=2, turns=3, arrivals="constant")

    async def script(call: Call) -> None:
        if json.loads(call.body)["prompt"] == plan.request(0).prompt:
            body = b"{}"
            await call.send(b"HTTP/1.1 500 no\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        else:
            await call.send(STREAM_HEAD + chunk(piece(" fine")) + chunk(ending(1)) + LAST_CHUNK)

    records, bodies, _ = asyncio.run(served(plan, script))
    statuses = [record.status for record in records]
    assert statuses == [Status.HTTP_ERROR, Status.NOT_SENT, Status.NOT_SENT, Status.OK, Status.OK, Status.OK]
    begun = [[body for body in bodies if body["prompt"].startswith(plan.request(i).prompt)] for i in (0, 3)]
    assert [len(some) for some in begun] == [1, 3]


def test_a_server_that_closes_idle_connections_between_turns_is_reached_again() -> None:
    """The next turn opens a new connection, which its record says, and no row fails."""

    async def closing(call: Call) -> None:
        await call.send(STREAM_HEAD + chunk(piece(" fine")) + chunk(ending(1)) + LAST_CHUNK)
        await asyncio.sleep(0.02)
        call.writer.close()

    plan = plan_of(kind="sessions", rate=0.01, sessions=1, turns=3, think_time="100ms", arrivals="constant")
    records, _, connections = asyncio.run(served(plan, closing))
    assert [record.status for record in records] == [Status.OK] * 3
    assert connections >= 3


def test_a_stopped_trial_records_every_turn() -> None:
    """With a number of conversations each turn has a row, even if its conversation never began."""
    control = Control()

    async def stopping(call: Call) -> None:
        control.stop()
        await call.send(STREAM_HEAD + chunk(piece(" fine")) + chunk(ending(1)) + LAST_CHUNK)

    plan = plan_of(kind="sessions", rate=0.01, sessions=4, turns=3, arrivals="constant")  # the second after 100 s
    records, bodies, _ = asyncio.run(served(plan, stopping, control=control))
    assert len(bodies) == 1
    assert [record.status for record in records] == [Status.OK] + [Status.NOT_SENT] * 11
