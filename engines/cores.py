"""How many cores a computing engine should take on this machine, and what limits them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path


def usable_cores() -> int:
    """Whole cores that this process may use, by affinity and by its control group's quota; one at least."""
    allowed = len(own_processors())
    quota = cpu_quota_cores()
    return max(1, allowed if quota is None else min(allowed, int(quota)))


ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
PROCESSORS = Path("/sys/devices/system/cpu")


def default_threads() -> int:
    """All cores that this process may use but one, which the measuring client needs; at least one.

    Threads beyond the control group's quota spin while they wait for time (4 to 45 times slower, reported for
    llama.cpp), and a second thread on a core has nothing to compute with that the first has not.
    """
    return threads_for(len(one_of_each_core()), cpu_quota_cores())


def threads_for(cores: int, quota: float | None) -> int:
    """Whole cores that are there and that the quota pays for, less one; at least one."""
    return max(1, (cores if quota is None else min(cores, int(quota))) - 1)


def one_of_each_core(allowed: Iterable[int] | None = None, processors: Path = PROCESSORS) -> list[int]:
    """The first logical processor of each physical core among those that this process may run on."""
    first: dict[str, int] = {}
    for one in sorted(own_processors() if allowed is None else allowed):
        first.setdefault(_siblings(processors, one), one)
    return list(first.values())


def own_processors() -> Collection[int]:
    """The logical processors that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _siblings(processors: Path, one: int) -> str:
    """The logical processors of the core that a logical processor belongs to; itself where that is not told."""
    try:
        return (processors / f"cpu{one}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(one)


def cpu_quota_cores(root: Path = ROOT, own: Path = OWN) -> float | None:
    """How many cores' worth of time the control groups of this process may use; None without a quota.

    The smallest of the process' own group and those above it; inside a container only the own one may be visible.
    """
    found = [quota for folder in folders_of("cpu", root, own) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def folders_of(controller: str, root: Path, own: Path) -> list[Path]:
    """The folders of the groups with this controller, or with all of them (version 2), and all above them."""
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
