"""Conversations and messages from files: what of them reaches a server, turn by turn."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from engines.base import Message, Request, Turn
from engines.dialects import get
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk, event
from harness.errors import ScenarioError
from harness.records import Loop, Record, Status
from harness.scenario.model import Scenario
from harness.scenario.reader import load_text
from harness.scenario.workload import Workload
from harness.schedule.requests import Schedule, build
from harness.units import Range
from tests.conversing import in_virtual_time, served
from tests.plans import load_of, workload_of
from tests.scripted_server import Call

SESSIONS = {"kind": "sessions", "rate": 20, "sessions": 6}


def talks(folder: Path) -> Path:
    """Three conversations of one, two and three turns, each begun by a system message."""
    path = folder / "talks.json"
    lines = []
    for turns in (1, 2, 3):
        said = [{"from": "system", "value": f"S{turns}"}]
        for turn in range(turns):
            said += [{"from": "human", "value": f"Q{turns}{turn}"}, {"from": "gpt", "value": "recorded"}]
        lines.append({"conversations": said, "max_tokens": 3 + turns})
    path.write_text(json.dumps(lines))
    return path


def of_file(path: Path, **keys: Any) -> Workload:
    """A workload with the prompts of a file."""
    return Workload.model_validate({"prompts": str(path), "output_tokens": 9} | keys)


def plan_of(path: Path, workload: dict[str, Any] | None = None, **load: Any) -> Schedule:
    """A plan over a file of prompts."""
    return build(load_of(**(load or SESSIONS)), of_file(path, **(workload or {})), 5)


async def numbered(call: Call) -> None:
    """A chat server that numbers its replies."""
    delta = event({"choices": [{"index": 0, "delta": {"content": f"reply {call.number}"}}]})
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    await call.send(STREAM_HEAD + chunk(delta) + chunk(end + event(b"[DONE]")) + LAST_CHUNK)


def test_each_session_is_a_conversation_of_the_file(tmp_path: Path) -> None:
    """Its system message and its own questions are sent, with the replies that came and not those of the file."""
    plan = plan_of(talks(tmp_path))
    records, bodies, _ = asyncio.run(served(plan, numbered, "openai-chat"))
    assert {record.status for record in records} == {Status.OK}
    sessions: dict[int | None, list[Record]] = defaultdict(list)
    for record in records:
        sessions[record.session].append(record)
    assert sorted(len(turns) for turns in sessions.values()) == [1, 1, 2, 2, 3, 3]
    seen = [[message["content"] for message in body["messages"]] for body in bodies]
    for turns in sessions.values():
        texts = [f"S{len(turns)}"]
        for turn, record in enumerate(turns):
            texts.append(f"Q{len(turns)}{turn}")
            assert texts in seen
            assert record.requested_output_tokens == 3 + len(turns)
            texts.append(str(record.text))
    roles = {tuple(message["role"] for message in body["messages"]) for body in bodies}
    assert max(roles, key=len) == ("system", "user", "assistant", "user", "assistant", "user")


def test_turns_bound_the_conversations_of_a_file(tmp_path: Path) -> None:
    """For sessions and for users alike; the hash of the plan differs."""
    whole, two = plan_of(talks(tmp_path)), plan_of(talks(tmp_path), turns=2, **SESSIONS)
    assert (whole.count, two.count) == (24, 20)  # with the load that goes on
    assert whole.plan_hash != two.plan_hash
    closed = plan_of(talks(tmp_path), {"turns": 2}, kind="sustained", users=2, requests=20)
    records, asked = in_virtual_time(closed, ttft_ms=5)
    assert {record.status for record in records} == {Status.OK}
    assert {(len(request.before), len(request.history)) for request in asked} == {(1, 0), (1, 1)}
    assert {request.prompt for request in asked} == {"Q10", "Q20", "Q21", "Q30", "Q31"}


def test_other_loads_send_the_first_turn(tmp_path: Path) -> None:
    """With its system message, and the length that its line states."""
    plan = plan_of(talks(tmp_path), kind="single_user", requests=6)
    _, asked = in_virtual_time(plan)
    assert {(one.before, one.prompt, one.max_tokens) for one in asked} == {
        ((Message("system", f"S{turns}"),), f"Q{turns}0", 3 + turns) for turns in (1, 2, 3)
    }


def test_the_turns_of_a_file_are_estimated(tmp_path: Path) -> None:
    """`turns` is not needed beside a file of conversations, and their mean number is expected."""
    item, workload = load_of(**SESSIONS), of_file(talks(tmp_path))
    assert item.expected_requests(workload) == Range.exactly(12)
    scenario = {"engines": [{"engine": "simulated"}], "load": [SESSIONS]}
    text = json.dumps(scenario | {"workload": {"prompts": str(talks(tmp_path))}})
    assert isinstance(load_text(text, "s.yaml"), Scenario)
    (tmp_path / "plain.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(ScenarioError, match="needs `turns`"):
        load_text(json.dumps(scenario | {"workload": {"prompts": str(tmp_path / "plain.jsonl")}}), "s.yaml")


def test_plain_prompts_are_the_turns_of_drawn_conversations(tmp_path: Path) -> None:
    """A file without conversations gives each turn its next line, as before."""
    (tmp_path / "plain.jsonl").write_text("".join(f'{{"prompt": "P{i}"}}\n' for i in range(50)))
    plan = plan_of(tmp_path / "plain.jsonl", kind="sessions", rate=20, sessions=3, turns=2)
    offset = plan.prompt_files["default"]["offset"]
    assert [plan.request(i).prompt for i in range(6)] == [f"P{(offset + i) % 50}" for i in range(6)]


def test_sent_conversations_count_once(tmp_path: Path) -> None:
    """The lines that a load has used are its conversations, not its turns."""
    plan = plan_of(talks(tmp_path))
    ((_, _, lines),) = plan.file_lines(12)
    assert len(lines) == 6
    assert set(lines.tolist()) == {0, 1, 2}


def test_a_trace_with_sessions_is_a_partly_open_load(tmp_path: Path) -> None:
    """A later request is due its delay after the reply before it, and carries the conversation."""
    rows = [
        {"session_id": "a", "timestamp": 1000, "input_length": 20, "output_length": 5},
        {"session_id": "b", "timestamp": 1500, "input_length": 20, "output_length": 5},
        {"session_id": "a", "delay": 200, "input_length": 10, "output_length": 4},
        {"session_id": "a", "input_length": 10, "output_length": 3},
    ]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = build(load_of(kind="trace", file=str(path), time_scale=2), workload_of(), 1)
    assert (plan.loop, plan.count, plan.to_be_done) == (Loop.PARTLY_OPEN, 4, 4)
    records, asked = in_virtual_time(plan, ttft_ms=30, tpot_ms=2)
    assert [(one.session, one.turn) for one in records] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert [one.requested_output_tokens for one in records] == [5, 4, 3, 5]
    first, second, third, other = records
    assert (first.due_ns, other.due_ns) == (0, 1_000_000_000)
    assert second.due_ns - first.last_token_ns == pytest.approx(400_000_000, abs=1_000_000)  # type: ignore[operator]
    assert third.due_ns - second.last_token_ns == pytest.approx(0, abs=1_000_000)  # type: ignore[operator]
    assert sorted(len(request.history) for request in asked) == [0, 0, 1, 2]
    item = load_of(kind="trace", file=str(path))
    assert item.expected_requests() == Range.exactly(4)
    assert item.recorded_tokens() == 25 + (25 + 14) + (39 + 13) + 25


@pytest.mark.parametrize("name", ["openai-chat", "ollama-chat"])
def test_chat_dialects_carry_messages_as_they_are(name: str) -> None:
    """Those of the file in their roles, then the conversation, then the prompt."""
    before = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"))
    request = Request("p", 5, before=before, history=(Turn("q", "r"),))
    messages = json.loads(get(name).encode(request, "m").body)["messages"]
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    assert [(one["role"], one["content"]) for one in messages] == list(zip(roles, "suaqrp", strict=True))


def test_text_dialects_carry_one_transcript() -> None:
    """An empty line follows each message of the file."""
    request = Request("p", 5, before=(Message("system", "s"), Message("user", "u")), history=(Turn("q", "r"),))
    body = json.loads(get("openai-completions").encode(request, "m").body)
    assert body["prompt"] == "s\n\nu\n\nqr\n\np"
