"""Readings of processes are those of the kernel's files, and counters only grow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.telemetry import processes as process_gauges
from harness.telemetry.processes import (
    LinuxProcess,
    OtherProcess,
    State,
    Together,
    opened,
    resident_bytes,
    tree,
)
from harness.telemetry.procfs import kept, numbers

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
WAITS = "import sys\nprint('up', flush=True)\nsys.stdin.readline()"
PARENT = (
    "import subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.readline()'], stdin=subprocess.PIPE)\n"
    "print(child.pid, flush=True)\nsys.stdin.readline()\nchild.communicate(b'x')"
)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """A process that waits to be told to end."""
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
    process.stdout.close()


@linux
def test_both_ways_of_reading_agree(other: subprocess.Popen[str]) -> None:
    """The kernel's file and psutil say the same of a process that sleeps."""
    by_file, by_library = LinuxProcess(other.pid), OtherProcess(other.pid)
    told, expected = by_file.state(), by_library.state()
    assert (told.cpu_s, told.threads) == pytest.approx((expected.cpu_s, expected.threads))
    assert told.rss_bytes == pytest.approx(expected.rss_bytes, rel=0.2)
    assert told.minor_faults is not None
    assert told.minor_faults > 0
    assert 0 < by_file.pss_bytes() <= told.rss_bytes * 1.2
    assert by_file.disk() == by_library.disk()
    with pytest.raises(NotImplementedError, match="Linux only"):
        by_library.pss_bytes()
    by_file.close()
    by_library.close()


@linux
def test_a_process_with_any_name_is_read(tmp_path: Path) -> None:
    """A name may hold brackets and spaces, in front of the fields that are read."""
    fields = ["S", "1", *["0"] * 5, "11", "0", "12", "0", "250", "50", *["0"] * 4, "3", "0", "99", "4096", "10", "0"]
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(f"7 (a) b (c) {' '.join(fields)}\n")
    state = LinuxProcess(7, tmp_path).state()
    assert state == State(10 * process_gauges.PAGE_BYTES, 300 / process_gauges.TICKS_PER_S, 3, 11, 12)


@linux
def test_an_ended_process_raises_its_error(other: subprocess.Popen[str]) -> None:
    """A zombie counts as ended; its number is never taken for another process's."""
    process = opened(other.pid)
    assert other.stdin is not None
    other.stdin.close()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    for _ in range(2):
        with pytest.raises(ProcessLookupError):
            process.state()
        with pytest.raises(ProcessLookupError):
            process.pss_bytes()
        other.wait()
    process.close()
    with pytest.raises(ProcessLookupError):
        opened(other.pid)
    assert resident_bytes([other.pid]) == 0


class Scripted:
    """A process whose readings are given."""

    def __init__(self, *states: State | type[Exception]) -> None:
        self.states = list(states)
        self.closed = False

    def state(self) -> State:
        """The next."""
        found = self.states.pop(0)
        if isinstance(found, State):
            return found
        raise found

    def pss_bytes(self) -> int:
        """Refused."""
        raise PermissionError

    def disk(self) -> tuple[int, int]:
        """Always the same."""
        return 100, 10

    def close(self) -> None:
        """Remembered."""
        self.closed = True


def test_counters_of_several_only_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of an ended process stay; its files are closed, and memory is that of the others."""
    first = Scripted(State(1000, 1.0, 2, 5, 1), ProcessLookupError)
    second = Scripted(State(500, 2.0, 1, 7, 0), State(700, 2.5, 1, 9, 3))
    processes = {1: first, 2: second}
    monkeypatch.setattr(process_gauges, "opened", processes.__getitem__)
    both = Together()
    both.follow({1, 2})
    assert both.fast() == {"rss_bytes": 1500}
    assert both.slow() == {"threads": 3, "minor_faults": 12, "major_faults": 1, "read_bytes": 200, "written_bytes": 20}
    again = both.fast()
    assert again["rss_bytes"] == 700
    assert again["cpu_share"] > 0
    assert first.closed
    assert both.slow() == {"threads": 1, "minor_faults": 14, "major_faults": 4, "read_bytes": 200, "written_bytes": 20}
    both.close()
    assert second.closed
    assert (both.fast(), both.slow()) == ({}, {})


def test_a_process_that_was_lost_for_a_while_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier counts are not repeated for the same process; all counts of another process are new."""
    lives = [Scripted(State(1000, 9.0, 1, 500, 90)), Scripted(State(1000, 9.5, 1, 510, 95))]
    lives.append(Scripted(State(100, 0.0, 1, 7, 2)))
    monkeypatch.setattr(process_gauges, "opened", lambda _: lives.pop(0))
    one = Together()
    read = []
    for pids in ({1}, set(), {1}, set(), {1}):
        one.follow(pids)
        one.fast()
        read += [one.slow()] if pids else []
    assert [told["major_faults"] for told in read] == [90, 95, 97]
    assert [told["minor_faults"] for told in read] == [500, 510, 517]
    assert {told["read_bytes"] for told in read} == {100}


def test_a_refused_reading_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And there is no number."""
    monkeypatch.setattr(process_gauges, "opened", lambda _: Scripted(State(1, 0.0, 1)))
    one = Together()
    one.follow({1})
    assert (one.proportional(), one.proportional()) == ({}, {})
    assert list(one.unread.values()) == [
        "proportional memory (PSS) cannot be read: access to one of the processes is denied"
    ]
    one.fast()
    assert "major_faults" not in one.slow()


@linux
@pytest.mark.parametrize("told", [True, False])
def test_a_tree_contains_all_descendants(monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    """The result is the same with the kernel's lists of children and with psutil."""
    monkeypatch.setattr("harness.telemetry.processes._threads_list_children", lambda: told)
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert tree([process.pid]) == {process.pid, child}
        assert {process.pid, child} <= tree([os.getpid()])
    finally:
        process.communicate("\n")
    assert tree([process.pid]) == set()


@given(st.dictionaries(st.from_regex(r"[A-Za-z_]{1,12}", fullmatch=True), st.integers(0, 2**60), max_size=8))
def test_numbers_are_found_by_their_whole_name(values: dict[str, int]) -> None:
    """In both forms that the kernel writes, and no name is found within another."""
    text = "".join(f"{name}:   {value} kB\n" for name, value in values.items())
    plain = "".join(f"{name} {value}\n" for name, value in values.items())
    names = [name.encode() for name in values]
    assert numbers(text.encode(), *names) == values
    assert numbers(plain.encode(), *names, b"not-there") == values


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    """Not an error: another system has other files."""
    assert kept(tmp_path / "nothing") is None
