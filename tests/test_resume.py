"""A run that was killed or stopped goes on: what was complete stays as it is, everything else is measured again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import Ended, harness, manifest, records, rows_on_disk, running, scenario
from filelock import FileLock

QUICK = ("--format", "md", "--quiet")
pytestmark = pytest.mark.slow


def two_levels(**keys: Any) -> dict[str, Any]:
    """A matrix of two cells of the simulated engine."""
    levels = {"engine": "simulated", "quantization": ["q8_0", "q4_0"], "options": {"ttft_ms": 20, "tpot_ms": 1}}
    return {"engines": [levels], **keys}


def resume(folder: Path, run: str = "run") -> Ended:
    """Go on with a run."""
    return harness("run", "--resume", run, *QUICK, cwd=folder)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, by the hash of its contents."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait_for_second_cell(run: Path, process: Any, rows: int = 5) -> None:
    """Until the first cell is complete and the second has stored some rows."""
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        there = (run / "manifest.json").exists() and manifest(run)["cells"][0]["status"] == "complete"
        if there and rows_on_disk(run) >= rows:
            return
        time.sleep(0.05)
    raise AssertionError(process.communicate() if process.poll() is not None else "the second cell did not begin")


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
    planned = [row["request"] for row in records(run, first["trials"][0])]
    assert [row["request"] for row in records(run, trial)] == planned, "nothing of the first attempt is mixed in"


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    """Parent, child and server are killed in the middle of the second level of a real llama.cpp run; resumed, the first
    level's files are the same byte by byte and the second is complete.
    """
    path = scenario(
        tmp_path,
        model="tiny",
        engines=[{"engine": "llama-server", "quantization": ["q8_0", "q4_0"]}],
        workload={"prompt_tokens": 16, "output_tokens": 16},
        load=[{"kind": "single_user", "requests": 60, "timeout": "60s"}],
    )
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_for_second_cell(run, process)
        kill_all(process)
    assert manifest(run)["status"] == "running"
    before = contents(run / manifest(run)["cells"][0]["path"])
    assert "000-single_user/records.parquet" in before
    ended = resume(tmp_path)
    assert ended.code in (0, 4), ended.err
    check_resumed(run, before)
    attempt = manifest(run)["cells"][1]["trials"][0]["attempts"][0]
    assert attempt["status"] == "failed"
    assert "the run ended in the middle of it" in attempt["reason"]


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """After Ctrl-C in the second cell the first is kept, and the second measured again from its beginning."""
    load = [{"kind": "sustained", "rate": 40, "arrivals": "constant", "requests": 120, "timeout": "5s"}]
    path = scenario(tmp_path, **two_levels(load=load))
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_for_second_cell(run, process)
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
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
    assert harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path).code == 0
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
    keys = two_levels(workload={"prompts": "prompts.jsonl", "output_tokens": 4})
    keys["engines"][0]["variants"] = {"fine": {}, "broken": {"fail_start": "not today"}}
    path = scenario(tmp_path, **keys, load=[{"kind": "single_user", "requests": 3, "timeout": "5s"}])
    run = tmp_path / "run"
    assert harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path).code == 3
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
    again = resume(tmp_path)
    assert again.code == 3, again.err
    numbers = {cell["id"]: cell.get("attempt") for cell in manifest(run)["cells"]}
    assert [number for name, number in numbers.items() if "broken" in name] == [2, 2]
