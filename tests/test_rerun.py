"""`harness rerun`: a stored run made again, with the same requests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import VIRTUAL_TIME, manifest, records, scenario

from harness.run.rerun import other_plans
from harness.store.manifest import Manifest
from tests.forked import harness

pytestmark = pytest.mark.slow
OLD = Path(__file__).parent / "data" / "runs" / "v1" / "quick"
QUICK = ("--format", "md", "-q")
SENT = ("request", "due_ns", "requested_prompt_tokens", "requested_output_tokens", "class", "phase")


def run(folder: Path, **keys: Any) -> Path:
    """A run of two quantizations at drawn times and lengths; only one of them ran."""
    options = {"ttft_ms": 20, "tpot_ms": 1}
    engines = [{"engine": "simulated", "quantization": ["q8_0", "q4_0"], "options": options, **keys.pop("engine", {})}]
    workload = {"prompt_tokens": {"dist": "uniform", "min": 4, "max": 40}, "output_tokens": 4, **keys}
    load = [{"kind": "sustained", "rate": 20, "requests": 30, "timeout": "5s"}]
    path = scenario(folder, engines=engines, workload=workload, load=load)
    arguments = ("run", str(path), "--out", "first", "--only", "quantization=q4_0", "--label", "commit=a", *QUICK)
    ended = harness(*arguments, cwd=folder, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    path.unlink()  # the run has all of it
    return folder / "first"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a run, to be copied."""
    return run(tmp_path_factory.mktemp("made"))


@pytest.fixture
def first(made: Path, tmp_path: Path) -> Path:
    """A copy of that run, alone in the folder of the test."""
    return Path(shutil.copytree(made, tmp_path / "first"))


def sent(path: Path) -> list[list[tuple[Any, ...]]]:
    """What was sent in each trial of a run, and when by its plan."""
    trials = [trial for cell in manifest(path)["cells"] for trial in cell["trials"]]
    return [[tuple(row[name] for name in SENT) for row in records(path, trial)] for trial in trials]


def facts(path: Path) -> list[tuple[str, str, int]]:
    """Configuration, plan and seed of each trial of a run."""
    found = [(cell["id"], trial) for cell in manifest(path)["cells"] for trial in cell["trials"]]
    return [(cell, trial["plan_hash"], trial["seed"]) for cell, trial in found]


