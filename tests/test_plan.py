"""`harness plan` on stored runs, from the command line to the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from command import Ended
from ruamel.yaml import YAML

from harness.cli.app import app
from harness.scenario.plan import KEYS
from tests.forked import harness as command
from tests.planned import stored_run

pytestmark = pytest.mark.slow
FAST, SLOW = {4.0: 200.0, 8.0: 300.0}, {2.0: 200.0, 4.0: 300.0, 8.0: 900.0}
NO_SLO = dict.fromkeys(("ttft_ms", "tpot_ms", "e2e_ms", "stall_ms"))
MACHINE = {"instance": "g5.xlarge"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/`: two levels with an SLO and their machine, and runs that lack something."""
    folder = tmp_path_factory.mktemp("planned")
    runs = folder / "runs"
    stored_run(runs / "chat", {"f16": SLOW, "q4_k_m": FAST}, scenario=MACHINE)
    stored_run(runs / "plain", {"f16": {4.0: 200.0}}, slo=NO_SLO)
    stored_run(runs / "users", {"f16": {4.0: 200.0}}, loop="closed", rate=None, users=4)
    stored_run(runs / "nowhere", {"f16": {4.0: 200.0}}, scenario={"workload": {"output_tokens": 64}})
    return folder


@pytest.fixture(scope="module")
def planned(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Path]:
    """How a plan with all its files ended, and their folder."""
    folder = tmp_path_factory.mktemp("files")
    files = ("--format", "html,md,json", "--export", f"hpa:{folder / 'hpa.yaml'}", "--out", str(folder))
    return command("plan", "chat", "--demand", "12", *files, cwd=stored), folder


def test_the_answer_is_replicas_cost_and_requirement(planned: tuple[Ended, Path]) -> None:
    """12 requests/s: f16 holds 4 of them for each replica, q4_k_m at least 8."""
    ended, _ = planned
    assert ended.code == 0, ended.err
    text = ended.out.replace("\u202f", " ")
    last = text.rstrip().splitlines()[-1]
    assert last == (
        "4 x g5.xlarge (one spare), $2,938 a month, hold 12 requests/s with 95 % of requests within TTFT <= 500 ms "
        "at 95 % confidence"
    )
    assert "as of 2026-11" in text
    assert "harness run" in text
    assert re.search(r"f16 +g5\.xlarge +6 ", text)


def test_every_number_is_plain_data_too(stored: Path) -> None:
    """What is printed is what programs read."""
    ended = command("plan", "chat", "--demand", "12", "--json", cwd=stored)
    data = json.loads(ended.out)
    best, other = data["plans"]
    assert (best["level"], best["replicas"], best["rate_rps"]["lower"]) == ("q4_k_m", 4, 8.0)
    assert (other["level"], other["rate_rps"]["upper"]) == ("f16", 8.0)
    assert best["output_tokens"] == pytest.approx(64, rel=0.02)
    assert best["path"].endswith("runs/chat")


