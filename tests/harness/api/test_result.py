"""Runs from Python: measured in a process of their own, read as data frames."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import VIRTUAL_TIME, environment, manifest, not_longer_than_the_test, rows_on_disk, scenario, wait_until

import harness
from engines.process.server import ServerCommand, ServerProcess
from harness.api.measure import _as_json
from harness.errors import RunDirectoryExists, TrialFailed, UsageError

pytestmark = pytest.mark.slow
TINY = Path(__file__).parents[2] / "engines" / "tiny_server.py"
LIMITS = ["ttft_ms p95 <= 1", "error_rate <= 0.01"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> harness.RunResult:
    """A run of two rates in virtual time, from a thread that has an event loop, as a notebook has."""
    folder = tmp_path_factory.mktemp("api")
    rates = {"kind": "sustained", "rate": [2, 4], "warmup": "5s", "duration": "60s"}
    path = scenario(folder, load=[rates], limits=LIMITS, slo={"ttft": "500ms"})
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = VIRTUAL_TIME["PYTHONPATH"]

    async def in_a_notebook() -> harness.RunResult:
        return harness.benchmark(path, set={"labels": {"branch": "main"}}, out=folder / "runs" / "one", quiet=True)

    run = asyncio.run(in_a_notebook())
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return run


def test_the_verdict_is_that_of_the_command(measured: harness.RunResult) -> None:
    """With the exit code and one row for each limit and load."""
    assert (measured.verdict, measured.exit_code, measured.data_quality) == ("fail", 1, "good")
    outcomes = measured.limits.set_index(["load", "limit"])["outcome"]
    assert outcomes["sustained-rate-2", LIMITS[0]] == "fail"
    assert outcomes["sustained-rate-4", LIMITS[1]] == "pass"
    assert list(measured.caveats) == [
        *("model", "engine", "quantization", "variant", "load"),
        *("repetition", "code", "level", "finding", "advice"),
    ]


def test_the_summary_has_a_row_for_each_load(measured: harness.RunResult) -> None:
    """The numbers of the results table with the ends of their intervals, and no column without a number."""
    summary = measured.summary.set_index("load")
    assert list(summary.index) == ["sustained-rate-2", "sustained-rate-4"]
    assert summary["asked_rps"].tolist() == [2, 4]
    assert (summary["ttft_ms_p95_low"] <= summary["ttft_ms_p95"]).all()
    assert (summary["goodput_rps"] > 1).all()
    assert not {"users", "model", "quantization", "energy_j_per_output_token"} & {*summary}
    tidy = measured.metrics
    value = tidy[(tidy["load"] == "sustained-rate-4") & (tidy["metric"] == "ttft_ms") & (tidy["statistic"] == "p95")]
    assert summary["ttft_ms_p95"]["sustained-rate-4"] == value["value"].iloc[0]


def test_every_request_is_a_row_in_milliseconds(measured: harness.RunResult) -> None:
    """Those of the warm-up, too; the quantile of the measured ones is that of the summary."""
    requests = measured.requests
    assert {"warmup", "measure"} <= {*requests["phase"]}
    own = requests[(requests["rate"] == 4) & (requests["phase"] == "measure")]
    assert own["due_s"].is_monotonic_increasing
    p95 = np.quantile(own["ttft_ms"], 0.95, method="inverted_cdf")
    assert p95 == measured.summary.set_index("asked_rps")["ttft_ms_p95"][4]


def test_a_notebook_shows_the_first_screen_and_the_plots(measured: harness.RunResult, tmp_path: Path) -> None:
    """As text, as HTML and as SVG."""
    assert "FAIL  1 of 2 limits" in repr(measured)
    assert "FAIL  1 of 2 limits" in measured._repr_html_()
    plot = measured.plot("ttft")
    assert "<svg " in plot._repr_svg_()
    plot.save(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text() == plot.svg
    with pytest.raises(UsageError, match="there is no plot 'tttf'"):
        measured.plot("tttf")


def test_stored_runs_are_found_by_name_and_label(measured: harness.RunResult, tmp_path: Path) -> None:
    """A folder that holds no run that can be read is left out."""
    folder = measured.path.parent
    (folder / "broken").mkdir(exist_ok=True)
    (folder / "broken" / "manifest.json").write_text("{")
    found = harness.runs(folder, label={"branch": "main"})
    assert found["path"].tolist() == [measured.path]
    assert found["labels"].tolist() == [{"branch": "main"}]
    assert harness.runs(folder, label={"branch": "other"}).empty
    assert harness.runs(tmp_path / "none").empty
    assert harness.load(measured.path).exit_code == 1
    assert measured.report(tmp_path / "again", ["md"]) == [tmp_path / "again" / "report.md"]


def test_an_earlier_run_is_not_taken_for_the_new_one(measured: harness.RunResult) -> None:
    """Its folder is refused, as the command does."""
    with pytest.raises(RunDirectoryExists):
        harness.benchmark("quickstart", out=measured.path)


def test_what_cannot_be_measured_is_an_error_with_the_sentence_of_the_command(tmp_path: Path) -> None:
    """A server that is down, a scenario that does not exist, and no target at all."""
    with pytest.raises(TrialFailed, match="no server answers at"):
        harness.benchmark(url="http://127.0.0.1:1", out=tmp_path / "run")
    with pytest.raises(UsageError, match="name either"):
        harness.benchmark()
    with pytest.raises(UsageError, match=r"no_such\.yaml: no such file"):
        harness.benchmark("no_such.yaml", out=tmp_path / "run")


def test_a_server_is_measured_as_the_command_does(tmp_path: Path) -> None:
    """With its cap and its retries, which the run has stored."""
    server = ServerProcess(ServerCommand(f"{sys.executable} {TINY} {{port}} --models m"))
    asyncio.run(server.start())
    try:
        wanted = {"rate": 20, "max_concurrency": 2, "retries": 1, "duration": "1s", "output_tokens": 3}
        run = harness.benchmark(url=server.url, out=tmp_path / "run", quiet=True, **wanted)
    finally:
        asyncio.run(server.stop())
    (load,) = json.loads((run.path / "manifest.json").read_text())["scenario"]["load"]
    assert (load["rate"], load["max_concurrency"], load["retries"]["times"]) == (20, 2, 1)
    assert {*run.requests["status"]} == {"ok"}


def test_ctrl_c_stops_the_run_in_order(tmp_path: Path) -> None:
    """What was measured is stored and returned, with the exit code of an interrupted run."""
    go_on = tmp_path / "go-on"
    hold = {"after_requests": 10, "until": str(go_on)}
    engines = [{"engine": "simulated", "options": {"ttft_ms": 1, "tpot_ms": 1, "hold": hold}}]
    path = scenario(tmp_path, engines=engines, load=[{"kind": "single_user", "requests": 50, "timeout": "300s"}])
    listens = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # not so in a shell's background
    )
    program = f"{listens}; import harness; print(harness.benchmark({str(path)!r}, out='run').exit_code)"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with not_longer_than_the_test(process):
        wait_until(lambda: rows_on_disk(tmp_path / "run") >= 5, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        for line in process.stderr:
            if "stopping: finishing what is in flight" in line:
                go_on.touch()
                break
        out, err = process.communicate(timeout=120)
    assert (out, process.returncode) == ("130\n", 0), err


def test_a_run_stops_in_order_when_its_program_is_killed(tmp_path: Path) -> None:
    """Nobody is left who could stop it: the run ends, and says that it was interrupted."""
    engines = [{"engine": "simulated", "options": {"ttft_ms": 1, "tpot_ms": 1}}]
    load = [{"kind": "sustained", "users": 1, "requests": 1_000_000, "warmup": "0s"}]
    path = scenario(tmp_path, engines=engines, load=load)
    program = f"import harness; harness.benchmark({str(path)!r}, out='run', quiet=True)"
    run, command = tmp_path / "run", [sys.executable, "-c", program]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    with not_longer_than_the_test(process):
        wait_until(lambda: rows_on_disk(run) >= 5, process)
        process.kill()
        process.communicate()
    wait_until(lambda: manifest(run)["status"] != "running")
    assert manifest(run)["status"] == "interrupted"
    wait_until(lambda: not {one for one in Path("/proc").glob("[0-9]*/cwd") if at(one) == tmp_path})


def at(link: Path) -> Path | None:
    """Where a link leads; None if the process is gone."""
    try:
        return link.readlink()
    except OSError:
        return None


def test_the_api_is_loaded_when_it_is_used() -> None:
    """`import harness` alone loads no pandas; a name that does not exist is none."""
    program = "import sys, harness; print('pandas' in sys.modules, harness.load.__name__, 'pandas' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True)
    assert out.stdout == "False load False\n"
    with pytest.raises(AttributeError, match="has no attribute 'compute'"):
        harness.compute  # noqa: B018


def test_the_page_names_what_there_is() -> None:
    """Every attribute of a run that docs/python.md names, and no public one is missing there."""
    text = (Path(__file__).parents[3] / "docs" / "python.md").read_text()
    named = {*re.findall(r"\brun\.(\w+)", text)}
    public = {name for name in vars(harness.RunResult) if not name.startswith("_")}
    assert named == public
    assert {*re.findall(r"\bharness\.(\w+)\(", text)} == {"benchmark", "compare", "load", "runs"}


@pytest.mark.parametrize(
    ("value", "text"), [("🚀 ü", '"🚀 ü"'), (Path("p.jsonl"), '"p.jsonl"'), ([1, True, None], "[1, true, null]")]
)
def test_values_reach_the_scenario_as_they_are(value: object, text: str) -> None:
    """Texts of any letters, and paths."""
    assert _as_json(value) == text


def test_a_gate_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    """Its result would be two sides, and no run."""
    variants = {"base": {"ttft_ms": 1}, "head": {"ttft_ms": 1}}
    engines = [{"engine": "simulated", "variants": variants}]
    path = scenario(tmp_path, engines=engines, compare={"baseline": "base"})
    with pytest.raises(UsageError, match="has `compare`, so it is a gate of two sides"):
        harness.benchmark(path, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
