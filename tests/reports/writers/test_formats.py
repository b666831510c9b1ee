"""Every format, whole: what a reader gets for a known run."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

import reports
from reports.data import KEYS, ReportData
from reports.writers import html, junit, markdown, summaries
from tests.fabricated import again


def test_markdown_is_as_agreed(full: ReportData, golden: Callable[[str, str], None]) -> None:
    """The report for a pull request."""
    golden("report.md", markdown.render(full))


def test_junit_is_as_agreed(full: ReportData, golden: Callable[[str, str], None]) -> None:
    """The test cases for a CI system."""
    golden("junit.xml", junit.render(full))


def rounded(text: str) -> str:
    """Numbers to five digits: the last ones depend on the machine's arithmetic."""
    return re.sub(r"\d+\.\d{4,}", lambda found: f"{float(found[0]):.5g}", text)


def test_csv_is_as_agreed(full: ReportData, golden: Callable[[str, str], None]) -> None:
    """The tidy numbers, of one trial."""
    lines = summaries.as_csv(full).splitlines(keepends=True)
    golden("summary.csv", rounded(lines[0] + "".join(line for line in lines if ",f16,,sustained,all,pooled," in line)))


def test_json_is_as_agreed(full: ReportData, golden: Callable[[str, str], None]) -> None:
    """The nested numbers: everything but the results in full, and one metric of them."""
    document = json.loads(summaries.as_json(full))
    document["results"] = [
        result | {"classes": {"all": {"ttft_ms": result["classes"]["all"]["ttft_ms"]}}}
        for result in document["results"]
    ]
    for decision in document["decisions"]:
        decision["rows"] = decision["rows"][:1]
        decision["rows"][0]["loads"] = {}
    golden("summary.json", rounded(json.dumps(document, indent=1, ensure_ascii=False) + "\n"))


def test_html_is_as_agreed(full: ReportData, golden: Callable[[str, str], None]) -> None:
    """The page without its pictures and its style."""
    page = re.sub(r"<svg.*?</svg>", "<svg/>", html.render(full), flags=re.DOTALL)
    golden("report.html", re.sub(r"<style>.*?</style>", "<style/>", page, flags=re.DOTALL))


def test_everything_is_written(full: ReportData, tmp_path: Path) -> None:
    """All formats by default, each in its file; the same again over them."""
    first = reports.write(full, tmp_path / "out")
    assert {file.name for file in first} >= {"report.html", "report.md", "junit.xml", "summary.csv", "summary.json"}
    texts = [file.read_bytes() for file in first]
    assert [file.read_bytes() for file in reports.write(full, tmp_path / "out")] == texts


def test_an_unknown_format_is_refused(full: ReportData, tmp_path: Path) -> None:
    """The message names the formats there are."""
    with pytest.raises(ValueError, match="known are html"):
        reports.write(full, tmp_path, ["pdf"])


def test_parquet_has_the_rows_of_the_csv_with_types(full: ReportData, tmp_path: Path) -> None:
    """What is unknown is null, an open end infinite; three lines of pandas go on from it."""
    (file,) = reports.write(full, tmp_path, ["parquet"])
    summary = pd.read_parquet(file)
    assert list(summary.columns) == list(summaries.COLUMNS) == summaries.as_csv(full).splitlines()[0].split(",")
    assert summary["metric"].tolist() == full.summary["metric"].tolist()
    assert np.allclose(summary["value"], full.summary["value"].astype(float), equal_nan=True)
    assert np.isinf(summary.loc[summary["bound"] == "lower", "high"]).any()
    assert summary.dtypes["n"] == "int64"


def test_csv_reads_back(full: ReportData) -> None:
    """What was written is what was known."""
    back = pd.read_csv(io.StringIO(summaries.as_csv(full)), keep_default_na=False, na_values={"value": "", "low": ""})
    assert len(back) == len(full.summary)
    assert back["metric"].tolist() == full.summary["metric"].tolist()
    assert back["value"].fillna(-1).to_numpy() == pytest.approx(full.summary["value"].fillna(-1).to_numpy(), rel=1e-8)


