"""The registry of metrics agrees with its page and leads to a metric by every name."""

from __future__ import annotations

from pathlib import Path

from harness.metrics import ALIASES, METRICS, find, markdown

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_generated() -> None:
    """docs/metrics.md is what `python -m harness.metrics` writes."""
    assert PAGE.read_text() == markdown()


def test_every_name_a_limit_accepts_is_found() -> None:
    """Aliases lead to a registered metric: gaps are the same from sent as from due."""
    assert all(find(name) for name in (*METRICS, *ALIASES))
    assert len(ALIASES.keys() - METRICS.keys()) == 11
    assert find("tpot_service_ms") is find("tpot_ms") is find("tpot_ms_service")
    assert find("ttft_ms_service") is METRICS["ttft_service_ms"]
    assert find("ttft") is None
