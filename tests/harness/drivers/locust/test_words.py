"""Words of masters and workers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.drivers.base import DriveReport
from harness.drivers.locust.words import FROM_MASTER, FROM_WORKERS, is_said

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted({*FROM_WORKERS, *FROM_MASTER})) | VALUES, VALUES)
def test_no_data_is_too_odd_to_be_judged(word: Any, data: Any) -> None:
    """The answer is yes or no, whatever a stranger writes."""
    assert is_said(FROM_WORKERS, word, data) in (True, False)
    assert is_said(FROM_MASTER, word, data) in (True, False)


REPORT = {"report": asdict(DriveReport(5, 10)), "silence": None}


@pytest.mark.parametrize(
    ("word", "data", "said"),
    [
        ("harness_ping", {"at_ns": 5}, True),
        ("harness_ping", {}, False),
        ("harness_ping", {"at_ns": "5"}, False),
        ("harness_ping", {"at_ns": 1 << 64}, False),
        ("harness_ping", None, False),
        ("harness_report", REPORT, True),
        ("harness_report", {**REPORT, "silence": 5}, False),
        ("harness_report", {"report": {**REPORT["report"], "recounted": "many"}}, False),
        ("harness_report", {"report": {**REPORT["report"], "unknown": 1}}, False),
        ("client_ready", "2.47.0", True),
        ("client_ready", {"a": 1}, False),
        ("heartbeat", {"state": "ready", "current_cpu_usage": 1.5, "current_memory_usage": 9}, True),
        ("heartbeat", {"state": "ready"}, False),
        ("locustfile", {"version": "2.47.0"}, False),
    ],
)
def test_a_word_has_its_data(word: str, data: Any, said: bool) -> None:
    """Locust's own words too; one that no worker of ours says is none."""
    assert is_said(FROM_WORKERS, word, data) is said
