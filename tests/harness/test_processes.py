"""Conversation of a parent with its child process, and work in threads."""

from __future__ import annotations

import os
import select

import pytest

from harness import processes


def test_work_before_the_loop_leaves_no_pipe_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread closes the end that it writes to."""
    pipe, wait = os.pipe, select.select
    ends: list[int] = []

    def noted() -> tuple[int, int]:
        made = pipe()
        ends.extend(made)
        return made

    monkeypatch.setattr(os, "pipe", noted)
    monkeypatch.setattr(select, "select", lambda read, *others: wait(read[1:], *others))
    monkeypatch.setattr(processes, "on_a_thread", lambda work: work())
    assert processes.unless_ordered(lambda: 7) == 7
    assert len(ends) == 2
    for end in ends:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)
