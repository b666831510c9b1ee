"""Check of this process's limits (`ulimit`) before libraries load: if they are too low, these crash or never return."""

from __future__ import annotations

import os
from collections.abc import Mapping

from harness.errors import TrialFailed
from harness.units import format_bytes

MAPPED_BYTES = 2 << 30  # a run with its report maps 1.95 GB with one thread
MAPPED_PER_THREAD_BYTES = 80 << 20  # OpenBLAS in numpy, and again in scipy
MOST_THREADS = 64  # of these libraries
STACK_BYTES = 256 << 10
OPEN_FILES = 32


def check_limits() -> None:
    """Raise TrialFailed if a limit of this process leaves less than a run or its report needs."""
    try:
        import resource
    except ImportError:
        return  # no such limits here
    numbers = {"-v": resource.RLIMIT_AS, "-d": resource.RLIMIT_DATA, "-s": resource.RLIMIT_STACK}
    limits = {option: resource.getrlimit(number)[0] for option, number in numbers.items()}
    limits["-n"] = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # ours is raised to the hard one
    limited = {option: limit for option, limit in limits.items() if limit != resource.RLIM_INFINITY}
    if (why := too_low(limited, os.cpu_count() or 1, os.environ)) is not None:
        raise TrialFailed(why)


def too_low(limits: Mapping[str, int], cores: int, environment: Mapping[str, str]) -> str | None:
    """Return the sentence for the first limit that is too low, by its option of `ulimit`; None if none is."""
    named = environment.get("OPENBLAS_NUM_THREADS", "")
    threads = min(int(named) if named.isdecimal() and int(named) else cores, MOST_THREADS)
    mapped = MAPPED_BYTES + threads * MAPPED_PER_THREAD_BYTES
    needed = {"-v": mapped, "-d": mapped, "-s": STACK_BYTES, "-n": OPEN_FILES}
    for option, limit in limits.items():
        if limit < needed[option]:
            return _sentence(option, limit, needed[option])
    return None


def _sentence(option: str, limit: int, needed: int) -> str:
    if option == "-n":
        return f"`ulimit -n` allows {limit} open files, and {needed} are needed; raise it: `ulimit -n {needed}`"
    allowed, least = format_bytes(limit), format_bytes(needed)
    return f"`ulimit {option}` allows {allowed}, and {least} are needed; raise it: `ulimit {option} {needed // 1024}`"
