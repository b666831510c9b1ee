"""The same scenario sent by Locust: the same plan, records and report, with Locust's own page beside it."""

from __future__ import annotations

import csv
import io
import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import interrupt, manifest, records, scenario, told, wait_until
from typer.testing import CliRunner

from harness.cli.app import app
from harness.drivers.stub import StubServer, model_name
from harness.errors import UsageError
from harness.metrics import START_AND_MEMORY
from tests.forked import harness, running
from tests.relay import Relay, reached

pytestmark = pytest.mark.slow
PLANNED = ("request", "class", "session", "turn", "user", "phase", "after", "think_ns", "requested_prompt_tokens")
OPEN = {"kind": "sustained", "rate": 80, "warmup": "200ms", "requests": 40, "timeout": "60s"}
CLOSED = {"kind": "sustained", "users": 4, "requests": 40, "timeout": "60s", "think_time": "10ms"}
LOADS = [OPEN, CLOSED]
QUICK = ("--format", "json")


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    """A server that streams at known times."""
    with StubServer() as running_server:
        yield running_server


def engines(url: str, first_ms: float = 20, gap_ms: float = 5) -> list[dict[str, Any]]:
    """The server as an engine."""
    return [{"engine": "http", "url": url, "served_model": model_name(first_ms, gap_ms)}]


