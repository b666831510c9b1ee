"""`harness list runs` and `harness open`; a thousand runs are listed, and two of them compared, in seconds."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from command import VIRTUAL_TIME, scenario

import harness as api
from tests.forked import harness

pytestmark = pytest.mark.slow
MOST_S = 10.0
ALONE_S = 2.0  # longest comparison of two runs alone, on a machine that is not slowed by others
RUNS = 1000


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with a limit that holds."""
    folder = tmp_path_factory.mktemp("one")
    path = scenario(folder, limits=["ttft_ms p50 <= 500"])
    ended = harness("run", str(path), "--out", "run", "--format", "json", "-q", cwd=folder, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    return folder / "run"


def copied(run: Path, folder: Path, number: int, **keys: Any) -> Path:
    """The run once more, begun a minute later than that of the number before; its files are the same ones."""
    copy = folder / "runs" / f"20261130T{number // 60:02}{number % 60:02}00Z-r{number}"
    shutil.copytree(run, copy, copy_function=os.link)
    stored = json.loads((run / "manifest.json").read_text())
    stored["created_utc"] = f"2026-11-30T{number // 60:02}:{number % 60:02}:00+00:00"
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text(json.dumps(stored | keys))
    return copy


def test_runs_are_listed_from_the_newest(one: Path, tmp_path: Path) -> None:
    """Name, time, status, word of the limits, labels. What cannot be read is named at the end, and ends nothing."""
    for number in range(3):
        copied(one, tmp_path, number, labels={"commit": f"c{number}"})
    for number, text in ((7, "{"), (8, "[]"), (9, '{"name": "x"}')):
        copied(one, tmp_path, number)
        (tmp_path / "runs" / f"20261130T000{number}00Z-r{number}" / "manifest.json").write_text(text)
    shutil.rmtree(tmp_path / "runs" / "20261130T000000Z-r0" / "cells")
    summary = tmp_path / "runs" / "20261130T000000Z-r0" / "summary.json"
    summary.unlink()
    summary.write_text("{")
    ended = harness("list", "runs", cwd=tmp_path)
    assert ended.code == 0
    assert [line.split() for line in ended.out.splitlines()] == [
        ["20261130T000200Z-r2", "2026-11-30", "00:02", "complete", "pass", "commit=c2"],
        ["20261130T000100Z-r1", "2026-11-30", "00:01", "complete", "pass", "commit=c1"],
        ["20261130T000000Z-r0", "2026-11-30", "00:00", "complete", "commit=c0"],
    ]
    assert [f"r{number}/manifest.json cannot be read" in ended.err for number in (7, 8, 9)] == [True] * 3
    assert len(ended.err.splitlines()) == 3


def test_gates_are_listed_among_the_runs(one: Path, tmp_path: Path) -> None:
    """With the word of their comparison, once there is one, as are bisections; the API has the runs alone."""
    for number in (1, 5):
        copied(one, tmp_path, number)
    for minute, word in ((2, "regressed"), (3, "")):
        gate = tmp_path / "runs" / f"20261130T00{minute:02}00Z-g-gate"
        gate.mkdir()
        (gate / "gate.json").write_text("{}")
        if word:
            (gate / "comparison.json").write_text(json.dumps({"word": word}))
    search = tmp_path / "runs" / "20261130T000400Z-g-bisect"
    search.mkdir()
    (search / "bisect.json").write_text("{}")
    (search / "bisection.json").write_text(json.dumps({"word": "found"}))
    lines = [line.split() for line in harness("list", "runs", cwd=tmp_path).out.splitlines()]
    assert [(line[0][9:13], *line[3:]) for line in lines] == [
        *(("0005", "complete", "pass"), ("0004", "bisection", "found"), ("0003", "gate")),
        *(("0002", "gate", "regressed"), ("0001", "complete", "pass")),
    ]
    assert len(api.runs(tmp_path / "runs")) == 2


def test_without_runs_the_list_says_how_to_make_one(tmp_path: Path) -> None:
    """Nothing on standard output."""
    ended = harness("list", "runs", cwd=tmp_path)
    assert (ended.code, ended.out) == (0, "")
    assert "there is no run in runs/ yet" in ended.err


def test_a_thousand_runs_are_listed_and_compared_in_ten_seconds(one: Path, tmp_path: Path) -> None:
    """By the command and by the API; the newest is found among them, and compared with one found by its label."""
    for number in range(RUNS):
        copied(one, tmp_path, number, labels={"number": str(number)})
    began = time.monotonic()
    assert harness("compare", str(one), str(one), "--json", cwd=tmp_path).code == 0
    alone_s = time.monotonic() - began
    listed = harness("list", "runs", cwd=tmp_path)
    compared = harness("compare", "number=7", "latest", "--json", cwd=tmp_path)
    took_s = time.monotonic() - began - alone_s
    assert len(listed.out.splitlines()) == RUNS
    assert (compared.code, json.loads(compared.out)["word"]) == (0, "unchanged"), compared.err
    assert took_s <= MOST_S * max(1.0, alone_s / ALONE_S)
    assert len(api.runs(tmp_path / "runs")) == RUNS


@pytest.mark.parametrize("has_page", [True, False])
def test_a_run_is_opened_in_a_browser(one: Path, tmp_path: Path, has_page: bool) -> None:
    """The page is made if there is none; its path is printed too."""
    run = copied(one, tmp_path, 1)
    if has_page:
        (run / "report.html").write_text("the page")
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    ended = harness("open", "latest", cwd=tmp_path, env={"BROWSER": str(browser)})
    assert ended.code == 0, ended.err
    assert ended.out.strip() == f"runs/{run.name}/report.html"
    assert seen.read_text().strip() == (run / "report.html").as_uri()
    assert ((run / "report.html").read_text() == "the page") is has_page


def test_without_a_browser_the_path_is_printed(one: Path, tmp_path: Path) -> None:
    """A machine without a screen, such as one behind ssh."""
    run = copied(one, tmp_path, 1)
    (run / "report.html").write_text("the page")
    ended = harness("open", cwd=tmp_path, env=dict.fromkeys(("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"), ""))
    assert (ended.code, ended.out.strip()) == (0, f"runs/{run.name}/report.html")
    assert "no browser was found here" in ended.err
