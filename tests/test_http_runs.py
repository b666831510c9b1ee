"""Runs against servers that are reached in special ways, from the scenario to the report."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import Ended, harness, manifest, measured, scenario

from engines.process.server import ServerCommand, ServerProcess, free_port

TINY = f"{sys.executable} {Path(__file__).parent / 'engines' / 'tiny_server.py'} {{port}}"
LOAD = [{"kind": "sustained", "users": 2, "requests": 12, "timeout": "10s"}]


@contextmanager
def running(arguments: str = "--models m") -> Iterator[str]:
    """A server that somebody else runs; its address."""
    server = ServerProcess(ServerCommand(f"{TINY} {arguments}"))
    asyncio.run(server.start())
    try:
        yield server.url
    finally:
        asyncio.run(server.stop())


def run(folder: Path, engine: dict[str, Any], *, others: tuple[dict[str, Any], ...] = (), **more: Any) -> Ended:
    """A run of this engine."""
    path = scenario(folder, engines=[{"engine": "http", **engine}, *others], load=LOAD)
    return harness("run", str(path), "--out", "run", "--format", "md,json", cwd=folder, **more)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The measured records of its only trial."""
    (trial,) = manifest(folder / "run")["cells"][0]["trials"]
    return measured(folder / "run", trial)


@pytest.mark.slow
def test_several_servers_share_the_requests_and_are_told_apart(tmp_path: Path) -> None:
    """Each gets its share, for every user goes round, and the report has a line for each."""
    with running() as first, running() as second:
        ended = run(tmp_path, {"url": [first, second]})
    assert ended.code in (0, 4), ended.err  # 4: a busy machine makes the client late
    told = manifest(tmp_path / "run")
    assert told["cells"][0]["engine_info"]["options"]["url"] == [first, second]
    rows = rows_of(tmp_path)
    assert Counter(row["backend"] for row in rows) == {first: 6, second: 6}
    assert all(row["backend"] == (first, second)[(row["user"] + row["request"] // 2) % 2] for row in rows)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "## Servers" in report
    assert report.count("| 6 | 0 |") == 2


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["inprocess", "locust"])
def test_a_server_that_refuses_temperature_0_is_asked_without(tmp_path: Path, driver: str) -> None:
    """Every request succeeds, the plan says what was sent, and the report tells why it is another."""
    load = [{**LOAD[0], "driver": driver}]
    with running("--models m --own-temperature") as odd, running() as plain:
        path = scenario(tmp_path, engines=[{"engine": "http", "url": url} for url in (odd, plain)], load=load)
        ended = harness("run", str(path), "--out", "run", "--format", "md,json", cwd=tmp_path)
    assert ended.code in (0, 4), ended.err
    told = manifest(tmp_path / "run")
    refused, greedy = (cell["trials"][0] for cell in told["cells"])
    assert {row["status"] for row in measured(tmp_path / "run", refused)} == {"ok"}
    assert refused["sampling"] == {"default": {}}
    assert greedy["sampling"] == {"default": {"temperature": 0}}
    assert refused["plan_hash"] != greedy["plan_hash"]
    words = "Unsupported value: 'temperature' does not support 0 with this model."
    assert words in refused["start"]["temperature_refused"]
    assert greedy["start"]["temperature_refused"] is None
    report = (tmp_path / "run" / "report.md").read_text()
    assert report.count("The server refuses temperature 0 and drew tokens by its own") >= 1


@pytest.mark.slow
def test_several_servers_of_which_one_is_another(tmp_path: Path) -> None:
    """Servers of different models, and one that is not there, are no one service."""
    with running() as first, running("--models n") as second:
        ended = run(tmp_path, {"url": [first, second]})
        assert ended.code == 3
        assert (
            f"{first} serves 'm', {second} serves 'n'; requests are spread only over servers of one model" in ended.err
        )
    with running() as first:
        gone = f"http://127.0.0.1:{free_port()}"
        (tmp_path / "again").mkdir()
        ended = run(tmp_path / "again", {"url": [first, gone]})
        assert f"no server answers at {gone}" in ended.err


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ({"url": []}, "engines.0.url: contains no address; write `http://host:port`"),
        ({"url": ["http://a", "http://a"]}, "engines.0.url: lists http://a twice; keep one"),
        ({"url": ["http://a", 3]}, "engines.0.url: must be an address, or a list of addresses"),
        ({"url": ["http://a", "b"]}, "engines.0.url: 'b' is not an address; write `http://host:port`"),
        ({"url": "unix:///x.sock"}, "'unix:///x.sock' is not an address; write `http+unix:///path/to.sock`"),
        ({"url": "http://a", "tls": {"cert": "c"}}, "engines.0: `tls` needs an address that begins with `https://`"),
        ({"url": "http+unix:///x", "proxy": "http://b"}, "engines.0: `proxy` has no effect on a Unix socket"),
        ({"url": "http://a", "proxy": "off"}, "engines.0.proxy: must be an address or `none`; write `none`"),
        ({"url": "http+unix://run/x.sock"}, "is not the address of a Unix socket; write http+unix:///path/to.sock"),
        ({"url": f"http+unix:///{'x' * 120}"}, "the path of a Unix socket has at most 107 bytes"),
        ({"url": "http+unix:///x.sock:v1"}, "must begin with `/`: write http+unix:///path/to.sock:/base"),
        ({"url": "https://a", "tls": {"ca": "gone.pem"}}, "gone.pem is not a file; a path here is relative to"),
        ({"url": "https://a", "tls": {"key": "k"}}, "engines.0.tls: `key` needs `cert`"),
        (
            {"url": "http://a", "proxy": "socks5://b"},
            "engines.0.proxy: proxy: only http:// proxies are supported",
        ),
        ({"url": "http://a", "proxy": "http://u:p@b"}, "engines.0.proxy: must not hold a user name or password"),
        ({"url": "http://a", "headers": {"Authorization": "x"}}, "engines.0.headers: the value of Authorization would"),
        (
            {"url": "http://a", "headers": {"X-Api-Key": "x"}},
            "engines.0.headers: the value of X-Api-Key would be stored",
        ),
        ({"url": "http://a", "headers": {"Host": "x"}}, "engines.0.headers: the header Host is set by the harness"),
        ({"url": "http://a", "headers": {"X Y": "x"}}, "engines.0.headers: 'X Y' is not a valid header name"),
        (
            {"url": "http://a", "dialect": "generate-backend", "request": {"max_tokens": 3}},
            "engines.0: `request` must not set `max_tokens`, which generate-backend sets from the scenario; leave it",
        ),
        ({"url": "http://a", "request": {"auth_token": "x"}}, "engines.0.request: the value of auth_token would be"),
        ({"url": "http://a", "headers_env": {"a:b": "V"}}, "engines.0.headers_env: 'a:b' is not a valid header name"),
    ],
)
def test_mistakes_are_told_before_anything_runs(tmp_path: Path, engine: dict[str, Any], sentence: str) -> None:
    """Each with its place, and what to write instead."""
    from harness.errors import ScenarioError
    from harness.scenario.reader import load

    with pytest.raises(ScenarioError) as told:
        load(scenario(tmp_path, engines=[{"engine": "http", **engine}]))
    assert sentence in str(told.value)


