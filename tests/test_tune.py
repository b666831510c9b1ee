"""`harness tune` as a user runs it, on the simulated engine in virtual time."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from command import VIRTUAL_TIME, Ended, on_path, scenario, told

from tests.forked import harness, running

pytestmark = pytest.mark.slow
LOAD = [{"kind": "sustained", "rate": 20, "arrivals": "poisson", "requests": 60, "timeout": "5s"}]
OPTIONS = {"ttft_ms": 20, "tpot_ms": 2, "service": "exponential", "max_batch": 1}
SHORT = ("--starts", "2", "--pairs", "4", "--out", "out")


def slots(folder: Path, **keys: Any) -> Path:
    """A scenario whose requests wait for a slot."""
    return scenario(folder, **{"engines": [{"engine": "simulated", "options": OPTIONS}], "load": LOAD, **keys})


def tune(folder: Path, *arguments: str) -> Ended:
    """A tuning of the scenario in a folder."""
    return harness("tune", "scenario.yaml", *arguments, cwd=folder, env=VIRTUAL_TIME, timeout_s=240)


def stored(folder: Path) -> dict[str, Any]:
    """The result in a tuning's folder."""
    found: dict[str, Any] = json.loads((folder / "tuning.json").read_text())
    return found


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A folder with a tuning whose best candidate has four slots, and how it ended."""
    folder = tmp_path_factory.mktemp("tuned")
    slots(folder, limits=["ttft_ms p95 <= 56"])
    over = ("--over", "options.max_batch=1,4", "--over", "options.fail_start=null,no room")
    return folder, tune(folder, *over, "--for", "ttft p95", *SHORT)


def test_the_best_candidate_is_told_with_the_change_of_its_fresh_pairs(tuned: tuple[Path, Ended]) -> None:
    """With what to write to use it; the last line has it."""
    folder, ended = tuned
    assert ended.code == 0, ended.err + ended.out
    assert ended.out.splitlines()[-1].startswith("USE max_batch=4, fail_start=null  TTFT p95 ")
    assert "engine `simulated`: options: {max_batch: 4, fail_start: null}" in ended.out
    assert "--set engines.0.options.max_batch=4 --set engines.0.options.fail_start=null" in ended.out
    data = stored(folder / "out")
    assert (data["word"], data["uses"], data["confirming_pairs"]) == ("better", True, 4)
    row = data["confirmed"]
    assert row["change"] < row["high"] < 1 / 1.08
    compared = harness("compare", str(folder / "out" / data["confirmed_in"]), "--json", cwd=folder)
    assert json.loads(compared.out)["rows"][0]["change"] == row["change"]
    seeds = {run: json.loads(run.read_text())["scenario"]["seed"] for run in (folder / "out").rglob("manifest.json")}
    raced = {seed for run, seed in seeds.items() if "round-" in str(run)}
    assert len(raced) == 2
    assert not raced & {seed for run, seed in seeds.items() if "pair-" in str(run)}


def test_every_other_candidate_is_kept_with_its_cause(tuned: tuple[Path, Ended]) -> None:
    """The defaults break a limit, one candidate is the same to the engine, and two do not start."""
    found = {one["name"]: one for one in stored(tuned[0] / "out")["candidates"]}
    assert {name: one["fate"] for name, one in found.items()} == {
        "defaults": "breaks a limit",
        "max_batch=1, fail_start=null": "the defaults",
        "max_batch=1, fail_start=no room": "failed",
        "max_batch=4, fail_start=null": "best",
        "max_batch=4, fail_start=no room": "failed",
    }
    assert "no room" in found["max_batch=4, fail_start=no room"]["why"]
    assert found["max_batch=4, fail_start=no room"]["starts"] == 1
    assert "FAILED      max_batch=4, fail_start=no room: no room" in tuned[1].out
    assert found["max_batch=1, fail_start=null"]["starts"] == 1
    assert "`ttft_ms p95 <= 56`" in found["defaults"]["why"]


def test_files_say_the_same_and_are_made_again(tuned: tuple[Path, Ended], tmp_path: Path) -> None:
    """Without the scenario file: the folder has all of it."""
    folder, ended = tuned
    shutil.copytree(folder / "out", tmp_path / "out")
    for name in ("md", "html", "json"):
        (tmp_path / "out" / f"tuning.{name}").unlink()
    again = harness("report", "out", cwd=tmp_path)
    assert (again.code, again.out.splitlines()[-1]) == (0, ended.out.splitlines()[-1]), again.err
    assert {**stored(tmp_path / "out"), "folder": ""} == {**stored(folder / "out"), "folder": ""}
    assert (tmp_path / "out" / "tuning.md").read_text().startswith("## USE max\\_batch=4")
    page = (tmp_path / "out" / "tuning.html").read_text()
    assert "USE max_batch=4, fail_start=null" in page
    assert "no room" in page
    refused = harness("report", "out", "--format", "csv", cwd=tmp_path)
    assert (refused.code, "csv: a tuning has no such report" in refused.err) == (2, True), refused.err


def test_the_same_command_and_resume_measure_nothing_again(tuned: tuple[Path, Ended]) -> None:
    """All runs stay as they are; another plan is refused."""
    folder, _ = tuned
    before = {run: run.stat().st_mtime_ns for run in (folder / "out").rglob("manifest.json")}
    again = harness("tune", "--resume", "out", "--json", cwd=folder, env=VIRTUAL_TIME)
    assert (again.code, json.loads(again.out)) == (0, stored(folder / "out")), again.err
    assert {run: run.stat().st_mtime_ns for run in (folder / "out").rglob("manifest.json")} == before
    other = tune(folder, "--over", "options.max_batch=1,8", "--for", "ttft p95", *SHORT)
    assert (other.code, "out holds a tuning of another scenario or command" in other.err) == (2, True), other.err
    both = harness("tune", "--resume", "out", "--over", "options.max_batch=1,8", cwd=folder)
    assert (both.code, "leave --over out" in both.err) == (2, True), both.err


def test_a_tie_keeps_the_defaults_of_a_tuning_that_was_ended_and_goes_on(tmp_path: Path) -> None:
    """Slots do not change the time per token. What was measured is kept, and told before the rest is."""
    slots(tmp_path)
    over = ("--over", "options.max_batch=1,4", "--for", "tpot p50")
    with running("tune", "scenario.yaml", *over, *SHORT, cwd=tmp_path, env=VIRTUAL_TIME) as process:
        told(process, "round 02: ")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, "`harness tune --resume out` goes on" in err) == (130, True), err
    kept = {run: run.stat().st_mtime_ns for run in (tmp_path / "out").glob("round-01/*/manifest.json")}
    assert len(kept) == 2
    so_far = harness("report", "out", cwd=tmp_path)
    assert (so_far.code, "UNFINISHED" in so_far.out) == (6, True), so_far.err
    ended = harness("tune", "--resume", "out", cwd=tmp_path, env=VIRTUAL_TIME, timeout_s=240)
    assert ended.code == 0, ended.err + ended.out
    assert {run: run.stat().st_mtime_ns for run in kept} == kept
    told_last = "KEEP THE DEFAULTS  no candidate is better by more than 3 % (best: max_batch=4 "
    assert ended.out.splitlines()[-1].startswith(told_last)
    data = stored(tmp_path / "out")
    assert (data["word"], data["uses"], data["use"]["sets"], data["confirming_pairs"]) == ("tie", False, [], 4)
    assert [one["name"] for one in data["candidates"]] == ["defaults", "max_batch=4"]


def test_a_candidate_is_used_that_keeps_the_limits_which_the_defaults_break(tmp_path: Path) -> None:
    """Though the number that is tuned is the same."""
    slots(tmp_path, limits=["ttft_ms p95 <= 56"])
    ended = tune(tmp_path, "--over", "options.max_batch=1,8", "--for", "tpot p50", *SHORT)
    assert ended.code == 0, ended.err + ended.out
    assert ended.out.splitlines()[-1].startswith("USE max_batch=8  TPOT p50 ")
    assert "and the defaults break `ttft_ms p95 <= 56`" in ended.out
    assert stored(tmp_path / "out")["word"] == "keeps the limits"


def test_a_candidate_with_worse_answers_is_not_used(tmp_path: Path) -> None:
    """Both are scored once, before their pairs, against the same reference."""
    keys = {"quality": {"tokens": 2048, "chunk": 64}, "load": [{"kind": "single_user", "requests": 12}]}
    slots(tmp_path, engines=[{"engine": "blurred", "options": {"blur": 0.02, "ttft_ms": 20}}], **keys)
    named = ("tune", "scenario.yaml", "--over", "options.blur=0.02,0.4", "--for", "ttft p50")
    ended = harness(*named, *SHORT, cwd=tmp_path, env=on_path("virtual_time", "blurred"), timeout_s=240)
    assert ended.code == 0, ended.err + ended.out
    last = ended.out.splitlines()[-1]
    assert last.startswith("KEEP THE DEFAULTS  blur=0.4, the best of the race, 0")
    assert "its answers are farther from the reference" in last
    assert [row["word"] for row in stored(tmp_path / "out")["quality"]] == ["worse", "worse"]


def test_defaults_are_kept_if_no_candidate_is_left(tmp_path: Path) -> None:
    """Those that do not start, and those that are surely worse."""
    slots(tmp_path)
    ended = tune(tmp_path, "--over", "options.tpot_ms=2,20", "--for", "tpot p50", *SHORT)
    assert ended.code == 0, ended.err + ended.out
    assert "KEEP THE DEFAULTS  no other candidate is left" in ended.out
    assert not list((tmp_path / "out").glob("confirm-*"))


def test_defaults_that_do_not_start_end_a_tuning(tmp_path: Path) -> None:
    """There is nothing to compare with."""
    slots(tmp_path, engines=[{"engine": "simulated", "options": {"fail_start": "no room"}}])
    ended = tune(tmp_path, "--over", "options.max_batch=1,4", *SHORT)
    assert (ended.code, "the defaults cannot be measured: " in ended.err) == (3, True), ended.err
    assert "no room" in ended.err


def test_a_budget_ends_the_race_and_leaves_time_to_confirm(tmp_path: Path) -> None:
    """The first start alone takes more than its part of this one."""
    slots(tmp_path)
    ended = tune(tmp_path, "--over", "options.max_batch=1,4", "--budget", "10ms", *SHORT)
    assert ended.code == 6, ended.err
    assert "UNFINISHED  the budget is spent; 1 candidate was not tried" in ended.out
    assert {one["fate"] for one in stored(tmp_path / "out")["candidates"]} == {"undecided", "not tried"}


def test_a_dry_run_shows_candidates_stages_and_time(tmp_path: Path) -> None:
    """And stores nothing. What is wrong only beside other values is named."""
    slots(tmp_path)
    ended = tune(tmp_path, "--over", "options.max_batch=1,4", "--budget", "1h", "--dry-run")
    assert ended.code == 0, ended.err
    assert [line.strip() for line in ended.out.splitlines()[2:4]] == ["defaults", "max_batch=4"]
    assert "race            2 to 6 starts of each" in ended.out
    assert "confirming      4 to 8 pairs of the best and the defaults" in ended.out
    assert "time            about " in ended.out
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name what to tune and its values: --over options.n_parallel=1,2,4"),
        (
            ("--over", "options.max_bach=1,2"),
            "--over options.max_bach=1: engine 'simulated' has no option 'max_bach'; did you mean 'max_batch'?",
        ),
        (("--over", "options.max_batch=1,0"), "--over options.max_batch=0: "),
        (("--over", "options.max_batch=4"), "4 is one value"),
        (("--over", "load.0.rate=1,2"), "this changes the requests, not the server"),
        (("--over", "--parallel=1,2"), "--over --parallel: engine `simulated` has no command here"),
        (("--over", "options.max_batch=1,2", "--for", "tttft p50"), "--for: unknown metric `tttft`"),
        (("--over", "options.max_batch=1,2", "--for", "error_rate"), "no candidate may lose in it"),
        (("--over", "options.max_batch=1,2", "--for", "ttft"), "name a statistic of it, such as --for 'ttft p95'"),
        (("--over", "options.max_batch=1,2", "--for", "ttft p95 +5%"), "write the size as --margin"),
        (("--over", "options.max_batch=1,2", "--margin", "much"), "--for and --margin: "),
        (
            ("--over", "options.max_batch=1,2", "--starts", "1"),
            "--starts: fewer than 2 starts say nothing of their noise",
        ),
        (("--over", "options.max_batch=1,2", "--pairs", "3"), "--pairs: 3 pairs are too few"),
        (("--over", "options.max_batch=1,2", "--budget", "soon"), "--budget: "),
        (("--over", "options.max_batch=1,2", "--load", "none"), "--load none: the scenario has no such load"),
        (("--over", "options.max_batch=1,2", "--only", "engine=vllm"), "no configuration matches"),
    ],
)
def test_a_slip_is_one_sentence_before_anything_runs(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """Nothing is stored."""
    slots(tmp_path)
    ended = tune(tmp_path, *arguments, "--out", "out")
    assert (ended.code, sentence in ended.err, len(ended.err.splitlines())) == (2, True, 1), ended.err
    assert not (tmp_path / "out").exists()


def test_what_is_tuned_has_to_be_clear(tmp_path: Path) -> None:
    """One scenario, of one configuration under one load, whose server is started here."""
    over = ("--over", "options.max_batch=1,2")
    none = harness("tune", *over, cwd=tmp_path)
    assert (none.code, "name the scenario to tune" in none.err) == (2, True), none.err
    address = harness("tune", "http://127.0.0.1:1", *over, cwd=tmp_path)
    assert (address.code, "a running server cannot be tuned" in address.err) == (2, True), address.err
    slots(tmp_path, load=[*LOAD, {"kind": "single_user", "requests": 5}])
    loads = tune(tmp_path, *over)
    assert (loads.code, "one load is tuned for, and there are sustained, single_user" in loads.err) == (2, True)
    assert tune(tmp_path, *over, "--load", "single_user", "--dry-run").code == 0
    slots(tmp_path, engines=[{"engine": "simulated", "variants": {"a": {}, "b": {"max_batch": 3}}}])
    cells = tune(tmp_path, *over)
    assert (cells.code, "one configuration is tuned, and there are 2: " in cells.err) == (2, True), cells.err
    chosen = tune(tmp_path, *over, "--only", "variant=b", "--dry-run")
    assert (chosen.code, "max_batch=1" in chosen.out) == (0, True), chosen.err
    slots(tmp_path, engines=[{"engine": "http", "url": "http://127.0.0.1:1"}])
    served = tune(tmp_path, "--over", "env.A=1,2")
    assert (served.code, "the server runs already" in served.err) == (2, True), served.err
    missing = harness("tune", "--resume", "nowhere", cwd=tmp_path)
    assert (missing.code, "nowhere holds no tuning" in missing.err) == (2, True), missing.err