def test_files_for_a_page_a_document_and_a_cluster(stored: Path, planned: tuple[Ended, Path]) -> None:
    """The page loads nothing and has both pictures; the manifest is YAML with the plan's replicas."""
    _, folder = planned
    page = (folder / "plan.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    for title in ("Demand and replicas over a week", "Cost and chance", "Not modelled", "Assumptions"):
        assert title in page
    (link,) = re.findall(r'<a href="([^"#]+)">chat</a>', page)
    assert (folder / link).resolve() == (stored / "runs" / "chat" / "report.html").resolve()
    assert (folder / "plan.md").read_text().startswith("## 4 x g5.xlarge (one spare), ")
    assert json.loads((folder / "plan.json").read_text())["plans"]
    deployment, scaler = YAML(typ="safe").load_all((folder / "hpa.yaml").read_text())
    assert deployment["spec"]["replicas"] == scaler["spec"]["maxReplicas"] == 4
    assert scaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"] == "5818m"


def test_the_error_of_the_rule_is_kept_and_printed_with_later_plans(stored: Path) -> None:
    """Two replicas of 8 requests/s were predicted to hold 14.5; 12 hold and 16 fail."""
    stored_run(stored / "runs" / "pair", {"q4_k_m": {12.0: 200.0, 16.0: 900.0}})
    ended = command("plan", "chat", "--demand", "12", "--validate", "pair=2", cwd=stored)
    assert ended.code == 0, ended.err
    told = "2 replicas of chat were predicted to hold 14.55 requests/s. In pair, 12 hold and 16 fail; error −9.09 % to "
    assert told in ended.out.replace("\u202f", " ")
    ended = command("plan", "nowhere", "--demand", "3", "--instance", "g5.xlarge", cwd=stored)
    assert told in ended.out.replace("\u202f", " ")
    refused = {"pair=0": "write RUN=N", "pair": "write RUN=N", "none=2": "there is no run 'none'"}
    for text, message in (refused | {"replicas=2": "add its address"}).items():
        ended = command("plan", "chat", "--demand", "12", "--validate", text, cwd=stored)
        assert (ended.code, message in ended.err) == (2, True), ended.err


def test_a_held_out_point_is_predicted_then_measured_and_later_plans_print_the_error(tmp_path: Path) -> None:
    """On the simulated engine: the prediction is stored first, and the plan is that without the new measurement."""
    lengths = {"dist": "fixed", "value": 64, "exact": True}
    scenario = MACHINE | {
        "engines": [{"engine": "simulated", "options": {"ttft_ms": 5, "tpot_ms": 0.1}}],
        "workload": {"prompt_tokens": 128, "output_tokens": lengths},
        "load": [{"kind": "sustained", "rate": rate, "duration": "30s"} for rate in (10.0, 20.0)],
        "slo": {"ttft": "500ms"},
        "seed": 1,
    }
    engine = {"engine": "simulated", "model": ""}
    stored_run(tmp_path / "runs" / "sim", {"": {10.0: 200.0, 20.0: 300.0}}, engine=engine, scenario=scenario)
    before = json.loads(command("plan", "sim", "--demand", "12", "--json", cwd=tmp_path).out)
    point = "rate=0.75,for=3s"
    ended = command("plan", "sim", "--demand", "12", "--validate", "replicas=2,url=foo", cwd=tmp_path)
    assert (ended.code, "--validate replicas=2,url=foo: engines.0.url: 'foo' is not an address" in ended.err) == (
        2,
        True,
    )
    ended = command("plan", "sim", "--demand", "12", "--validate", point, "--json", cwd=tmp_path)
    assert ended.code == 0, ended.err
    after = json.loads(ended.out)
    (check,) = after["checks"]
    assert (check["kind"], check["asked"], check["rates"][0]["rate_rps"]) == ("rate", point, 15.0)
    assert check["predicted_utc"] <= check["measured_utc"]
    tokens = check["rates"][0]["output_tokens_per_s"]
    assert tokens["predicted"] == pytest.approx(15 * 64, rel=0.02)
    assert tokens["measured"] is None or tokens["measured"] > 0  # unknown where a busy machine sent late
    assert check["rates"][0]["ttft_p95_ms"]["predicted"] == pytest.approx((200 * 300) ** 0.5, rel=0.1)
    assert before["plans"] == after["plans"]
    run = tmp_path / "runs" / check["run"]
    assert json.loads((run / "manifest.json").read_text())["notes"] == [
        "held-out point `rate=0.75,for=3s` of a plan from sim"
    ]
    later = command("plan", "sim", "--demand", "12", cwd=tmp_path).out
    assert "PLANNER" in later
    assert "Points that the planner predicted" in later


def test_every_assumption_is_an_option_and_stands_in_the_page_of_docs() -> None:
    """And a key of the demand file, by its type."""
    command_line = typer.main.get_command(app).commands["plan"]  # type: ignore[attr-defined]
    options = {option for one in command_line.params for option in one.opts}
    assert {f"--{key.replace('_', '-')}" for key in KEYS} <= options
    page = (Path(__file__).parents[1] / "docs" / "capacity.md").read_text()
    table = page[page.index("| assumption |") :].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`(?=[,` |])", "\n".join(row.split("|")[1] for row in table.splitlines()))) == set(
        KEYS
    )


