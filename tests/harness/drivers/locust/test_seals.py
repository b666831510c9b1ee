"""Authenticated messages between a master and its workers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.drivers.locust.seals import MARK, MasterSeal, NotAuthentic, WorkerSeal, check_exposed, shared_secret
from harness.errors import UsageError

NAME = b"worker_1"


def met(secret: bytes = b"s") -> tuple[MasterSeal, WorkerSeal]:
    """A master and a worker that have greeted each other."""
    master, worker = MasterSeal(secret), WorkerSeal(secret, NAME)
    answer = master.answer(NAME, worker.greeting())
    assert answer is not None
    assert worker.open(answer) is None
    return master, worker


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_messages_arrive_in_both_directions(bodies: list[bytes]) -> None:
    """Each body arrives as it was sent; a master answers a worker only after it has heard from it."""
    master, worker = met()
    assert master.seal(NAME, b"early") is None
    for body in bodies:
        sent = worker.seal(body)
        assert master.answer(NAME, sent) is None
        assert master.open(NAME, sent) == body
        back = master.seal(NAME, body)
        assert back is not None
        assert worker.open(back) == body


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    """Wherever it is: in the mark, the code, the nonces, the number or the body."""
    master, worker = met()
    sent = bytearray(worker.seal(b"harness_report"))
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NotAuthentic):
        master.open(NAME, bytes(sent))


@given(st.binary(max_size=200))
def test_bytes_of_a_stranger_are_not_authentic(sent: bytes) -> None:
    """Whatever they are, also with the right mark."""
    master, worker = met()
    opens: list[Callable[[bytes], object]] = [partial(master.open, NAME), partial(master.answer, NAME), worker.open]
    for opened in opens:
        for each in (sent, MARK + sent):
            with pytest.raises(NotAuthentic):
                opened(each)


def replays() -> dict[str, Callable[[], object]]:
    """Authentic messages at the wrong time or place."""
    master, worker = met()
    sent = worker.seal(b"one")
    master.open(NAME, sent)
    answered = master.seal(NAME, b"two")
    assert answered is not None
    worker.open(answered)
    later, other = met()
    return {
        "again to the master": lambda: master.open(NAME, sent),
        "again to the worker": lambda: worker.open(answered),
        "to the master of another trial": lambda: later.open(NAME, sent),
        "to another worker": lambda: other.open(answered),
        "under another name": lambda: MasterSeal(b"s", nonce=master.nonce).open(b"worker_2", sent),
        "back to its sender": lambda: worker.open(worker.seal(b"one")),
        "with another secret": lambda: MasterSeal(b"t", nonce=master.nonce).open(NAME, sent),
    }


@pytest.mark.parametrize("kind", replays())
def test_a_replayed_message_does_not_count(kind: str) -> None:
    """A message counts once, in its session, in its direction, from its worker."""
    with pytest.raises(NotAuthentic):
        replays()[kind]()


def test_a_replayed_greeting_changes_nothing() -> None:
    """The master answers it, and goes on in the session of the worker that speaks."""
    master, worker = met()
    greeting = worker.greeting()
    assert master.open(NAME, worker.seal(b"one")) == b"one"
    assert master.answer(NAME, greeting) is not None
    answered = master.seal(NAME, b"two")
    assert answered is not None
    assert worker.open(answered) == b"two"


def test_the_secret_is_not_shown() -> None:
    """Neither side's `repr` has it."""
    assert all("geheim" not in repr(one) for one in met(b"geheim"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_loopback_needs_no_secret(host: str) -> None:
    """Only this machine's processes are there."""
    check_exposed(host, "--master-host", {})


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "*", "::", "example.org", "127.0.0.1.example.org", ""])
def test_elsewhere_a_secret_is_needed(host: str) -> None:
    """The sentence names option and variable; an empty variable is no secret."""
    for env, why in (({}, "not set"), ({"HARNESS_SECRET": ""}, "empty"), ({"HARNESS_SECRET": " "}, "empty")):
        assert shared_secret(env) is None
        with pytest.raises(UsageError, match=rf"--master-host .*HARNESS_SECRET is {why}"):
            check_exposed(host, "--master-host", env)
    check_exposed(host, "--master-host", {"HARNESS_SECRET": "x"})
