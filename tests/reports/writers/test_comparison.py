"""Files of a comparison: a comment that fits, and test cases that each have a name of their own."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET
from typing import Any

from harness.comparison.comparison import compare
from harness.comparison.plain import as_data
from reports.comparison import verdict
from reports.plots.comparison import forest
from reports.writers.comparison import as_csv, as_junit, as_markdown
from reports.writers.markdown import MOST_CHARACTERS
from tests.harness.comparison.test_comparison import measured, side

SLOW = {"ttft_ms p50": (80.0, 79.0, 81.0)}


def test_a_comparison_of_many_loads_fits_a_comment() -> None:
    """The verdict comes first, and the load that regressed stays in the table; where the others are is said."""
    numbers = {f"e2e_ms {statistic}": (100.0, 99.0, 101.0) for statistic in ("p50", "p95", "p99")}
    loads = [f"rate-{rate}" for rate in range(1, 151)]
    base = side(*(measured(numbers, keys=("", "vllm", "", "", load)) for load in loads))
    changed = {load: numbers | SLOW if load == "rate-149" else numbers for load in loads}
    head = side(*(measured(own, keys=("", "vllm", "", "", load)) for load, own in changed.items()), name="b")
    text = as_markdown(as_data(compare(base, head)))
    assert len(text) <= MOST_CHARACTERS
    assert text.startswith("## REGRESSED TTFT p50")
    assert "| rate-149 |" in text
    assert "more rows: comparison.html has them" in text


def two_levels() -> dict[str, Any]:
    """Two levels under one load, of which one regressed."""
    keys = {level: ("", "vllm", level, "", "rate-4") for level in ("q8_0", "q4_0")}
    base = side(*(measured(keys=own) for own in keys.values()))
    head = side(*(measured(SLOW if level == "q4_0" else {}, keys=own) for level, own in keys.items()))
    return as_data(compare(base, head))


def test_each_test_case_has_a_name_of_its_own() -> None:
    """Two levels under one load: GitLab shows only the first of equal names, and would hide the one that regressed."""
    cases = ET.fromstring(as_junit(two_levels())).findall("testcase")
    named = [(case.get("classname"), case.get("name")) for case in cases]
    assert len(set(named)) == len(named) == 6
    assert [case.get("classname") for case in cases if case.find("failure") is not None] == ["q4_0 rate-4"]


def test_no_text_in_the_csv_is_a_formula() -> None:
    """A spreadsheet would run the name of a level that begins like one."""
    keys = ("", "vllm", "=1+1", "", "rate-4")
    found = compare(side(measured(keys=keys)), side(measured(SLOW, keys=keys), name="b"))
    lines = list(csv.DictReader(io.StringIO(as_csv(as_data(found)), newline="")))
    assert {line["level"] for line in lines} == {"'=1+1"}


def test_a_verdict_and_its_picture_name_the_configuration() -> None:
    """Where there are several; the load alone would leave open which of them regressed."""
    data = two_levels()
    assert verdict(data)[1].endswith("], q4_0 rate-4")
    plot = forest(data, gates=True)
    assert plot is not None
    assert "TTFT p50, q4_0 rate-4 +33.3" in plot.alt