def test_a_scenario_states_the_demand_and_the_assumptions(stored: Path) -> None:
    """Options of the command line go before them; without either, the command says what is missing."""
    stated = {"demand": 12, "survive": "nothing", "headroom": "50%", "chance": "90%"}
    stored_run(stored / "runs" / "stated", {"q4_k_m": FAST}, scenario={**MACHINE, "plan": stated})
    ended = command("plan", "stated", "--headroom", "80%", "--json", cwd=stored)
    assert ended.code == 0, ended.err
    data = json.loads(ended.out)
    given = {row["key"]: row["value"] for row in data["assumptions"] if row["given"]}
    assert given == {"survive": "nothing", "headroom": "80%", "chance": "90%"}
    assert data["plans"][0]["replicas"] == 3
    ended = command("plan", "chat", cwd=stored)
    assert (ended.code, "--demand is missing; write requests per second" in ended.err) == (2, True)
    stored_run(stored / "runs" / "other", {"f16": FAST}, scenario={**MACHINE, "plan": {"demand": 13}})
    ended = command("plan", "stated", "other", cwd=stored)
    assert (ended.code, "stated and other state different `plan`; plan each alone" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plain", "--demand", "12", "--instance", "g5.xlarge"), "plain has neither an `slo` nor limits on its loads"),
        (("users", "--demand", "12", "--instance", "g5.xlarge"), "users has only closed loops; measure rates: `load:"),
        (("nowhere", "--demand", "12"), "nowhere does not say which machine it ran on; add `--instance NAME`"),
        (("chat", "--demand", "12", "--instance", "g5.xlrge"), "no instance 'g5.xlrge' in the shipped prices"),
        (("chat", "--demand", "12", "--instance", "plain=g5.xlarge"), "'plain' is none of the runs"),
        (("chat", "--demand", "12", "--prices", "none.yaml"), "none.yaml: no such file"),
        (("chat", "--demand", "none.csv"), "none.csv: cannot be read"),
        (("chat", "--demand", "12", "--pricing", "owned"), "g5.xlarge has no owned price, only on_demand, spot"),
        (("chat", "--demand", "12", "--headroom", "0.8"), "--headroom 0.8: 0.8 has no unit"),
        (("chat", "--demand", "12", "--format", "pdf"), "--format pdf: known are html, md, json"),
        (("chat", "--demand", "12", "--export", "helm:x"), "--export helm:x: there is no such export"),
        (("chat", "nowhere", "--demand", "12", "--instance", "g5.xlarge"), "chat and nowhere differ in `workload`"),
        (("none", "--demand", "12"), "there is no run 'none'"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_sentence(
    stored: Path, arguments: tuple[str, ...], message: str
) -> None:
    """With exit code 2, and what to write instead."""
    ended = command("plan", *arguments, cwd=stored)
    assert ended.code == 2, ended.out
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_without_a_plan_the_command_that_measures_it_is_printed(stored: Path, tmp_path: Path) -> None:
    """Longer replies than were measured: exit code 6, and no number."""
    ended = command("plan", "chat", "--demand", "12", "--output-tokens", "400", cwd=stored)
    assert ended.code == 6, ended.err
    assert "No plan: the demand has `output_tokens` 400" in ended.out
    assert "--set workload.output_tokens=400" in ended.out
    export = ("--export", f"hpa:{tmp_path / 'hpa.yaml'}")
    assert command("plan", "chat", "--demand", "12", "--output-tokens", "400", *export, cwd=stored).code == 2
