"""Libraries that only some environments have: without them a test is skipped, and says what it needs."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

REQUIRED = "HARNESS_TESTS_REQUIRE"
VLLM_PYTHON = "HARNESS_TESTS_VLLM_PYTHON"


def library(module: str) -> None:
    """Skip the test if a module is missing; fail instead where the variable HARNESS_TESTS_REQUIRE names it.

    `make test-engines` and `make test-vllm` set it, so that nothing is skipped there in silence.
    """
    if find_spec(module) is not None:
        return
    if module in os.environ.get(REQUIRED, "").split(","):
        pytest.fail(f"{module} must be installed here ({REQUIRED} names it)")
    pytest.skip(f"needs {module}: make test-engines installs it")


def vllm_python() -> str:
    """The interpreter that has vLLM, as HARNESS_TESTS_VLLM_PYTHON names it; skips without one."""
    python = os.environ.get(VLLM_PYTHON)
    if python is None:
        pytest.skip(f"needs vLLM: make test-vllm installs it ({VLLM_PYTHON} is not set)")
    if not Path(python).exists():
        pytest.fail(f"{VLLM_PYTHON} names {python}, which does not exist")
    return python
