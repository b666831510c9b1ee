"""Which processes belong together: some, and all that descend from them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import psutil

PROC = Path("/proc")
FIRST_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel


def tree(pids: Iterable[int], proc: Path = PROC) -> set[int]:
    """These processes and all their descendants, as far as they live."""
    roots = [pid for pid in pids if psutil.pid_exists(pid)]
    if not roots:
        return set()
    return _by_their_threads(roots, proc) if _threads_tell(str(proc)) else _by_their_parents(roots, proc)


def numbers_are_the_machines(proc: Path = PROC) -> bool:
    """Whether processes have the same numbers here as for drivers: not in a container with numbers of its own."""
    try:
        return os.readlink(proc / "self" / "ns" / "pid") == f"pid:[{FIRST_NAMESPACE}]"
    except OSError:
        return True  # systems without namespaces


@cache
def _threads_tell(proc: str) -> bool:
    """Whether this kernel lists the children of a thread, so that nobody else need be looked at."""
    return os.path.exists(f"{proc}/self/task/{os.getpid()}/children")


def _by_their_threads(roots: Iterable[int], proc: Path) -> set[int]:
    return _all_below(roots, lambda pid: _children_of(f"{proc}/{pid}/task"))


def _all_below(roots: Iterable[int], children_of: Callable[[int], Iterable[int]]) -> set[int]:
    """The roots, their children, and so on."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children_of(pid)
    return found


def _children_of(tasks: str) -> list[int]:
    """The children that the threads of a process started; none of one that has ended."""
    found: list[int] = []
    try:
        for thread in os.listdir(tasks):
            found += map(int, _content(f"{tasks}/{thread}/children").split())
    except OSError:
        return found  # it ends while it is looked at
    return found


def _by_their_parents(roots: Iterable[int], proc: Path) -> set[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for pid, parent in parents(proc).items():
        children[parent].append(pid)
    return _all_below(roots, children.__getitem__)


def parents(proc: Path = PROC) -> dict[int, int]:
    """The parent of every process that can be seen."""
    if not (proc / "self" / "stat").exists():
        return {process.pid: process.info["ppid"] for process in psutil.process_iter(["ppid"])}
    found = {}
    for name in os.listdir(proc):
        if name.isdecimal():
            try:
                stat = _content(f"{proc}/{name}/stat")
            except OSError:
                continue  # it has ended since it was listed
            behind_name = stat.rindex(b")") + 4
            found[int(name)] = int(stat[behind_name : stat.index(b" ", behind_name)])
    return found


def _content(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)
