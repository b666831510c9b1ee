"""The commands beside `run`, as a user types them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import VIRTUAL_TIME, Ended, manifest, scenario

from engines.process.server import free_port
from harness import __version__
from tests.forked import harness

pytestmark = pytest.mark.slow


def test_version(tmp_path: Path) -> None:
    """`--version` prints the version and nothing else."""
    assert harness("--version", cwd=tmp_path).out == f"{__version__}\n"


def test_a_slip_in_a_command_is_exit_2_with_a_suggestion(tmp_path: Path) -> None:
    """An unknown command names the near one."""
    ended = harness("rum", cwd=tmp_path)
    assert (ended.code, "run" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--set", "load.0.rate", "3"), "--set load.0.rate 3: write `--set load.0.rate=3`"),
        (("--label", "commit", "abc"), "--label commit abc: write `--label commit=abc`"),
        (
            ("--only", "quantization=q4_0,q8_0"),
            "--only quantization=q4_0,q8_0: separate several values by `|`, in quotes: --only 'quantization=q4_0|q8_0'",
        ),
        (("--columns", "ttft,tpto"), "--columns ttft,tpto: there is no column `tpto`; did you mean `tpot`?"),
        (("--format", "pdf", "--dry-run"), "--format pdf: there is no such report; write one of "),
    ],
)
def test_a_slip_in_an_option_is_one_line_with_the_fix(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """Nothing is run and nothing planned."""
    ended = harness("run", str(scenario(tmp_path)), *arguments, cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith(f"harness: {sentence}")


def test_a_shipped_scenario_runs_by_its_name(tmp_path: Path) -> None:
    """`harness run quickstart` and `harness validate quickstart` need no file."""
    assert harness("validate", "quickstart", cwd=tmp_path).out == "quickstart: fine\n"
    planned = harness("run", "quickstart", "--dry-run", cwd=tmp_path)
    assert (planned.code, planned.out.splitlines()[0][:11]) == (0, "quickstart:")


def test_init_writes_a_scenario_that_validates(tmp_path: Path) -> None:
    """`init` writes a shipped scenario under a new name, `validate` finds nothing wrong, and nothing is overwritten."""
    assert harness("init", "--template", "burst", "--out", "mine.yaml", cwd=tmp_path).code == 0
    assert harness("validate", "mine.yaml", cwd=tmp_path).out == "mine.yaml: fine\n"
    again = harness("init", "--out", "mine.yaml", cwd=tmp_path)
    assert (again.code, "exists" in again.err) == (2, True)
    assert harness("init", "--template", "brust", cwd=tmp_path).code == 2


def test_validate_tells_all_problems_of_all_files(tmp_path: Path) -> None:
    """Every problem has its place; good files are said to be fine."""
    (tmp_path / "bad.yaml").write_text("engines: [{engine: simulatd}]\nload:\n  - {kind: single_user, requets: 3}\n")
    good = scenario(tmp_path)
    ended = harness("validate", "bad.yaml", str(good), cwd=tmp_path)
    assert ended.code == 2
    assert "bad.yaml:1:20" in ended.err
    assert "bad.yaml:3:" in ended.err
    assert "simulated" in ended.err
    assert "requests" in ended.err
    assert f"{good}: fine" in ended.out


def test_validate_refuses_what_a_run_would_skip_or_not_begin(tmp_path: Path) -> None:
    """A misspelt level beside a good one, and a budget that the plan exceeds, each with its place."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "engines: [{engine: simulated, quantization: [Q4_0, q8_00]}]\n"
        "load: [{kind: sustained, rate: 10, duration: 60s}]\n"
        "budget: {requests: 100, time: 30s}\n"
    )
    ended = harness("validate", "s.yaml", cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[-3:] == [
        "harness: s.yaml:1:52: engines.0.quantization.1: simulated has no level `q8_00`; did you mean `q8_0`?",
        "s.yaml:3:1: budget: the plan needs about 600 requests, `budget` allows 100; shorten it or raise the budget",
        "s.yaml:3:1: budget: the plan needs about 60 seconds, `budget` allows 30; shorten it or raise the budget",
    ]


def test_validate_takes_the_labels_that_a_command_names(tmp_path: Path) -> None:
    """As its own advice says."""
    engine = "{engine: http, dialect: openai-chat, served_model: m, command: 'out/{label.commit}/serve {port}'}"
    (tmp_path / "s.yaml").write_text(f"engines: [{engine}]\nload: [{{kind: single_user, requests: 3}}]\n")
    refused = harness("validate", "s.yaml", cwd=tmp_path)
    assert (refused.code, "add --label commit=VALUE" in refused.err) == (2, True)
    assert harness("validate", "s.yaml", "--label", "commit=x", cwd=tmp_path).out == "s.yaml: fine\n"


def test_validate_refuses_two_configurations_of_one_name(tmp_path: Path) -> None:
    """With the words of the run."""
    path = scenario(tmp_path, engines=[{"engine": "simulated", "quantization": ["q4_0", "Q4_0"]}])
    ended = harness("validate", str(path), cwd=tmp_path)
    sentence = "the scenario lists simulated, q4_0 2 times; list it once, and repeat with `repetitions`"
    assert (ended.code, ended.out, ended.err) == (2, "", f"harness: {path}: {sentence}\n")


def test_a_dry_run_tells_that_the_budget_is_exceeded(tmp_path: Path) -> None:
    """The plan is printed, and the run itself would be refused with the same words."""
    path = str(scenario(tmp_path, budget={"requests": 10}))
    planned, run = (harness("run", path, *more, cwd=tmp_path) for more in (["--dry-run"], []))
    assert (planned.code, run.code) == (2, 2)
    assert "requests        about 20" in planned.out
    sentence = "harness: the plan needs about 20 requests, `budget` allows 10; shorten it or raise the budget\n"
    assert (planned.err, run.err) == (sentence, sentence)


def test_a_server_that_is_down_is_one_line(tmp_path: Path) -> None:
    """`validate` remarks on it; `run` stops before it stores anything, and prints no table."""
    url = f"http://127.0.0.1:{free_port()}"
    path = str(scenario(tmp_path, engines=[{"engine": "http", "url": url}]))
    checked = harness("validate", path, cwd=tmp_path)
    assert (checked.code, checked.out) == (0, f"{path}: fine\n")
    assert f"{path}: no server at {url}: start it, or correct `url`" in checked.err.splitlines()
    ended = harness("run", path, cwd=tmp_path)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == f"harness: no server at {url}: start it, or correct `url`\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("what", ["scenarios", "engines", "models"])
def test_lists(tmp_path: Path, what: str) -> None:
    """Each list names what comes with the harness."""
    ended = harness("list", what, cwd=tmp_path)
    assert ended.code == 0
    assert {"scenarios": "quickstart", "engines": "llama-server", "models": "tiny"}[what] in ended.out


def test_the_list_of_machines_has_prices_with_their_date(tmp_path: Path) -> None:
    """As their source states them, each way to pay by its name."""
    listed = harness("list", "instances", cwd=tmp_path).out.splitlines()
    hardware = "g5.xlarge    A10G, 24 GB GPU memory, 4 vCPU, 16 GB memory"
    assert listed[0] == f"{hardware}, an hour $1.006 on demand or $0.300 spot, as of 2026-11"


def test_an_unknown_list_says_which_there_are(tmp_path: Path) -> None:
    """The sentence shows what to write."""
    ended = harness("list", "planets", cwd=tmp_path)
    assert (ended.code, "scenarios|engines|models" in ended.err) == (2, True)


def test_a_dry_run_shows_the_plan_and_stores_nothing(tmp_path: Path) -> None:
    """Cells, trials, requests, tokens, time, disk and what will be skipped and why, without a run."""
    path = scenario(tmp_path, engines=[{"engine": "simulated", "quantization": ["q4_0", "iq9_xl"]}])
    ended = harness("run", str(path), "--dry-run", cwd=tmp_path)
    assert ended.code == 0
    for words in (
        "simulated-q4_0",
        "skipped: simulated has no level `iq9_xl`",
        "requests        about 20",
        "disk            about",
    ):
        assert words in ended.out
    assert "time            about 9s\n" in ended.out  # 20 x 63 ms, and the processes around them
    assert list(tmp_path.iterdir()) == [path]


def test_a_dry_run_says_what_a_load_has_beside_its_rate(tmp_path: Path) -> None:
    """A cap and retries, of a server that is not asked."""
    load = {"kind": "sustained", "rate": 2, "requests": 5, "max_concurrency": 3, "retries": 1}
    engine = {"engine": "http", "url": "http://127.0.0.1:9", "served_model": "m"}
    ended = harness("run", str(scenario(tmp_path, load=[load], engines=[engine])), "--dry-run", cwd=tmp_path)
    assert ", at most 3 in flight, 1 retry\n" in ended.out


def test_a_dry_run_says_which_time_may_be_longer(tmp_path: Path) -> None:
    """A number of conversations ends with its last reply."""
    sessions = {"kind": "sessions", "rate": 2, "sessions": 5, "turns": 3}
    ended = harness("run", str(scenario(tmp_path, load=[sessions])), "--dry-run", cwd=tmp_path)
    assert "s, more if replies are slow: the load ends with its last reply\n" in ended.out


def test_a_run_whose_engines_each_have_a_load(tmp_path: Path) -> None:
    """Nothing stands at the top."""
    path = scenario(tmp_path)
    keys = json.loads(path.read_text())
    keys["engines"][0]["load"] = keys.pop("load")
    path.write_text(json.dumps(keys))
    ended = harness("run", str(path), "--quiet", "--out", "run", cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    assert [one["status"] for one in manifest(tmp_path / "run")["cells"]] == ["complete"]


def test_data_goes_to_standard_output_and_the_rest_elsewhere(tmp_path: Path) -> None:
    """`--json --quiet` prints one JSON document and says nothing else; the run is in runs/."""
    ended = harness("run", str(scenario(tmp_path)), "--json", "--quiet", cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert json.loads(ended.out)["exit_code"] == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_labels_sets_and_columns_reach_the_manifest(tmp_path: Path) -> None:
    """`--label` and `--set` change what is run and are stored; the command to repeat it is stored too. `--columns` is a
    key of the stored scenario; `report --columns` leaves it as it is.
    """
    arguments = ("--label", "commit=abc", "--set", "load.0.requests=2", "--columns", "TTFT p99,slo", "--format", "md")
    ran = harness("run", str(scenario(tmp_path)), *arguments, "--out", "run", cwd=tmp_path, env=VIRTUAL_TIME)
    assert ran.code == 0, ran.err
    made = harness("report", "run", "--columns", "e2e", "--format", "md", cwd=tmp_path)
    assert made.code == 0, made.err
    stored = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert stored["labels"] == {"commit": "abc"}
    assert stored["cells"][0]["trials"][0]["planned"]["measure"] == 2
    assert "--set load.0.requests=2" in stored["command"]
    assert (stored["scenario"]["columns"], "tolerance" in stored["scenario"]) == (["ttft_ms p99", "slo"], False)


@dataclass(frozen=True)
class Stored:
    """How a run ended whose summary was exported too, and the folder that holds run, scenario and collector."""

    ended: Ended
    folder: Path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A run in all formats, made once and only read by the tests."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "collector").mkdir()
    run = ("run", str(scenario(folder)), "--out", "run", "--export", "prometheus:collector/a.prom")
    return Stored(harness(*run, cwd=folder, env=VIRTUAL_TIME), folder)


def test_a_pipe_gets_plain_text(stored: Stored) -> None:
    """Without a terminal there are no colours and no moving lines, and progress is on standard error."""
    assert stored.ended.code == 0, stored.ended.err
    assert "\x1b" not in stored.ended.out + stored.ended.err
    assert "TTFT" in stored.ended.out
    assert "simulated" in stored.ended.err


def test_reports_are_made_again_from_the_stored_run(stored: Stored, tmp_path: Path) -> None:
    """`report` writes the same files, byte for byte, in the formats asked for, wherever asked."""
    names = ("summary.csv", "decision.csv", "report.md", "summary.json")
    before = {name: (stored.folder / "run" / name).read_bytes() for name in names}
    again = tmp_path / "again"
    formats = ("--format", "csv,md", "--format", "json")
    ended = harness("report", "run", *formats, "--out", str(again), cwd=stored.folder)
    assert ended.code == 0, ended.err
    assert {path.name for path in again.iterdir()} == set(before)
    assert {name: (again / name).read_bytes() for name in before} == before


def test_a_format_that_does_not_exist_lists_those_that_do(tmp_path: Path) -> None:
    """It is refused before anything runs."""
    ended = harness("run", str(scenario(tmp_path)), "--format", "pdf", cwd=tmp_path)
    assert (ended.code, "html, md, csv" in ended.err) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_the_summary_is_exported_by_the_run_and_by_a_report(stored: Stored) -> None:
    """Both write the same gauges, and nothing else into the collector's folder."""
    export = ("--export", "prometheus:collector/b.prom")
    ended = harness("report", "run", "--format", "csv", *export, cwd=stored.folder)
    assert ended.code == 0, ended.err
    collector = stored.folder / "collector"
    assert sorted(path.name for path in collector.iterdir()) == ["a.prom", "b.prom"]
    text = (collector / "a.prom").read_text(encoding="utf-8")
    assert text == (collector / "b.prom").read_text(encoding="utf-8")
    assert 'harness_ttft_seconds{run="t",' in text


@pytest.mark.parametrize("export", ["graphite:x", "prometheus", "prometheus:", "prometheus:nowhere/x.prom"])
def test_an_export_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path, export: str) -> None:
    """An unknown kind, no file, a folder that does not exist: one sentence, exit 2."""
    ended = harness("run", str(scenario(tmp_path)), "--export", export, cwd=tmp_path)
    assert (ended.code, ended.err.count("\n"), f"--export {export}: " in ended.err) == (2, 1, True)
    assert not (tmp_path / "runs").exists()


def test_only_some_cells(tmp_path: Path) -> None:
    """`--only` keeps what fits; what fits nothing is refused with what there is."""
    path = scenario(tmp_path, engines=[{"engine": "simulated", "quantization": ["q4_0", "q8_0"]}])
    ended = harness("run", str(path), "--only", "engine=simulated,quantization=q8_0", "--dry-run", cwd=tmp_path)
    assert ("q8_0" in ended.out, "q4_0" in ended.out) == (True, False)
    refused = harness("run", str(path), "--only", "quantization=q7_0", "--dry-run", cwd=tmp_path)
    assert (refused.code, "q8_0" in refused.err) == (2, True)
