"""Runs against servers that are reached in special ways, from the scenario to the report."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import Ended, manifest, measured, scenario

from engines.process.server import ServerCommand, ServerProcess, free_port
from harness.scenario.reader import load
from tests.forked import harness

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


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    """A server of model `m` that keeps nothing."""
    with running() as url:
        yield url


def run(folder: Path, *engines: dict[str, Any], load: list[dict[str, Any]] = LOAD) -> Ended:
    """A run of these servers."""
    path = scenario(folder, engines=[{"engine": "http", **engine} for engine in engines], load=load)
    return harness("run", str(path), "--out", "run", "--format", "md,json", cwd=folder)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The measured records of its only trial, or of that of the first cell."""
    (trial,) = manifest(folder / "run")["cells"][0]["trials"]
    return measured(folder / "run", trial)


@pytest.mark.slow
def test_several_servers_share_the_requests_and_are_told_apart(plain: str, tmp_path: Path) -> None:
    """Each gets its share, for every user goes round, and the report has a line for each."""
    with running() as second:
        ended = run(tmp_path, {"url": [plain, second]})
    assert ended.code in (0, 4), ended.err  # 4: a busy machine makes the client late
    told = manifest(tmp_path / "run")
    assert told["cells"][0]["engine_info"]["options"]["url"] == [plain, second]
    rows = rows_of(tmp_path)
    assert Counter(row["backend"] for row in rows) == {plain: 6, second: 6}
    assert all(row["backend"] == (plain, second)[(row["user"] + row["request"] // 2) % 2] for row in rows)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "## Servers" in report
    assert report.count("| 6 | 0 |") == 2


@pytest.fixture(scope="module")
def refused(plain: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Path]:
    """A run, by both drivers, of a server that refuses temperature 0 and of one that does not; and its folder."""
    folder = tmp_path_factory.mktemp("refused")
    load = [{**LOAD[0], "driver": driver, "name": driver} for driver in ("inprocess", "locust")]
    with running("--models m --own-temperature") as odd:
        return run(folder, {"url": odd}, {"url": plain}, load=load), folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["inprocess", "locust"])
def test_a_server_that_refuses_temperature_0_is_asked_without(refused: tuple[Ended, Path], driver: str) -> None:
    """Every request succeeds, the plan says what was sent, and a note tells why it is another."""
    ended, folder = refused
    assert ended.code in (0, 4), ended.err
    cells = manifest(folder)["cells"]
    odd, greedy = (next(trial for trial in cell["trials"] if trial["driver"] == driver) for cell in cells)
    assert {row["status"] for row in measured(folder, odd)} == {"ok"}
    assert odd["sampling"] == {"default": {}}
    assert greedy["sampling"] == {"default": {"temperature": 0}}
    assert odd["plan_hash"] != greedy["plan_hash"]
    words = "Unsupported value: 'temperature' does not support 0 with this model."
    assert words in odd["start"]["temperature_refused"]
    assert greedy["start"]["temperature_refused"] is None
    trials = json.loads((folder / "summary.json").read_text())["trials"]
    judged = next(one["validity"] for one in trials if (one["cell"], one["trial"]) == (cells[0]["id"], odd["id"]))
    assert "temperature_refused" in {note["code"] for note in judged["notes"]}


@pytest.mark.slow
def test_several_servers_of_which_one_is_another(plain: str, tmp_path: Path) -> None:
    """Servers of different models, and one that is not there, are no one service."""
    gone = f"http://127.0.0.1:{free_port()}"
    with running("--models n") as other:
        ended = run(tmp_path, {"url": [plain, other]}, {"url": [plain, gone]})
    assert ended.code == 3
    assert f"{plain} serves 'm', {other} serves 'n'; requests are spread only over servers of one model" in ended.err
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
    path = scenario(
        tmp_path,
        engines=[
            {"engine": "http", "url": "http://127.0.0.1:9", "api_key_env": "NO_SUCH_KEY"},
            {"engine": "simulated"},
        ],
    )
    ended = harness("run", str(path), "--out", "run", cwd=tmp_path)
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
def test_headers_reach_the_server_as_they_are_written(
    plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain ones are stored; a value that no header can carry is refused without being shown."""
    monkeypatch.setenv("S", "topsecret")
    monkeypatch.setenv("BROKEN", "two\nlines")
    good = {"url": plain, "headers": {"X-Tenant": "blue"}, "headers_env": {"X-Secret": "S"}}
    ended = run(tmp_path, good, {"url": plain, "headers_env": {"X-Secret": "BROKEN"}})
    assert {row["status"] for row in rows_of(tmp_path)} == {"ok"}
    stored = (tmp_path / "run" / "manifest.json").read_text()
    assert "blue" in stored
    assert "topsecret" not in stored
    assert ended.code == 3
    assert "the value of the header X-Secret contains a line break" in ended.err
    assert "two" not in ended.err


@pytest.mark.slow
def test_a_server_is_measured_by_its_address_alone(plain: str, tmp_path: Path) -> None:
    """The scenario is shown, does the same from a file, and the title names the model."""
    options = ("--users", "2", "--duration", "1s", "--output-tokens", "3", "--limit", "error_rate <= 0.5")
    ended = harness("run", plain, *options, "--out", "run", "--format", "md", cwd=tmp_path)
    assert ended.code in (0, 4), ended.err
    assert f"m · 9.9.9 @ {plain} (openai-completions)" in ended.out
    _, _, rest = ended.err.partition("to keep and to change:\n\n")
    text, _, _ = rest.partition("\n\n")
    (tmp_path / "kept.yaml").write_text(text)
    shown, stored = load(tmp_path / "kept.yaml"), manifest(tmp_path / "run")["scenario"]
    assert shown.resolved() == {**stored, "name": shown.name}
    assert stored["workload"]["output_tokens"]["value"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("quickstart", "--rate", "2"), 2, "--rate goes with the address of a server; for a file use --set, as "),
        (("quickstart", "--retries", "0"), 2, "--retries goes with the address of a server; for a file use --set, as "),
        (("http://127.0.0.1:1", "--max-concurrency", "4"), 2, "--max-concurrency goes with --rate; --users have one"),
        (("127.0.0.1:8000",), 2, "the address of a server begins with http:// or https://: `harness run http://127"),
        (("http://127.0.0.1:1", "--limit", "p95"), 2, "--limit: 'p95' is not a limit; write `metric statistic op "),
        (("http://127.0.0.1:1",), 3, "no server answers at http://127.0.0.1:1/"),
        (("http://127.0.0.1:1", "--api-key-env", "NOT_SET"), 2, "--api-key-env NOT_SET: this environment variable"),
        (("http://127.0.0.1:eighty",), 2, "http://127.0.0.1:eighty"),
        (
            ("--resume", "latest", "--users", "2"),
            2,
            "--resume goes on with the scenario that the run has stored: leave --users",
        ),
    ],
)
def test_a_slip_with_an_address_is_one_sentence(
    arguments: tuple[str, ...], code: int, sentence: str, tmp_path: Path
) -> None:
    """And nothing is run."""
    ended = harness("run", *arguments, cwd=tmp_path)
    assert (ended.code, sentence in ended.err, ended.out) == (code, True, ""), ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["inprocess", "locust"])
def test_classes_may_go_to_adapters_of_their_own(driver: str, tmp_path: Path) -> None:
    """Each with its model, headers and keys of the body; another class with those of the engine."""
    adapter = {"served_model": "adapter", "headers": {"X-Tier": "own"}, "request": {"seed": None, "extra": {"b": 2}}}
    path = scenario(
        tmp_path,
        engines=[{"engine": "http", "headers": {"X-Tier": "all"}, "request": {"extra": {"a": 1}, "user": "u"}}],
        classes={"plain": {}, "tuned": adapter},
        load=[{"kind": "mixed", "rate": 20, "requests": 24, "driver": driver, "timeout": "10s"}],
    )
    with running("--models m,adapter") as url:
        options = ("--set", f"engines.0.url={url}", "--set", "engines.0.served_model=m")
        ended = harness("run", str(path), *options, "--out", "run", "--format", "md", cwd=tmp_path)
        with urllib.request.urlopen(f"{url}/asked") as page:
            asked = json.load(page)
    assert ended.code in (0, 4), ended.err
    found = {
        (one["body"]["model"], one["headers"]["x-tier"], json.dumps(one["body"]["extra"]), one["body"]["user"])
        for one in asked
    }
    assert found == {("m", "all", '{"a": 1}', "u"), ("adapter", "own", '{"b": 2}', "u")}


@pytest.mark.parametrize(
    ("engine", "one", "sentence"),
    [
        ("{engine: simulated}", "{served_model: a}", "classes.c.served_model: simulated has no requests with a model"),
        (
            "{engine: http, url: 'http://h'}",
            "{request: {max_tokens: 3}}",
            "classes.c.request: `request` must not set `max_",
        ),
        ("{engine: http, url: 'http://h'}", "{request: {api_key: s}}", "classes.c.request: the value of api_key would"),
        (
            "{engine: http, url: 'http://h'}",
            "{headers: {Authorization: s}}",
            "the value of Authorization would be stored",
        ),
    ],
)
def test_what_a_class_cannot_add_is_refused(engine: str, one: str, sentence: str, tmp_path: Path) -> None:
    """With its place."""
    (tmp_path / "s.yaml").write_text(
        f"engines: [{engine}]\nclasses: {{c: {one}}}\nload: [{{kind: mixed, rate: 1, duration: 5s}}]\n"
    )
    ended = harness("validate", "s.yaml", cwd=tmp_path)
    assert (ended.code, sentence in ended.err) == (2, True), ended.err
