"""Python API, for notebooks and scripts: measure, and read stored runs as data frames."""

from __future__ import annotations

from harness.api.comparison import ComparisonResult, compare
from harness.api.measure import benchmark
from harness.api.result import RunResult, load, runs

__all__ = ["ComparisonResult", "RunResult", "benchmark", "compare", "load", "runs"]
