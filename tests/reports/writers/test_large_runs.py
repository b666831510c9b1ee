"""A run of two hundred trials: its Markdown still fits a comment on a pull request, and shows what is wrong first."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest

from reports.data import ReportData
from reports.writers import junit, markdown
from tests.fabricated import again

pytestmark = pytest.mark.slow

TRIALS = 200
COMMENT = 65_536
LONG = "a reason that goes on and on with <markup> and https://example.org/ and `ticks` " * 40


@pytest.fixture(scope="module")
def large(full: ReportData) -> ReportData:
    """Two hundred cells like the one that is fine, every one with a caveat and six limits; the last ones are broken."""
    cells, validity, facts, verdicts, summaries = [], [], [], [], []
    first = full.manifest.cells[0]
    known = full.facts_of(first.id, first.trials[0].id)
    rows = full.summary[(full.summary["level"] == "f16") & (full.summary["load"] == "sustained")]
    for number in range(TRIALS):
        level, cell = f"level-{number:03}", f"{number:03}-tiny"
        cells.append(again(first, id=cell, level=level, trials=first.trials[:1]))
        reason = {"code": "x", "level": "warn", "sentence": f"{level}: {LONG}", "advice": LONG}
        validity.append({"cell": cell, "trial": "000-sustained", "verdict": "warn", "reasons": [reason]})
        facts.append(known | {"cell": cell})
        outcome = "fail" if number >= TRIALS - 3 else "pass"
        like = full.verdicts[0] | {"level": level, "outcome": outcome, "sentence": f"{level} is {outcome}. {LONG}"}
        verdicts += [like | {"limit": f"ttft_ms p95 <= {limit}"} for limit in range(6)]
        summaries.append(rows.assign(level=level))
    return replace(
        full,
        manifest=again(full.manifest, cells=cells),
        summary=pd.concat(summaries, ignore_index=True),
        validity=validity,
        facts=facts,
        verdicts=verdicts,
        decisions=(),
    )


def test_the_report_fits_a_comment_and_begins_with_the_answer(large: ReportData) -> None:
    """What is broken stands among the rows that are left, and it is said how many more there are."""
    text = markdown.render(large)
    assert len(text) < COMMENT
    assert text.splitlines()[2].startswith("**FAIL 6 of 6 limits** · data: usable")
    assert text.splitlines()[4].startswith("tiny")
    assert text.index("## Results") < text.index("## Limits") < text.index("## Caveats")
    limits = text[text.index("## Limits") : text.index("## Caveats")]
    assert re.search(r"\*\*FAIL\*\*.*level-197", limits)
    assert limits.count("**FAIL**") == 6
    assert re.search(r"\d+ more rows: report.html has them, summary.csv their numbers", text)
    assert text.count("<details>") == text.count("</details>") > 1


def test_even_names_without_end_fit(large: ReportData) -> None:
    """A title, a command and errors as long as a book are cut; the verdict stays."""
    text = markdown.render(replace(large, title="T" * 100_000, manifest=again(large.manifest, command="x" * 1_000_000)))
    assert len(text) < COMMENT
    assert "data: usable" in text


def test_a_table_is_never_cut_in_its_middle(large: ReportData) -> None:
    """Every row that is left has as many columns as its head."""
    for table in re.findall(r"(?:^\|.*\n)+", markdown.render(large), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_junit_has_a_case_for_each_trial_and_limit(large: ReportData) -> None:
    """Nothing is left out there."""
    assert junit.render(large).count("<testcase") == TRIALS * 7
