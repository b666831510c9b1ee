"""Known answer 8 at larger loads: recorded arrivals against the moment of sending that each chunk holds.

The same as `harness doctor` measures, here asserted. The server shares the machine; what it sends late is late in its
own times too, so that only the client is judged.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.cli.examination import trusted_errors
from harness.drivers.calibration.calibrator import QUICK, calibrate, rate_level, stream_level
from harness.drivers.stub import StubServer
from harness.verdict import thresholds


@pytest.mark.parametrize("streams", [128, 256, 512])
def test_streams(benchmark: Any, streams: int) -> None:
    """So many streams x 50 tokens/s: first tokens within 2 ms and gaps within 0.5 ms at p99, p50 below 0.3 ms."""
    with StubServer() as server:
        level = benchmark.pedantic(stream_level, (server, streams, 3, trusted_errors()), rounds=1)
    print(f"\n{level}")
    assert level.clock == "kernel"
    assert level.ttft_error_p50_ms <= 0.3
    assert level.ttft_error_p99_ms <= thresholds.CALIBRATED_TTFT_P99_MS.warn
    assert level.itl_error_p99_ms <= thresholds.CALIBRATED_ITL_P99_MS.warn


def test_rate(benchmark: Any) -> None:
    """1,000 requests/s with Poisson arrivals: sent within 1 ms of due at p99."""
    with StubServer() as server:
        level = benchmark.pedantic(rate_level, (server, 1000, 5.0, trusted_errors()), rounds=1)
    print(f"\n{level}")
    assert level.requests == 5000
    assert level.send_lag_p99_ms <= thresholds.CALIBRATED_LAG_P99_MS.warn


def test_quick_calibration_is_quick(benchmark: Any) -> None:
    """The quick ladder ends within its time and finds something to trust."""
    found = benchmark.pedantic(
        calibrate,
        (
            trusted_errors(),
            QUICK,
        ),
        rounds=1,
    )
    print(f"\n{found.summary()}")
    assert found.streams >= 1
    assert benchmark.stats.stats.max < 30
