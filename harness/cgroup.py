"""What the control group of this process allows it, in version 1 and version 2."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED_BYTES = 1 << 60  # version 1 writes a number near 2^63 where there is no limit


def cpu_quota_cores(root: Path = ROOT, own: Path = OWN) -> float | None:
    """How many cores' worth of time the control groups of this process may use; None without a quota.

    The smallest of the process' own group and those above it; inside a container only the own one may be visible.
    """
    found = [quota for folder in folders_of_time(root, own) if (quota := _quota(folder)) is not None]
    return min(found, default=None)


def folders_of_time(root: Path, own: Path) -> list[Path]:
    """The folders of the groups that govern a process's time, and all above them. own: its /proc/<pid>/cgroup."""
    return folders_of("cpu", root, own)


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


def memory_left_bytes(root: Path = ROOT, own: Path = OWN) -> int | None:
    """How much more memory the control groups of this process allow, file cache that can be dropped counted as left;
    None without a limit. The tightest of the process' own group and those above it.
    """
    found = [left for folder in folders_of("memory", root, own) if (left := _memory_left(folder)) is not None]
    return min(found, default=None)


def _memory_left(folder: Path) -> int | None:
    second = (folder / "memory.max").exists()
    limit, used = ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    try:
        text = (folder / limit).read_text().strip()
        if not text.isdecimal() or int(text) >= UNLIMITED_BYTES:
            return None
        facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cache = sum(int(facts.get(f"{'' if second else 'total_'}{kind}_file", 0)) for kind in ("inactive", "active"))
        return max(0, int(text) - int((folder / used).read_text()) + cache)
    except (OSError, ValueError):
        return None
