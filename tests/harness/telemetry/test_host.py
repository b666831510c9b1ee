"""Readings of the machine and of a control group are what the kernel's files say."""

from __future__ import annotations

import threading
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from harness.telemetry import host as host_gauges
from harness.telemetry.cgroup import Group
from harness.telemetry.host import Host, busy_share
from harness.telemetry.processes import PAGE_BYTES

MEMINFO = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n"
VMSTAT = "nr_free_pages 5\npgpgin 3\npgpgout 4\npswpin 1\npswpout 2\n"


def test_the_kernels_files_are_read(tmp_path: Path) -> None:
    """Memory that a process could not have, swap, disks and the clock rate, in bytes and MHz."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "vmstat").write_text(VMSTAT)
    for number, rate in enumerate((2_000_000, 3_000_000)):
        folder = tmp_path / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{rate}\n")
    host = Host(tmp_path, tmp_path)
    read = host.read()
    assert (read["memory_used_bytes"], read["memory_used_share"]) == (600 * 1024, 0.6)
    assert read["swap_used_bytes"] == 30 * 1024
    assert (read["swap_in_bytes"], read["swap_out_bytes"]) == (PAGE_BYTES, 2 * PAGE_BYTES)
    assert (read["disk_read_bytes"], read["disk_written_bytes"]) == (3 * 1024, 4 * 1024)
    assert read["cpu_mhz"] == 2500.0
    host.close()
    assert host.unread == {}


def test_other_systems_are_read_by_psutil(tmp_path: Path) -> None:
    """The names are the same without such files; unavailable values are absent."""
    host = Host(tmp_path, tmp_path)
    read = host.read()
    assert read["memory_used_share"] == pytest.approx(psutil.virtual_memory().percent / 100, abs=0.05)
    assert "swap_in_bytes" in read
    assert "cpu_mhz" not in read


def test_a_failure_of_psutil_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated readings give one sentence."""

    def refused() -> None:
        raise OSError("not permitted")

    monkeypatch.setattr(psutil, "swap_memory", refused)
    host = Host(tmp_path, tmp_path)
    host.read()
    assert "swap_used_bytes" not in host.read()
    assert list(host.unread.values()) == ["the machine's swap and disks cannot be read: not permitted"]


Times = namedtuple("Times", ["user", "nice", "system", "idle", "iowait", "guest"])
BEFORE, BUSY_A_QUARTER = Times(1, 0, 1, 10, 2, 1), Times(2, 0, 1.5, 14, 2.5, 2)


def test_waiting_processors_are_idle_and_guests_count_once() -> None:
    """1.5 s of 6 s were busy: a guest's second lies within the user's. Where no time passed nothing is known."""
    assert busy_share(BEFORE, BUSY_A_QUARTER) == pytest.approx(0.25)
    assert busy_share(BEFORE, BEFORE) is None


def test_the_first_reading_on_another_thread_is_no_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings are taken on a thread of their own, and psutil begins anew with each."""
    told = iter([BEFORE, BUSY_A_QUARTER])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(told))
    monkeypatch.setattr(host_gauges, "LEAST_CPU_NS", -1)
    host, read = Host(tmp_path, tmp_path), {}
    thread = threading.Thread(target=lambda: read.update(host.read()))
    thread.start()
    thread.join()
    assert read["cpu_share"] == pytest.approx(0.25)
    host.close()


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_group_is_read(tmp_path: Path, version: int) -> None:
    """The limit, use without droppable file cache, and throttling of all levels together."""
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit, used, cache = first if version == 1 else ("memory.max", "memory.current", "inactive_file")
    own = tmp_path / "own"
    own.write_text("4:memory:/a/b\n1:cpu:/a/b\n" if version == 1 else "0::/a/b\n")
    memory, time = (tmp_path / "memory", tmp_path / "cpu") if version == 1 else (tmp_path, tmp_path)
    unlimited = str(2**63 - 4096) if version == 1 else "max"
    for folder, limited in (("a", "1000"), ("a/b", unlimited)):
        (memory / folder).mkdir(parents=True)
        (memory / folder / limit).write_text(limited)
        (memory / folder / used).write_text("400")
        (memory / folder / "memory.stat").write_text(f"{cache} 150\n")
        (time / folder).mkdir(parents=True, exist_ok=True)
        spent = "throttled_time 2000000" if version == 1 else "throttled_usec 2000"
        (time / folder / "cpu.stat").write_text(f"nr_periods 9\nnr_throttled 3\n{spent}\n")
    group = Group(tmp_path, own)
    assert group.read() == {
        "memory_used_bytes": 250,
        "memory_limit_bytes": 1000,
        "throttled_periods": 6,
        "throttled_s": pytest.approx(0.004),
    }
    assert group.unread is None
    group.close()
    group.close()


def test_without_a_limit_the_own_groups_use_is_read(tmp_path: Path) -> None:
    """And no limit is stated; no quota, no throttling."""
    (tmp_path / "own").write_text("0::/a\n")
    (tmp_path / "a").mkdir()
    for name, text in (("memory.max", "max"), ("memory.current", "7"), ("memory.stat", ""), ("cpu.stat", "usage 1\n")):
        (tmp_path / "a" / name).write_text(text)
    group = Group(tmp_path, tmp_path / "own")
    assert group.read() == {"memory_used_bytes": 7}
    group.close()


def test_a_machine_without_control_groups_is_reported(tmp_path: Path) -> None:
    """Once, in one sentence."""
    group = Group(tmp_path, tmp_path / "nothing")
    assert group.read() == {}
    assert group.unread == "the control group's memory and processor time cannot be read here"
