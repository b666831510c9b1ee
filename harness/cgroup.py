"""What the control group of this process allows it, in version 1 and version 2."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def cpu_quota_cores(root: Path = ROOT, own: Path = OWN) -> float | None:
    """How many cores' worth of time the control groups of this process may use; None without a quota.

    The smallest of the process' own group and those above it; inside a container only the own one may be visible.
    """
    found = [quota for folder in folders_of_time(root, own) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def folders_of_time(root: Path, own: Path) -> list[Path]:
    """The folders of the groups that govern a process's time, and all above them. own: its /proc/<pid>/cgroup."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
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