@pytest.mark.parametrize("name", ["=1+1", "+1-2", "-2+3", "@SUM(A1)", "\tx", "\rx", "\uff1d1"])
def test_no_text_in_a_csv_is_a_formula(full: ReportData, name: str) -> None:
    """It gets an apostrophe in front, also as the name of a column; numbers stay numbers, negative ones too."""
    decisions = json.loads(json.dumps(list(full.decisions)))
    row = decisions[0]["rows"][0]
    row["engine"], row["loads"] = name, {name: next(iter(row["loads"].values()))}
    row["values"] |= {"bytes": {"value": -2.5, "low": None, "high": None, "bound": "point", "invalid": False}}
    summary = full.summary.assign(load=name, engine=name)
    summary["value"] = -0.25
    spoiled = replace(full, summary=summary, decisions=decisions)
    quoted = "'" + name.replace("\r", " ")
    lines = list(csv.DictReader(io.StringIO(summaries.as_csv(spoiled), newline="")))
    assert {(line["load"], line["engine"], line["value"]) for line in lines} == {(quoted, quoted, "-0.25")}
    line = next(csv.DictReader(io.StringIO(summaries.decision_as_csv(spoiled), newline="")))
    assert (line["engine"], line["bytes"]) == (quoted, "-2.5")
    assert not [cell for cell in line if cell.startswith(name)]


def test_junit_counts(full: ReportData) -> None:
    """Failed cells and limits nobody can tell of are errors, skipped cells skipped, broken limits failures."""
    suite = ET.fromstring(junit.render(full).split("\n", 1)[1])
    counts = {name: suite.get(name) for name in ("name", "tests", "failures", "errors", "skipped")}
    assert counts == {"name": "choose", "tests": "14", "failures": "2", "errors": "6", "skipped": "1"}
    assert {case.get("type") for case in suite.iter("failure")} == {"fail"}
    assert {case.get("type") for case in suite.iter("error")} == {"failed", "cannot_tell"}
    for case in suite:
        assert set(case.attrib) == {"classname", "name", "time"}
        assert float(case.attrib["time"]) >= 0
    assert float(suite.attrib["time"]) == pytest.approx(sum(float(case.attrib["time"]) for case in suite))
    assert len({(case.get("classname"), case.get("name")) for case in suite}) == len(suite)


def test_junit_has_the_attributes_that_schemas_ask_for(full: ReportData) -> None:
    """That of Ant, which Jenkins reads: a host, a time without a zone, and seconds."""
    created = again(full.manifest, created_utc="2026-01-02T03:04:05+01:00")
    suite = ET.fromstring(junit.render(replace(full, manifest=created)).split("\n", 1)[1])
    assert (suite.get("hostname"), suite.get("timestamp")) == ("localhost", "2026-01-02T02:04:05")
    assert set(suite.attrib) == {
        *("name", "hostname", "timestamp", "time", "tests", "failures", "errors", "skipped"),
    }


def test_junit_fails_a_trial_only_if_its_load_failed(full: ReportData) -> None:
    """One invalid metric that no limit names fails no pipeline."""
    reason = {"code": "token_counts", "level": "invalid", "sentence": "Counts differ.", "advice": ""}
    first = next((cell.id, trial.id) for cell, trial in full.trials())
    for load_failed in (False, True):
        doubt = {"verdict": "invalid", "load_failed": load_failed, "reasons": [reason]}
        judged = [one | doubt if (one["cell"], one["trial"]) == first else one for one in full.validity]
        suite = ET.fromstring(junit.render(replace(full, validity=judged, verdicts=[])).split("\n", 1)[1])
        assert ("invalid" in {case.get("type") for case in suite.iter("error")}) is load_failed


def test_junit_holds_nothing_invalid_for_passed(hostile: ReportData) -> None:
    """An invalid trial, and a limit on it, are errors: a pipeline must not take them for passed."""
    limit = {**dict(zip(KEYS, ("m", "e", "l", "", "x"), strict=True)), "limit": "ttft_ms p50 <= 1"}
    limits = [limit | {"outcome": outcome, "sentence": "Why."} for outcome in ("invalid", "pass")]
    first, *others = hostile.validity
    spoiled = replace(hostile, verdicts=limits, validity=[first | {"verdict": "invalid", "load_failed": True}, *others])
    suite = ET.fromstring(junit.render(spoiled).split("\n", 1)[1])
    invalid = [judged for judged in spoiled.validity if judged["verdict"] == "invalid"]
    assert len(list(suite.iter("error"))) == len(invalid) + 1 > 1
    assert {case.get("type") for case in suite.iter("error")} == {"invalid"}


@pytest.mark.parametrize("render", [markdown.render, html.render, junit.render, summaries.as_csv, summaries.as_json])
def test_a_run_in_which_nothing_ran_has_a_report(full: ReportData, render: Callable[[ReportData], str]) -> None:
    """Every cell skipped: the reasons are shown, nothing else."""
    cells = [cell for cell in full.manifest.cells if cell.status == "skipped"]
    manifest = again(full.manifest, cells=cells)
    empty = ReportData("nothing", manifest, full.summary.iloc[:0], definitions=full.definitions)
    text = render(empty)
    assert "simulated has no level q2" in text or render is summaries.as_csv or render is summaries.as_json
