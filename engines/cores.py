"""Number of cores for an engine that computes on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
PROCESSORS = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Return the whole cores that affinity and control groups allow this process; at least 1."""
    allowed, quota = len(own_processors()), cpu_quota_cores()
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def default_threads() -> int:
    """Return all cores that this process may use except one for the load generator; at least 1.

    Threads beyond the quota of the control group spin while they wait for time (4 to 45 times slower, reported for
    llama.cpp). A second thread on a core adds no computing power.
    """
    cores, quota = len(one_of_each_core()), cpu_quota_cores()
    return max(1, (cores if quota is None else min(cores, int(quota))) - 1)


def one_of_each_core(allowed: Iterable[int] | None = None, processors: Path = PROCESSORS) -> list[int]:
    """Return the first allowed logical processor of each physical core."""
    first: dict[str, int] = {}
    for one in sorted(own_processors() if allowed is None else allowed):
        first.setdefault(_siblings(processors, one), one)
    return list(first.values())


def own_processors() -> Collection[int]:
    """Return the logical processors that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _siblings(processors: Path, one: int) -> str:
    """Return the logical processors on the core of one; only that one if the system does not list them."""
    try:
        return (processors / f"cpu{one}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(one)


def cpu_quota_cores(root: Path = ROOT, own: Path = OWN) -> float | None:
    """Return the processor time that control groups allow this process, in cores; None without a quota.

    The smallest quota of the process' own group and those above counts. A container may show only its own group.
    """
    found = [quota for folder in folders_of("cpu", root, own) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def folders_of(controller: str, root: Path, own: Path) -> list[Path]:
    """Return the folders of the groups with this controller, or of version 2, and all above them."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        group = Path(path.lstrip("/"))
        folders += [top / part for part in (group, *group.parents)]
    return folders


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError):
        return None
