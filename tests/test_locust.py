"""The same scenario sent by Locust: the same plan, records and report, with Locust's own page beside it."""

from __future__ import annotations

import csv
import io
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import harness, interrupt, manifest, records, running, scenario, told, wait_until

from harness.drivers.stub import StubServer, model_name
from harness.metrics import START_AND_MEMORY
from tests.relay import Relay, reached

pytestmark = pytest.mark.slow
PLANNED = ("request", "class", "session", "turn", "user", "phase", "after", "think_ns", "requested_prompt_tokens")
OPEN = {"kind": "sustained", "rate": 40, "warmup": "500ms", "requests": 60, "timeout": "60s"}
CLOSED = {"kind": "sustained", "users": 4, "requests": 40, "timeout": "60s", "think_time": "10ms"}
QUICK = ("--format", "json,csv")


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


@pytest.mark.parametrize("load", [OPEN, CLOSED], ids=["open", "closed"])
def test_both_drivers_do_the_same(tmp_path: Path, server: StubServer, load: dict[str, Any]) -> None:
    """The same plan hash, the same rows, the same metrics in the report, whoever sends."""
    path = scenario(tmp_path, engines=engines(f"http://127.0.0.1:{server.port}"), load=[load])
    trials, rows, reports, summaries = [], [], [], []
    for driver in ("inprocess", "locust"):
        ended = harness("run", str(path), "--out", driver, "--driver", driver, *QUICK, cwd=tmp_path)
        assert ended.code in (0, 4), ended.err  # a busy machine may make it invalid
        (trial,) = manifest(tmp_path / driver)["cells"][0]["trials"]
        assert trial["driver"] == driver
        trials.append(trial)
        rows.append(records(tmp_path / driver, trial))
        reports.append(json.loads((tmp_path / driver / "summary.json").read_text()))
        summaries.append(list(csv.DictReader(io.StringIO((tmp_path / driver / "summary.csv").read_text()))))
    ours, locusts = rows
    assert trials[0]["plan_hash"] == trials[1]["plan_hash"]
    assert trials[0]["planned"] == trials[1]["planned"]
    assert [[row[name] for name in PLANNED] for row in ours] == [[row[name] for name in PLANNED] for row in locusts]
    if load is OPEN:
        assert [row["due_ns"] for row in ours] == [row["due_ns"] for row in locusts]
    assert {row["status"] for row in locusts} == {"ok"}
    assert [row["output_tokens"] for row in ours] == [row["output_tokens"] for row in locusts]
    assert shape(reports[0]) == shape(reports[1])
    read = {metric.name for metric in START_AND_MEMORY}  # a trial this short may end between two readings
    described = [
        [(row["metric"], row["statistic"], row["class"]) for row in summary if row["metric"] not in read]
        for summary in summaries
    ]
    assert described[0] == described[1]


def test_times_are_those_of_the_tokens(tmp_path: Path, server: StubServer) -> None:
    """The kernel stamps a token when it is there: within a millisecond of when it was passed on on the way."""
    with Relay(server.port) as relay:
        path = scenario(tmp_path, engines=engines(relay.url, 20, 20), load=[{**CLOSED, "driver": "locust"}])
        harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path)
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    rows = records(tmp_path / "run", trial)
    assert {row["clock"] for row in rows} == {"kernel"}
    assert all(row["sent_ns"] >= row["due_ns"] for row in rows)
    t0_ns = trial["client"]["t0_ns"]
    stamped = sorted(t0_ns + at_ns for row in rows for at_ns in row["chunk_ns"])
    passed = [at_ns for at_ns, data in relay.passed if at_ns > t0_ns for _ in range(data.count(b'"text":" '))]
    assert len(stamped) == len(passed) == 40 * 4
    late_ms = sorted(abs(seen - true) / 1e6 for seen, true in zip(stamped, sorted(passed), strict=True))
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
    endless = {"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 6000, "timeout": "200s"}
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
    assert [row["request"] for row in rows] == list(range(6000))
    expected = {"ok", "not_sent"} if times == 1 else {"ok", "not_sent", "unfinished"}
    assert {row["status"] for row in rows} == expected


def test_engines_in_this_process_are_refused(tmp_path: Path) -> None:
    """Locust reaches engines over the network only; the sentence says what to leave out."""
    ended = harness("run", str(scenario(tmp_path)), "--driver", "locust", cwd=tmp_path)
    assert ended.code == 2
    assert "remove `driver`" in ended.err


@pytest.mark.parametrize("option", [("--web",), ("--expect-workers", "2")])
def test_options_of_locust_need_it(tmp_path: Path, option: tuple[str, ...]) -> None:
    """What would be ignored is refused."""
    ended = harness("run", str(scenario(tmp_path)), *option, cwd=tmp_path)
    assert ended.code == 2
    assert "--driver locust" in ended.err


def test_where_workers_connect_needs_workers(tmp_path: Path) -> None:
    """An address to which nobody is asked to connect is refused."""
    ended = harness("run", str(scenario(tmp_path)), "--master-bind-host", "127.0.0.2", cwd=tmp_path)
    assert ended.code == 2
    assert "--expect-workers" in ended.err
