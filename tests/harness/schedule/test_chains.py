"""Chains of requests: users, conversations, single requests."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from harness.records import Phase
from harness.scenario.lengths import Turns
from harness.schedule.chains import Chains, Sessions, TurnCounts, Users
from harness.schedule.requests import build
from tests.plans import load_of, workload_of

TURNS = {"dist": "uniform", "min": 1, "max": 5}


def turn_counts(seed: int = 1, turns: object = TURNS) -> TurnCounts:
    """Numbers of turns as a scenario asks for them."""
    return TurnCounts(TypeAdapter(Turns).validate_python(turns), seed)


CHAINS = st.one_of(
    st.builds(Chains, st.integers(0, 60)),
    st.builds(Users, st.integers(1, 9), st.integers(1, 200)),
    st.builds(Users, st.integers(1, 9), st.integers(1, 200), st.builds(turn_counts, st.integers(0, 9))),
    st.builds(Sessions, st.integers(0, 60), st.builds(turn_counts, st.integers(0, 9))),
)


@settings(max_examples=80)
@given(CHAINS)
def test_every_row_is_in_one_chain_and_knows_its_neighbours(chains: Chains) -> None:
    """From the starts, followers lead to every row once; each says after which it comes."""
    assert chains.count is not None
    seen: list[int] = []
    for number, start in enumerate(chains.starts):
        row: int | None = int(start)
        before: int | None = None
        while row is not None:
            place = chains.place(row)
            assert (place.chain, place.after) == (number, before)
            seen.append(row)
            before, row = row, chains.follower(row)
    assert sorted(seen) == list(range(chains.count))
    assert list(chains.starts) == sorted(int(start) for start in chains.starts)


@settings(max_examples=60)
@given(CHAINS)
def test_turns_of_a_conversation_follow_each_other(chains: Chains) -> None:
    """Turn after turn in the same conversation, then a new one; only later turns need a reply."""
    for start in chains.starts:
        rows = [int(start)]
        while (following := chains.follower(rows[-1])) is not None:
            rows.append(following)
        places = [chains.place(row) for row in rows]
        assert [chains.is_later_turn(row) for row in rows] == [place.turn > 0 for place in places]
        for one, other in pairwise(places):
            if chains.turns is None:
                assert (other.session, other.turn) == (None, 0)
            elif other.turn:
                assert (other.session, other.turn) == (one.session, one.turn + 1)
            else:
                assert other.session != one.session


@settings(max_examples=60)
@given(CHAINS, st.integers(2, 5))
def test_servers_take_turns_with_conversations(chains: Chains, servers: int) -> None:
    """All of a conversation go to one server; from one conversation, or single request, of a chain to the next it is
    the next server's turn.
    """
    of_session: dict[int, set[int]] = {}
    for start in chains.starts:
        row, before = int(start), None
        while row is not None:
            place, turn = chains.place(row), chains.turn_in_round(row) % servers
            if place.session is not None:
                of_session.setdefault(place.session, set()).add(turn)
            if before is not None and place.turn == 0:
                assert turn == (before + 1) % servers
            before, row = turn, chains.follower(row)
    assert all(len(turns) == 1 for turns in of_session.values())


@pytest.mark.parametrize(("users", "servers"), [(7, 2), (8, 2), (9, 3), (8, 3)])
def test_every_server_gets_its_share_whatever_the_number_of_users(users: int, servers: int) -> None:
    """At any moment, and of each user: neither number has to divide the other."""
    chains = Users(users, None)
    rounds = Counter(chains.turn_in_round(i) % servers for i in range(users))
    assert max(rounds.values()) - min(rounds.values()) <= 1
    for user in range(users):
        own = Counter(chains.turn_in_round(user + users * row) % servers for row in range(12 * servers))
        assert own == dict.fromkeys(range(servers), 12)


def test_conversations_have_the_turns_that_were_drawn() -> None:
    """Three each, for users and for sessions; the first ones do not depend on how many there are."""
    three = turn_counts(turns=3)
    assert [Users(2, 12, three).place(i)[:2] for i in range(12)] == [
        (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 0), (3, 0), (2, 1), (3, 1), (2, 2), (3, 2)
    ]  # fmt: skip
    assert [Sessions(2, three).place(i)[:2] for i in range(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    few, many = turn_counts().first(10), turn_counts().first(9000)
    assert few.tolist() == many[:10].tolist()
    assert many.mean() == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize(
    "load", [{"kind": "sessions", "rate": 5, "sessions": 20}, {"kind": "sustained", "users": 3, "requests": 60}]
)
def test_the_wait_of_a_row_is_its_think_time(load: dict[str, object]) -> None:
    """Asked alone it is the same."""
    thinking = {"dist": "exponential", "mean": "2s"}
    plan = build(load_of(**load), workload_of(turns=3, think_time=thinking), 1)
    later = [i for i in range(60) if plan.row(i).after is not None]
    assert [plan.wait_ns(i) for i in later] == [plan.row(i).think_ns for i in later]
    assert max(plan.wait_ns(i) for i in later) > 0


def test_a_million_rows_of_conversations_are_planned_in_seconds() -> None:
    """As arrays; what they need is a few dozen bytes a row."""
    load = load_of(kind="sessions", rate=1000, sessions=125_000, turns=4, timeout="1h")
    schedule = build(load, workload_of(), 1)
    assert schedule.count == 1_000_000  # half of them follow those that are measured
    assert schedule.follower(2) == 3
    assert schedule.follower(3) is None
    assert np.asarray(schedule.starts).nbytes == 2_000_000
    row = schedule.row(999_999)
    assert (row.session, row.turn, row.after, row.due_ns, row.phase) == (249_999, 3, 999_998, None, None)
    assert [schedule.row(i).phase for i in (0, 499_996, 500_000)] == [Phase.MEASURE, Phase.MEASURE, Phase.COOLDOWN]
