"""A run that was killed or stopped goes on: what was complete stays as it is, everything else is measured again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import (
    HELD,
    VIRTUAL_TIME,
    Ended,
    interrupt,
    manifest,
    measured,
    records,
    rows_on_disk,
    scenario,
    wait_until,
)
from filelock import FileLock

from tests.forked import harness, running
from tests.relay import reached

QUICK = ("--format", "md", "--quiet")
pytestmark = pytest.mark.slow


def resume(folder: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Go on with the run."""
    return harness("run", "--resume", "run", *QUICK, cwd=folder, env=env)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, by the hash of its contents."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait_for_second_cell(run: Path, process: Any) -> None:
    """Until the first cell is complete and the second, which the engine holds back, has stored some rows."""

    def in_the_middle() -> bool:
        there = (run / "manifest.json").exists() and manifest(run)["cells"][0]["status"] == "complete"
        return there and rows_on_disk(run) > 0

    wait_until(in_the_middle, process)


def kill_all(process: Any) -> None:
    """SIGKILL for the parent, its child, and everything below them, as a loss of power would."""
    everyone = [process, *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:
        os.kill(one.pid, signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(everyone[1:], timeout=10)


def check_resumed(run: Path, before: dict[str, str]) -> None:
    """The first cell is as it was, the second complete by a second attempt, and the first attempt is still there."""
    found = manifest(run)
    first, second = found["cells"]
    assert {name: digest for name, digest in contents(run / first["path"]).items() if name in before} == before
    assert first["trials"][0].get("attempt") == 1
    (trial,) = second["trials"]
    assert (found["status"], second["status"], trial["status"]) == ("complete", "complete", "complete")
    assert (trial["attempt"], trial["session"]) == (2, 2)
    assert trial["path"] == f"cells/{second['id']}/attempt-2/{trial['id']}"
    (attempt,) = trial["attempts"]
    assert attempt["attempt"] == 1
    assert list((run / attempt["path"]).glob("records*")), "what the first attempt measured is kept"
    assert [session["cells"] for session in found["sessions"]] == [[first["id"], second["id"]], [second["id"]]]
    assert len(measured(run, trial)) == len(measured(run, first["trials"][0]))
    requests = [row["request"] for row in records(run, trial)]
    assert len(set(requests)) == len(requests), "nothing of the first attempt is mixed in"


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    """Parent, child and server are killed in the middle of the second level of a real llama.cpp run; resumed, the first
    level's files are the same byte by byte and the second is complete.
    """
    go_on = tmp_path / "go-on"
    hold = {"level": "q4_0", "requests": 8, "until": str(go_on), "head": "POST /v1/completions "}
    path = scenario(
        tmp_path,
        model="tiny",
        engines=[{"engine": "held", "quantization": ["q8_0", "q4_0"], "options": {"hold": hold}}],
        workload={"prompt_tokens": 16, "output_tokens": 16},
        load=[{"kind": "single_user", "requests": 12, "timeout": "300s"}],
    )
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=HELD) as process:
        wait_until(reached(go_on).exists, process)
        wait_for_second_cell(run, process)
        kill_all(process)
    assert manifest(run)["status"] == "running"
    before = contents(run / manifest(run)["cells"][0]["path"])
    assert "000-single_user/records.parquet" in before
    go_on.touch()
    ended = resume(tmp_path, HELD)
    assert ended.code in (0, 4), ended.err
    check_resumed(run, before)
    attempt = manifest(run)["cells"][1]["trials"][0]["attempts"][0]
    assert attempt["status"] == "failed"
    assert "the run ended in the middle of it" in attempt["reason"]


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """After Ctrl-C in the second cell the first is kept, and the second measured again from its beginning."""
    go_on, times = tmp_path / "go-on", {"ttft_ms": 20, "tpot_ms": 1}
    hold = {"after_requests": 10, "until": str(go_on)}
    path = scenario(
        tmp_path,
        engines=[
            {"engine": "simulated", "quantization": ["q8_0"], "options": times},
            {"engine": "simulated", "quantization": ["q4_0"], "options": {**times, "hold": hold}},
        ],
        load=[{"kind": "sustained", "users": 2, "requests": 20, "timeout": "300s"}],
    )
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK[:2], cwd=tmp_path) as process:
        wait_for_second_cell(run, process)
        interrupt(process, go_on)
        process.communicate(timeout=200)
    assert process.returncode == 130
    before = contents(run / manifest(run)["cells"][0]["path"])
    ended = resume(tmp_path)
    assert ended.code in (0, 4), ended.err
    check_resumed(run, before)
    assert manifest(run)["cells"][1]["trials"][0]["attempts"][0]["status"] == "interrupted"


def test_a_complete_run_is_only_reported_again(tmp_path: Path) -> None:
    """Nothing is measured and nothing stored but the report; what contradicts the stored scenario is refused, and so
    is a second process on the same run.
    """
    path = scenario(tmp_path, load=[{"kind": "single_user", "requests": 3, "timeout": "5s"}])
    run = tmp_path / "run"
    assert harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME).code == 0
    before = contents(run)
    (run / "report.md").unlink()
    assert resume(tmp_path).code == 0
    after = contents(run)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {"report.md"}
    both = harness("run", str(path), "--resume", "run", *QUICK, cwd=tmp_path)
    assert (both.code, "leave SCENARIO out" in both.err) == (2, True)
    neither = harness("run", *QUICK, cwd=tmp_path)
    assert (neither.code, "--resume RUN" in neither.err) == (2, True)
    with FileLock(run / ".lock"):
        locked = resume(tmp_path)
    assert (locked.code, "another process is making run" in locked.err) == (2, True)


def test_what_cannot_be_compared_is_not_resumed(tmp_path: Path) -> None:
    """Another version of this program, or prompts that were changed: a sentence, and the run stays as it is."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "one"}\n')
    path = scenario(
        tmp_path,
        engines=[{"engine": "simulated", "variants": {"fine": {}, "broken": {"fail_start": "not today"}}}],
        workload={"prompts": "prompts.jsonl", "output_tokens": 4},
        load=[{"kind": "single_user", "requests": 3, "timeout": "5s"}],
    )
    run = tmp_path / "run"
    assert harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME).code == 3
    before = contents(run)
    prompts.write_text('{"prompt": "two"}\n')
    changed = resume(tmp_path)
    assert changed.code == 2
    assert "prompts.jsonl changed since this run was begun; begin a new run" in changed.err
    prompts.write_text('{"prompt": "one"}\n')
    found = manifest(run)
    (run / "manifest.json").write_text(json.dumps(found | {"harness_version": "0.0.1"}))
    other = resume(tmp_path)
    assert other.code == 2
    assert "begun by harness 0.0.1" in other.err
    (run / "manifest.json").write_text(json.dumps(found, indent=1) + "\n")
    assert {name: digest for name, digest in contents(run).items() if name.startswith("cells")} == {
        name: digest for name, digest in before.items() if name.startswith("cells")
    }
    again = resume(tmp_path, VIRTUAL_TIME)
    assert again.code == 3, again.err
    (number,) = [cell.get("attempt") for cell in manifest(run)["cells"] if "broken" in cell["id"]]
    assert number == 2