@pytest.mark.slow
def test_a_missing_key_stops_the_other_cells_too(tmp_path: Path) -> None:
    """It is a mistake of usage: nothing is run; checking and planning only say so."""
    engine, others = {"url": "http://127.0.0.1:9", "api_key_env": "NO_SUCH_KEY"}, ({"engine": "simulated"},)
    ended = run(tmp_path, engine, others=others)
    assert ended.code == 2
    assert "the environment variable NO_SUCH_KEY, which the scenario names, is not set; set it" in ended.err
    assert not (tmp_path / "run").exists()
    checked = harness("validate", "scenario.yaml", cwd=tmp_path)
    assert checked.code == 0
    assert "the environment variable NO_SUCH_KEY is not set" in checked.err
    planned = harness("run", "scenario.yaml", "--dry-run", cwd=tmp_path)
    assert planned.code == 0
    assert "NO_SUCH_KEY" in planned.out


@pytest.mark.slow
def test_headers_reach_the_server_as_they_are_written(tmp_path: Path) -> None:
    """Plain ones are stored; a value that no header can carry is refused without being shown."""
    with running() as url:
        ended = run(tmp_path, {"url": url, "headers": {"X-Tenant": "blue"}, "headers_env": {"X-Secret": "S"}},
                    env={"S": "topsecret"})  # fmt: skip
        assert ended.code in (0, 4), ended.err  # 4: a busy machine makes the client late
        assert {row["status"] for row in rows_of(tmp_path)} == {"ok"}
        stored = (tmp_path / "run" / "manifest.json").read_text()
        assert "blue" in stored
        assert "topsecret" not in stored
        broken = tmp_path / "broken"
        broken.mkdir()
        ended = run(broken, {"url": url, "headers_env": {"X-Secret": "S"}}, env={"S": "two\nlines"})
    assert ended.code == 3
    assert "the value of the header X-Secret contains a line break" in ended.err
    assert "two" not in ended.err