def test_the_same_requests_are_sent_again(first: Path, tmp_path: Path) -> None:
    """Configurations, seeds, plans and rows are equal; the labels too, and others may be added."""
    ended = harness("rerun", "first", "--out", "again", "--label", "try=2", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    again = tmp_path / "again"
    assert facts(again) == facts(first)
    assert len(facts(again)) == 1
    assert sent(again) == sent(first)
    assert manifest(again)["labels"] == {"commit": "a", "try": "2"}
    assert manifest(again)["scenario"] == {**manifest(first)["scenario"], "labels": {"commit": "a", "try": "2"}}
    (note,) = manifest(again)["notes"]
    assert note == f"repeats first, begun {manifest(first)['created_utc']}"
    assert ended.err.splitlines()[-1] == "next    harness compare first again"
    assert harness("compare", "first", "again", cwd=tmp_path).code == 0
    refused = harness("rerun", "first", "--out", "again", cwd=tmp_path)
    assert (refused.code, "results are never overwritten" in refused.err) == (2, True)


def test_what_differs_is_noted(tmp_path: Path) -> None:
    """Machine, versions and files, before it begins and in the report; a missing file ends it."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "one"}\n')
    first = run(tmp_path, prompts="prompts.jsonl", prompt_tokens=None)
    stored = manifest(first)
    stored["provenance"]["must_match"]["cpu"] = "Z80"
    stored["provenance"]["under_test"]["libraries"]["vllm"] = "0.0.1"
    (first / "manifest.json").write_text(json.dumps(stored | {"harness_version": "0.0.1"}))
    prompts.write_text('{"prompt": "two"}\n')
    ended = harness("rerun", "first", "--out", "again", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    expected = (
        "harness 0.0.1 then",
        "differs in cpu: Z80 then",
        "differs in vllm: 0.0.1 then",
        "prompts.jsonl changed",
    )
    notes = manifest(tmp_path / "again")["notes"]
    for part in expected:
        assert part in ended.err
        assert sum(part in note for note in notes) == 1, notes
    assert ended.err.splitlines()[-1] == "next    harness compare first again --across=hardware"
    assert "prompts.jsonl changed" in (tmp_path / "again" / "report.md").read_text().replace("\\", "")
    prompts.unlink()
    missing = harness("rerun", "first", "--out", "third", cwd=tmp_path)
    assert (missing.code, len(missing.err.splitlines())) == (2, 1), missing.err
    assert "prompts.jsonl is missing" in missing.err


def test_reports_have_the_commands_to_copy(first: Path, tmp_path: Path) -> None:
    """That which repeats the run, then that which made it, in Markdown and on the page."""
    assert harness("report", "first", "--format", "md,html", cwd=tmp_path).code == 0
    typed = manifest(first)["command"]
    assert f"```sh\nharness rerun first\n{typed}\n```" in (first / "report.md").read_text()
    page = (first / "report.html").read_text()
    copied = [f'<code class="command" data-copy>{command}</code>' for command in ("harness rerun first", typed)]
    assert all(page.count(code) == 1 for code in copied)
    (tmp_path / "runs").mkdir()
    first.rename(tmp_path / "runs" / "20261130T080000Z-first")
    assert harness("report", "latest", "--format", "md", cwd=tmp_path).code == 0
    text = (tmp_path / "runs" / "20261130T080000Z-first" / "report.md").read_text()
    assert "\nharness rerun 20261130T080000Z-first\n" in text


def test_secrets_come_from_the_environment(tmp_path: Path) -> None:
    """The run has not stored them."""
    first = run(tmp_path, engine={"env": {"MY_API_KEY": "hidden-value"}})
    assert "hidden-value" not in (first / "manifest.json").read_text()
    ended = harness("rerun", "first", "--out", "again", *QUICK, cwd=tmp_path, env=VIRTUAL_TIME)
    assert (ended.code, "set MY_API_KEY" in ended.err) == (2, True), ended.err
    named = {**VIRTUAL_TIME, "MY_API_KEY": "hidden-value"}
    ended = harness("rerun", "first", "--out", "again", *QUICK, cwd=tmp_path, env=named)
    assert ended.code == 0, ended.err
    assert "hidden-value" not in (tmp_path / "again" / "manifest.json").read_text()


def test_a_scenario_of_an_older_grammar_is_one_sentence(tmp_path: Path) -> None:
    """With the key, and the command of that time. A run of format 1 has one."""
    shutil.copytree(OLD, tmp_path / "old")
    ended = harness("rerun", "old", "--out", "again", *QUICK, cwd=tmp_path)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
    assert "harness 0.1.0 made it" in ended.err
    assert "patience: unknown key" in ended.err
    assert "its command was: harness run frozen.yaml" in ended.err
    assert not (tmp_path / "again").exists()


def test_a_run_by_workers_needs_them_again(first: Path, tmp_path: Path) -> None:
    """Their number stands in its command."""
    command = "harness run s.yaml --driver locust --expect-workers 2"
    (first / "manifest.json").write_text(json.dumps(manifest(first) | {"command": command}))
    ended = harness("rerun", "first", "--out", "again", cwd=tmp_path)
    assert (ended.code, f"add --expect-workers N, as in {command}" in ended.err) == (2, True), ended.err


def test_plans_that_differ_are_named() -> None:
    """By configuration and load; one that did not begin has no plan."""
    cells = [{"id": "a", "trials": [{"id": str(number), "plan_hash": f"h{number}"} for number in range(3)]}]
    again = [{"id": "a", "trials": [{"id": str(n), "plan_hash": h} for n, h in enumerate(("h0", "other", None))]}]
    assert other_plans(Manifest(cells=cells), Manifest(cells=again)) == ["a/1"]  # type: ignore[arg-type]
