"""A run from somebody else: its links lead nowhere, and its names are no formulas."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from command import scenario

from tests.forked import harness

pytestmark = pytest.mark.slow
ELSEWHERE = "of somebody else"
NAME = "=cmd|' /C calc'!A0"


def test_report_and_resume_write_through_no_link_of_a_run(tmp_path: Path) -> None:
    """`report` replaces a file that is a link and refuses a folder that is one; `--resume` refuses both."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text(ELSEWHERE)
    made = harness("run", str(scenario(tmp_path)), "--out", "run", "--format", "md", "-q", cwd=tmp_path)
    (tmp_path / "run" / "report.md").unlink()
    (tmp_path / "run" / "report.md").symlink_to(elsewhere / "file")
    refused = harness("run", "--resume", "run", cwd=tmp_path)
    assert refused.code == 2, refused.err
    assert "run/report.md is a symbolic link; put what it names in its place" in refused.err
    assert harness("report", "run", "--format", "md", cwd=tmp_path).code == made.code
    assert not (tmp_path / "run" / "report.md").is_symlink()
    (tmp_path / "run" / "plots").symlink_to(elsewhere)
    refused = harness("report", "run", "--format", "plots", cwd=tmp_path)
    assert refused.code == 3, refused.err
    assert "run: cannot write: `plots` is a symbolic link, which no report follows; " in refused.err
    assert [(file.name, file.read_text()) for file in elsewhere.iterdir()] == [("file", ELSEWHERE)]


def test_names_of_a_scenario_are_no_formulas_in_its_tables(tmp_path: Path) -> None:
    """Of loads and variants, in every CSV file of a run."""
    engine = {"engine": "simulated", "variants": {NAME: {"ttft_ms": 1, "tpot_ms": 1}}}
    load = {"kind": "single_user", "name": NAME, "requests": 5, "timeout": "5s"}
    path = scenario(tmp_path, engines=[engine], load=[load])
    ended = harness("run", str(path), "--out", "run", "--format", "csv", "-q", cwd=tmp_path)
    assert "Traceback" not in ended.err
    files = sorted((tmp_path / "run").rglob("*.csv"))
    assert [file.name for file in files] == ["decision.csv", "summary.csv"]
    cells = [cell for file in files for line in csv.reader(file.read_text().splitlines()) for cell in line]
    assert f"'{NAME}" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
