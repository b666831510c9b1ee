"""The clock that everything is measured with."""

from __future__ import annotations

import time

import pytest

from harness.telemetry.kernel_clock import clock_step_ns


def test_the_step_of_a_coarse_clock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings of a clock that counts in steps of 100 ns differ by no less."""
    real = time.monotonic_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: real() // 100 * 100)
    assert clock_step_ns() % 100 == 0
    assert clock_step_ns() >= 100


def test_a_clock_that_stands_still_has_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to state."""
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5)
    assert clock_step_ns() == 0