def shape(value: Any) -> Any:
    """The structure of a JSON document: its keys and kinds, without values; readings may be missing."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return "value"


@dataclass(frozen=True)
class Both:
    """A run whose first cell was sent in process and whose second cell by Locust, with what the way to it passed on."""

    run: Path
    passed: list[tuple[int, bytes]]

    def trials(self, index: int) -> list[dict[str, Any]]:
        """The trial of a load in each cell."""
        return [cell["trials"][index] for cell in manifest(self.run)["cells"]]

    def records(self, index: int) -> list[list[dict[str, Any]]]:
        """The records of a load in each cell."""
        return [records(self.run, trial) for trial in self.trials(index)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, server: StubServer) -> Both:
    """One run of the same loads by both drivers: the seed of a load follows from its place in a cell."""
    folder = tmp_path_factory.mktemp("both")
    with Relay(server.port) as relay:
        (block,) = engines(relay.url)
        path = scenario(
            folder,
            engines=[
                {**block, "variants": {driver: {}}, "load": [{**load, "driver": driver} for load in LOADS]}
                for driver in ("inprocess", "locust")
            ],
        )
        ended = harness("run", str(path), "--out", "run", "--format", "json,csv", cwd=folder)
    assert ended.code in (0, 4), ended.err  # a busy machine may make it invalid
    return Both(folder / "run", relay.passed)


@pytest.mark.parametrize("index", range(len(LOADS)), ids=["open", "closed"])
def test_both_drivers_do_the_same(both: Both, index: int) -> None:
    """The same plan hash and the same rows, whoever sends. Of users with a number of requests in common, who is faster
    sends more: what they sent is the same as far as both came.
    """
    ours, locusts = both.trials(index)
    assert (ours["driver"], locusts["driver"]) == ("inprocess", "locust")
    for name in ("plan_hash", "planned"):
        assert ours[name] == locusts[name]
    assert shape(ours["client"]) == shape(locusts["client"])
    sent = []
    for rows in both.records(index):
        kept = [row for row in rows if row["phase"] != "cooldown"]
        assert {row["status"] for row in kept} == {"ok"}
        assert sum(row["phase"] == "measure" for row in kept) == LOADS[index]["requests"]
        names = (*PLANNED, "output_tokens", *(["due_ns"] if LOADS[index] is OPEN else []))
        sent.append({row["request"]: [row[name] for name in names] for row in kept})
    common = sent[0].keys() & sent[1].keys()
    assert [sent[0][request] for request in common] == [sent[1][request] for request in common]
    if LOADS[index] is OPEN:
        assert common == sent[0].keys() == sent[1].keys()
    else:
        assert len(common) > LOADS[index]["requests"] / 2


def test_both_drivers_have_the_same_report(both: Both) -> None:
    """The same metrics, statistics and classes, and the same keys of each cell."""
    (decision,) = json.loads((both.run / "summary.json").read_text())["decisions"]
    ours, locusts = decision["rows"]
    assert shape(ours) == shape(locusts)
    with (both.run / "summary.csv").open() as file:
        summary = list(csv.DictReader(file))
    read = {metric.name for metric in START_AND_MEMORY}  # a trial this short may end between two readings
    described: dict[str, list[Any]] = {"inprocess": [], "locust": []}
    for row in summary:
        if row["metric"] not in read:
            described[row["variant"]].append([row[name] for name in ("load", "metric", "statistic", "class")])
    assert described["inprocess"] == described["locust"]


def test_times_are_those_of_the_tokens(both: Both) -> None:
    """The kernel stamps a token when it is there: within a millisecond of when it was passed on on the way."""
    _, trial = both.trials(LOADS.index(CLOSED))  # the last one
    _, rows = both.records(LOADS.index(CLOSED))
    whole = [row for row in rows if row["status"] == "ok"]
    assert len(whole) >= CLOSED["requests"]
    assert {row["clock"] for row in whole} == {"kernel"}
    assert all(row["sent_ns"] >= row["due_ns"] for row in whole)
    t0_ns = trial["client"]["t0_ns"]
    stamped = sorted(t0_ns + at_ns for row in whole for at_ns in row["chunk_ns"])
    assert len(stamped) == len(whole) * 4
    cut_off_ns = [t0_ns + row["due_ns"] for row in rows if row["status"] != "ok"]  # tokens of these may have come
    until_ns = min(cut_off_ns, default=time.monotonic_ns())
    sent = [(at_ns, data.count(b'"text":" ')) for at_ns, data in both.passed if t0_ns < at_ns < until_ns]
    passed = sorted(at_ns for at_ns, tokens in sent for _ in range(tokens))
    assert len(passed) > len(stamped) / 2
    late_ms = sorted(abs(seen - true) / 1e6 for seen, true in zip(stamped, passed, strict=False))
    assert late_ms[len(late_ms) // 2] < 1


def page(address: str, post: bytes | None = None) -> str:
    """A page of Locust's."""
    with urllib.request.urlopen(address, post, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def statistics_on(address: str) -> dict[tuple[str, str], dict[str, str]]:
    """Locust's statistics by type and name."""
    rows = csv.DictReader(io.StringIO(page(f"{address}/stats/requests/csv")))
    return {(row["Type"], row["Name"]): row for row in rows}


def test_locusts_page_shows_our_times(tmp_path: Path, server: StubServer) -> None:
    """`--web` tells an address of this machine; Locust's statistics there have our requests, times and users; its stop
    button ends the load, and everything is accounted for.
    """
    long = {"kind": "sustained", "users": 3, "duration": "300s", "timeout": "200s"}
    run, go_on = tmp_path / "run", tmp_path / "go-on"
    with Relay(server.port, 21, go_on) as relay:  # the first is that after the start, of which Locust knows nothing
        path = scenario(tmp_path, engines=engines(relay.url, 50, 5), load=[long])
        with running("run", str(path), "--driver", "locust", "--web", "--out", "run", *QUICK, cwd=tmp_path) as process:
            address = told(process, r"Locust's page is at (http://\S+)")[1]
            assert address.startswith("http://127.0.0.1:")
            assert "Locust" in page(f"{address}/")  # at once
            ours = ("e2e", "default")
            wait_until(lambda: statistics_on(address).get(ours, {}).get("Request Count") == "20", process)
            wait_until(lambda: json.loads(page(f"{address}/stats/requests"))["user_count"] == 3, process)
            entries = statistics_on(address)
            assert "Locust" in page(f"{address}/")
            page(f"{address}/stop", b"")
            go_on.touch()
            _, err = process.communicate(timeout=200)
    assert entries["", "Aggregated"]["Request Count"] == entries[ours]["Request Count"]
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert trial["status"] == "interrupted", err
    answered = [row for row in records(run, trial) if row["status"] == "ok"]
    counted = sorted(answered, key=lambda row: row["done_ns"])[:20]
    for kind, name in (("ttft", "first_token_ns"), ("e2e", "last_token_ns")):
        times_ms = sorted((row[name] - row["sent_ns"]) / 1e6 for row in counted)
        median = float(entries[kind, "default"]["Median Response Time"])
        assert 0.95 * times_ms[9] - 1 <= median <= 1.05 * times_ms[10] + 1  # Locust keeps two digits


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_it_as_any_other_load(tmp_path: Path, server: StubServer, times: int) -> None:
    """Once: what is in flight is finished. Twice: it is cut off. Exit 130, and every planned request has a row."""
    endless = {"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 1000, "timeout": "200s"}
    run, go_on = tmp_path / "run", tmp_path / "go-on"
    with Relay(server.port, 20, go_on) as relay:
        path = scenario(tmp_path, engines=engines(relay.url), load=[{**endless, "driver": "locust"}])
        with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
            wait_until(reached(go_on).exists, process)
            interrupt(process, go_on, times)
            _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    (trial,) = manifest(run)["cells"][0]["trials"]
    rows = records(run, trial)
    assert [row["request"] for row in rows] == list(range(1000))
    expected = {"ok", "not_sent"} if times == 1 else {"ok", "not_sent", "unfinished"}
    assert {row["status"] for row in rows} == expected


def refused(*arguments: str) -> str:
    """The sentence with which a command is refused, exit code 2, before anything is run."""
    with pytest.raises(UsageError) as sentence:
        CliRunner().invoke(app, ["run", *arguments], catch_exceptions=False)
    assert sentence.value.exit_code == 2
    return str(sentence.value)


def test_engines_in_this_process_are_refused(tmp_path: Path) -> None:
    """Locust reaches engines over the network only; the sentence says what to leave out."""
    assert "remove `driver`" in refused(str(scenario(tmp_path)), "--driver", "locust")


@pytest.mark.parametrize("option", [("--web",), ("--expect-workers", "2")])
def test_options_of_locust_need_it(tmp_path: Path, option: tuple[str, ...]) -> None:
    """What would be ignored is refused."""
    assert "--driver locust" in refused(str(scenario(tmp_path)), *option)


def test_where_workers_connect_needs_workers(tmp_path: Path) -> None:
    """An address to which nobody is asked to connect is refused."""
    assert "--expect-workers" in refused(str(scenario(tmp_path)), "--master-bind-host", "127.0.0.2")
