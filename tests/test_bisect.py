"""`harness bisect` as a user runs it, over commits whose servers are built and started."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, scenario, told

from tests.forked import harness, running
from tests.repository import commit, repository

pytestmark = pytest.mark.slow
NUMBER = ("--fail-on", "tpot p50 +10%")
TEMPLATE = ("--set", "engines.0.command=x {commit}")


def stored(folder: Path) -> dict[str, Any]:
    """The result in a bisection's folder."""
    found: dict[str, Any] = json.loads((folder / "bisection.json").read_text())
    return found


def test_a_commit_is_found_that_made_the_server_slow(tmp_path: Path) -> None:
    """Two commits after the good one; each is built, and started by a command. A search that was ended goes on."""
    folder = repository(tmp_path)
    pauses = ("0.01", "0.01", "0.04")
    commits = [commit(folder, "pause", f"{pause}\n", f"Change {n}") for n, pause in enumerate(pauses)]
    build = f"mkdir -p built && git -C {folder} show {{commit}}:pause > built/{{commit}} && echo {{commit}} >> order"
    program = shlex.join([sys.executable, str(ROOT / "tests" / "engines" / "tiny_server.py")])
    inner = f"exec {program} {{port}} --models m --pause $(cat {tmp_path}/built/{{commit}})"
    command = f"sh -c {shlex.quote(inner)}"
    load = [{"kind": "single_user", "requests": 5, "timeout": "5s"}]
    scenario(tmp_path, engines=[{"engine": "http", "command": "x {port}"}], load=load)
    arguments = ("bisect", commits[0], "main", "--scenario", "scenario.yaml", "--repo", str(folder), *NUMBER)
    arguments = (*arguments, "--command", command, "--build", build, "--pairs", "4", "--out", "out")
    with running(*arguments, cwd=tmp_path) as process:
        told(process, "ends, pair 2: ")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "the same command with --out out goes on where it was" in err
    kept = {run: run.stat().st_mtime_ns for run in (tmp_path / "out" / "ends").glob("pair-01/*/manifest.json")}
    assert len(kept) == 2
    ended = harness(*arguments, cwd=tmp_path, timeout_s=400)
    assert ended.code == 0, ended.err + ended.out
    assert {run: run.stat().st_mtime_ns for run in kept} == kept
    assert f"FIRST BAD  {commits[2][:10]} (" in ended.out
    assert "Change 2" in ended.out
    data = stored(tmp_path / "out")
    (guilty,) = data["guilty"]
    assert (guilty["step"], guilty["version"]) == (2, commits[2])
    assert guilty["chance"] >= 0.95
    assert {one["version"] for one in data["tried"]} == {commits[1], commits[2]}
    assert "## FIRST BAD " in (tmp_path / "out" / "bisection.md").read_text()
    order = (tmp_path / "order").read_text().split()
    assert sum(one == other for one, other in pairwise(order)) <= 1  # where the second command began
    assert len(order) >= data["pairs"]
    again = harness(*arguments, "--json", cwd=tmp_path)
    assert (again.code, json.loads(again.out)) == (0, data), again.err
    other = harness(*arguments, "--most", "30", cwd=tmp_path)
    assert (other.code, "out holds another bisection" in other.err) == (2, True), other.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (TEMPLATE, "name the number that changed, such as --fail-on 'ttft p95 +10%'"),
        (NUMBER, "every version would be the same: write {commit} in --command, --set or --build"),
        ((*NUMBER, *TEMPLATE, "--pairs", "3"), "--pairs: 3 pairs are too few"),
        ((*NUMBER, *TEMPLATE, "--most", "8"), "--most 8: write more than the 8 pairs"),
        ((*NUMBER, *TEMPLATE, "--budget", "soon"), "--budget: "),
        (("--fail-on", "ttft +10%", *TEMPLATE), "--fail-on: `ttft_ms` needs a statistic"),
        ((*NUMBER, "--set", "engines.0.options.ttft={commit}"), "ttft"),
        ((*NUMBER, *TEMPLATE, "--steps", "none"), "--steps none: No such file or directory"),
    ],
)
def test_a_slip_is_one_sentence_before_anything_runs(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """Nothing is stored."""
    scenario(tmp_path)
    (tmp_path / "steps").write_text("1\n2\n3\n")
    named = ("bisect", "1", "3", "--scenario", "scenario.yaml", "--steps", "steps")
    ended = harness(*named, *arguments, "--out", "out", cwd=tmp_path)
    assert (ended.code, sentence in ended.err, len(ended.err.splitlines())) == (2, True, 1), ended.err
    assert not (tmp_path / "out").exists()


def test_a_signal_ends_a_build(tmp_path: Path) -> None:
    """No load has begun by then."""
    scenario(tmp_path)
    (tmp_path / "steps").write_text("1\n2\n3\n")
    os.mkfifo(tmp_path / "begun")
    build = "echo $$ > begun; exec sleep 600; : {commit}"
    named = ("bisect", "1", "3", "--scenario", "scenario.yaml", "--steps", "steps", "--build", build, *NUMBER)
    with running(*named, "--out", "out", cwd=tmp_path) as process:
        pid = int((tmp_path / "begun").read_text())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "goes on where it was" in err) == (130, True), err
    assert not Path(f"/proc/{pid}").exists()
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_a_scenario_and_a_whole_plan_are_needed(tmp_path: Path) -> None:
    """Each is asked for in a sentence."""
    (tmp_path / "steps").write_text("1\n2\n3\n")
    named = ("bisect", "1", "3", "--steps", "steps", *NUMBER, *TEMPLATE)
    ended = harness(*named, cwd=tmp_path)
    assert (ended.code, "name the scenario that shows the change" in ended.err) == (2, True), ended.err
    scenario(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bisect.json").write_text("{")
    speeds = ("--set", "engines.0.options.ttft_ms={commit}", "--scenario", "scenario.yaml", "--out", "out")
    ended = harness("bisect", "1", "3", "--steps", "steps", *NUMBER, *speeds, cwd=tmp_path)
    assert (ended.code, "bisect.json is no plan of a bisection" in ended.err) == (2, True), ended.err
