"""The registry of metrics agrees with its page and with what limits may name."""

from __future__ import annotations

from pathlib import Path

from harness.metrics import METRICS, find, markdown
from harness.scenario import limits

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_generated() -> None:
    """docs/metrics.md is what `python -m harness.metrics` writes."""
    assert PAGE.read_text() == markdown()


def test_limits_know_the_same_metrics() -> None:
    """Every metric can be limited, with a statistic exactly where it has a distribution."""
    assert set(limits.DISTRIBUTIONS) == {name for name, metric in METRICS.items() if metric.takes_statistics}
    assert set(limits.SCALARS) == {name for name, metric in METRICS.items() if not metric.takes_statistics}


def test_every_name_a_limit_accepts_is_found() -> None:
    """Aliases lead to a registered metric: gaps are the same from sent as from due."""
    assert all(find(name) for name in (*limits.METRIC_NAMES, *limits.ALIASES))
    assert find("tpot_service_ms") is find("tpot_ms") is find("tpot_ms_service")
    assert find("ttft_ms_service") is METRICS["ttft_service_ms"]
    assert find("ttft") is None
