"""Pressure: what the system's files say of throttling, steal and limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.telemetry.cgroup import (
    Pressure,
    open_files,
    read_ceilings,
    read_pressure,
    read_tcp_sockets,
    steal_of,
    throttled_of,
)
from tests.command import environment

STAT = b"cpu  100 0 50 800 10 0 5 35 7 0\ncpu0 50 0 25 400 5 0 2 18 7 0\n"
V2 = b"usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 250\n"
V1 = b"nr_periods 10\nnr_throttled 2\nthrottled_time 4000\n"


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([V2], (3, 250_000)),
        ([V1], (2, 4_000)),
        ([V2, V1], (5, 254_000)),
        ([b"usage_usec 5\n"], (None, None)),
        ([], (None, None)),
    ],
)
def test_throttling_of_both_versions(texts: list[bytes], found: tuple[int | None, int | None]) -> None:
    """Microseconds in version 2, nanoseconds in 1; groups above add up; a group without a quota says nothing."""
    assert throttled_of(texts) == found


def test_steal_is_a_share_of_all_time() -> None:
    """Guest time is contained in user time and is not counted twice."""
    assert steal_of(STAT) == (35, 1000)
    assert steal_of(b"") == (None, None)
    assert steal_of(b"cpu 1 2 3\n") == (None, None)


def machine(root: Path, *, cgroup: str, stats: dict[str, bytes]) -> tuple[Path, Path]:
    """A machine's files: (proc, cgroups)."""
    proc, cgroups = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "stat").write_bytes(STAT)
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, text in stats.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_bytes(text)
    return proc, cgroups


def test_a_group_and_those_above_it(tmp_path: Path) -> None:
    """A quota of a group further up throttles, too."""
    stats = {"a/b/cpu.stat": V2, "a/cpu.stat": V2, "cpu.stat": b"usage_usec 1\n"}
    assert read_pressure(*machine(tmp_path, cgroup="0::/a/b\n", stats=stats)) == Pressure(6, 500_000, 35, 1000)


def test_version_1(tmp_path: Path) -> None:
    """The controller's own hierarchy is read."""
    found = read_pressure(*machine(tmp_path, cgroup="1:cpu:/box\n0::/\n", stats={"cpu/box/cpu.stat": V1}))
    assert (found.throttled_periods, found.throttled_ns) == (2, 4000)


def test_nothing_is_known_where_there_is_nothing(tmp_path: Path) -> None:
    """Unknown is None, never zero."""
    assert read_pressure(tmp_path, tmp_path) == Pressure(None, None, None, None)
    assert read_pressure(tmp_path, tmp_path).since(read_pressure(tmp_path, tmp_path)).steal_share is None
    assert read_ceilings(tmp_path).ports is None


def test_what_was_added() -> None:
    """Counters are counted from the start of the trial."""
    added = Pressure(5, 70, 50, 2000).since(Pressure(3, 20, 40, 1000))
    assert (added.throttled_periods, added.throttled_ns, added.steal_share) == (2, 50, 0.01)


def test_sockets_that_hold_a_port(tmp_path: Path) -> None:
    """Sockets in use and in TIME_WAIT are counted."""
    text = "sockets: used 16\nTCP: inuse 5 orphan 0 tw 12 alloc 9 mem 112\nUDP: inuse 0 mem 0\n"
    assert read_tcp_sockets(tmp_path) is None
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "sockstat").write_text(text)
    assert read_tcp_sockets(tmp_path) == 17


def test_the_gauge_of_open_files_survives_the_limit() -> None:
    """If no file can be opened, all are in use; the soft limit is raised to the hard one."""
    program = (
        "import os, resource\nfrom harness.telemetry.cgroup import open_files, raise_file_limit, read_ceilings\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 60))\nraise_file_limit()\n"
        "assert read_ceilings().files == 60\n"
        "opened = []\ntry:\n    while True:\n        opened.append(os.open(os.devnull, os.O_RDONLY))\n"
        "except OSError:\n    pass\n"
        "assert open_files(read_ceilings().files) == 60\nassert len(opened) > 40\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=environment())


def test_open_files_grow_with_what_is_opened() -> None:
    """The lowest free descriptor rises as files are opened."""
    before = open_files()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
    try:
        assert open_files() >= before + 50
    finally:
        for file in opened:
            os.close(file)
