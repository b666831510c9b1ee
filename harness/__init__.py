"""A benchmarking and load-testing harness for LLM inference.

Read `docs/architecture.md` for the words and the one-way path; `harness.cli` is the only module that prints and exits.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import ComparisonResult, RunResult, benchmark, compare, load, runs

__version__ = "0.1.0"

__all__ = ["ComparisonResult", "RunResult", "__version__", "benchmark", "compare", "load", "runs"]


def __getattr__(name: str) -> Any:
    """Return a name of the Python API, which loads pandas when it is first used."""
    if name in __all__:
        return getattr(import_module("harness.api"), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
