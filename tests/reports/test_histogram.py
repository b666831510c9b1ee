"""Histograms as text: few narrow lines that count every request."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.series.pooled import histogram_of
from harness.analysis.stats import Ordered
from reports import histogram
from reports.data import ReportData
from reports.writers import markdown


def lines_of(values: list[float]) -> list[str]:
    """The text of some latencies."""
    begins, ends, n = histogram_of(Ordered.of(np.array(values)))
    return histogram.lines_of(pd.DataFrame({"from_ms": begins, "until_ms": ends, "n": n}))


def test_a_histogram_is_as_agreed() -> None:
    """Buckets, counts, shares and bars; requests that never ended are the last line."""
    values = [*[12.0] * 13, *[22.0] * 26, *[35.0] * 8, 110.0, *[np.inf] * 2]
    assert lines_of(values) == [
        "               ms       #      %",
        "     10.0 to 12.6      13   26.0 #############",
        "     12.6 to 15.8       0    0.0",
        "     15.8 to 20.0       0    0.0",
        "     20.0 to 25.1      26   52.0 ##########################",
        "     25.1 to 31.6       0    0.0",
        "     31.6 to 39.8       8   16.0 ########",
        "     39.8 to 50.1       0    0.0",
        "     50.1 to 63.1       0    0.0",
        "     63.1 to 79.4       0    0.0",
        "      79.4 to 100       0    0.0",
        "       100 to 126       1    2.0 #",
        "      never ended       2    4.0 ##",
    ]


@given(st.lists(st.floats(1e-3, 1e7) | st.just(np.inf), min_size=1, max_size=500))
def test_it_fits_and_counts_all(values: list[float]) -> None:
    """At most twelve lines below its head, of at most sixty signs."""
    head, *lines = lines_of(values)
    assert len(lines) <= 12
    assert max(map(len, (head, *lines))) <= histogram.WIDTH
    counts = [int(re.split(r"\s{2,}", line.rstrip("# "))[-2]) for line in lines]
    assert sum(counts) == len(values)
    assert all(("#" in line) == (count > 0) for line, count in zip(lines, counts, strict=True))


def test_the_report_folds_them(full: ReportData) -> None:
    """TTFT and E2E of each load, in report.md."""
    titles = [title for title, _ in histogram.of_run(full)]
    assert "TTFT: tiny · simulated · f16, sustained" in titles
    assert len(titles) == 6
    text = markdown.render(full)
    assert text.count("```text") == 6
    assert text.index("Distributions of latency") < text.index("```text")
