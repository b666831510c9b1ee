"""The same scenario sent by Locust: the same plan, records and report, with Locust's own page beside it."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import harness, manifest, records, running, scenario

from harness.known_process import KnownServer
from harness.known_server import model_name
from harness.machine_metrics import START_AND_MEMORY

pytestmark = pytest.mark.slow
PLANNED = ("request", "class", "session", "turn", "user", "phase", "after", "think_ns", "requested_prompt_tokens")
OPEN = {"kind": "sustained", "rate": 40, "warmup": "500ms", "requests": 60, "timeout": "10s"}
CLOSED = {"kind": "sustained", "users": 4, "requests": 40, "timeout": "10s", "think_time": "10ms"}
QUICK = ("--format", "json,csv")


@pytest.fixture(scope="module")
def server() -> Iterator[KnownServer]:
    """A server that streams at known times."""
    with KnownServer() as running_server:
        yield running_server


def engines(server: KnownServer, first_ms: float = 20, gap_ms: float = 5) -> list[dict[str, Any]]:
    """The server as an engine."""
    return [{"engine": "http", "url": f"http://127.0.0.1:{server.port}", "served_model": model_name(first_ms, gap_ms)}]


def shape(value: Any) -> Any:
    """The structure of a JSON document: its keys and kinds, without values; readings may be missing."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return "value"


@pytest.mark.parametrize("load", [OPEN, CLOSED], ids=["open", "closed"])
def test_both_drivers_do_the_same(tmp_path: Path, server: KnownServer, load: dict[str, Any]) -> None:
    """The same plan hash, the same rows, the same metrics in the report, whoever sends."""
    path = scenario(tmp_path, engines=engines(server), load=[load])
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


def test_times_are_as_true_as_the_clients_own_lag(tmp_path: Path, server: KnownServer) -> None:
    """Gaps between tokens are the server's, and the kernel stamped them."""
    path = scenario(tmp_path, engines=engines(server, 20, 20), load=[{**CLOSED, "driver": "locust"}])
    harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path)
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    rows = records(tmp_path / "run", trial)
    gaps_ms = [(b - a) / 1e6 for row in rows for a, b in zip(row["chunk_ns"], row["chunk_ns"][1:], strict=False)]
    assert sorted(gaps_ms)[len(gaps_ms) // 2] == pytest.approx(20, abs=2)
    assert all(row["sent_ns"] >= row["due_ns"] for row in rows)


def address_in(process: Any, name: str) -> str:
    """The address that the command tells on its standard error."""
    told = ""
    while not (found := re.search(rf"{name} is at (http://\S+)", told)):
        line = process.stderr.readline()
        assert line, told
        told += line
    return found[1]


def page(address: str, post: bytes | None = None) -> str:
    """A page of Locust's."""
    with urllib.request.urlopen(address, post, timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def test_locusts_page_shows_our_times(tmp_path: Path, server: KnownServer) -> None:
    """`--web` tells an address of this machine; Locust's statistics there have our requests, times and users; its stop
    button ends the load, and everything is accounted for.
    """
    long = {"kind": "sustained", "users": 3, "duration": "60s", "timeout": "10s"}
    path = scenario(tmp_path, engines=engines(server, 50, 5), load=[long])
    with running("run", str(path), "--driver", "locust", "--web", "--out", "run", *QUICK, cwd=tmp_path) as process:
        address = address_in(process, "Locust's page")
        assert address.startswith("http://127.0.0.1:")
        entries: dict[tuple[str, str], dict[str, str]] = {}
        until_s = time.monotonic() + 30
        while int(entries.get(("e2e", "default"), {}).get("Request Count", 0)) < 20 and time.monotonic() < until_s:
            rows = csv.DictReader(io.StringIO(page(f"{address}/stats/requests/csv")))
            entries = {(row["Type"], row["Name"]): row for row in rows}
        state = json.loads(page(f"{address}/stats/requests"))
        assert "Locust" in page(f"{address}/")
        page(f"{address}/stop", b"")
        _, err = process.communicate(timeout=60)
    assert state["user_count"] == 3
    assert float(entries["ttft", "default"]["Median Response Time"]) == pytest.approx(50, abs=25)
    ours, total = entries["e2e", "default"], entries["", "Aggregated"]
    assert float(ours["Median Response Time"]) > float(entries["ttft", "default"]["Median Response Time"])
    assert total["Request Count"] == ours["Request Count"]
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    assert trial["status"] == "interrupted", err


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_it_as_any_other_load(tmp_path: Path, server: KnownServer, times: int) -> None:
    """Once: what is in flight is finished. Twice: it is cut off. Exit 130, and every planned request has a row."""
    endless = {"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 1200, "timeout": "20s"}
    path = scenario(tmp_path, engines=engines(server, 500, 300), load=[{**endless, "driver": "locust"}])
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        until_s = time.monotonic() + 60
        while not list(run.rglob("records*.arrows")) and time.monotonic() < until_s:
            time.sleep(0.05)
        time.sleep(1.5)  # until some are in flight; how many does not matter
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (trial,) = manifest(run)["cells"][0]["trials"]
    rows = records(run, trial)
    assert [row["request"] for row in rows] == list(range(1200))
    expected = {"ok", "not_sent"} if times == 1 else {"ok", "not_sent", "unfinished"}
    assert {row["status"] for row in rows} | {"ok"} == expected


def test_engines_in_this_process_are_refused(tmp_path: Path) -> None:
    """Locust reaches engines over the network only; the sentence says what to leave out."""
    ended = harness("run", str(scenario(tmp_path)), "--driver", "locust", cwd=tmp_path)
    assert ended.code == 2
    assert "leave out `driver`" in ended.err


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
