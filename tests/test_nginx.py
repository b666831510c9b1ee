"""A real nginx in front of a real engine: what is measured is what came through, and what it spoils is told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command import scenario

from benchmarks.slotted_server import TOKENS, Service, slotted_server
from engines.base import Endpoint, EngineSpec, ModelReference
from engines.http.engine import HttpEngine
from engines.llamacpp.server import LlamaServer
from engines.process.server import ServerCommand, ServerProcess, free_port
from harness.drivers.base import DriveReport
from harness.drivers.http.response import ResponseReader
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk
from harness.records import Clock, Loop, Record, Status
from tests.authority import Authority, needs_openssl
from tests.balancer import PROGRAM, Front, nginx
from tests.forked import harness
from tests.planned import stored_run
from tests.scripted_server import MS, Call, Plan, ending, measure, open_plan, piece, serving

pytestmark = pytest.mark.slow

TINY = f"{sys.executable} {Path(__file__).parent / 'engines' / 'tiny_server.py'} {{port}} --models m"


@pytest.fixture(scope="module", autouse=True)
def nginx_is_here() -> None:
    """On the machine that checks every change it must be."""
    if PROGRAM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("nginx is missing; install nginx-light")
        pytest.skip("nginx is missing; install nginx-light")


@pytest.fixture
def used_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it leaves connections open need not be found out first, so that they can be counted."""
    monkeypatch.setattr("harness.drivers.http.pool._REST_NS", 0)


@contextmanager
def running(arguments: str = "--pause 0.01") -> Iterator[ServerProcess]:
    """An engine that somebody else runs."""
    server = ServerProcess(ServerCommand(f"{TINY} {arguments}"))
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.stop())


@pytest.fixture(scope="module")
def engine() -> Iterator[ServerProcess]:
    """One for all; it keeps nothing of who asked."""
    with running() as server:
        yield server


def measured(url: str, plan: Plan, **more: Any) -> tuple[list[Record], DriveReport]:
    """The records of a plan."""
    return asyncio.run(measure(Endpoint(url, "openai-completions", "m", **more), plan))


@pytest.mark.usefixtures("used_again_at_once")
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_replies_come_through_as_they_are_made(engine: ServerProcess, tmp_path: Path, unix: bool) -> None:
    """Every reply is whole, connections are kept, and the kernel stamps what it can."""
    with nginx(tmp_path, engine.port, unix=unix) as front:
        started = HttpEngine(EngineSpec("http", options={"url": front.url}))
        assert asyncio.run(started.start()).model == "m"
        records, report = measured(front.url, Plan(12, users=3))
    assert [(record.status, record.output_tokens) for record in records] == [(Status.OK, 4)] * 12
    assert report.connections_opened == 3
    assert {record.clock for record in records} == {Clock.LOOP if unix else Clock.KERNEL}


@pytest.mark.usefixtures("used_again_at_once")
@needs_openssl
def test_it_ends_tls(engine: ServerProcess, tmp_path: Path) -> None:
    """With a certificate from a private authority, and asking for ours."""
    authority = Authority(tmp_path / "authority")
    (certificate, key), (ours, our_key) = authority.signed("server"), authority.signed("client")
    lines = f"ssl_certificate {certificate}; ssl_certificate_key {key}; "
    lines += f"ssl_client_certificate {authority.file}; ssl_verify_client on;"
    files = {"ca": str(authority.file), "cert": str(ours), "key": str(our_key)}
    with nginx(tmp_path, engine.port, server=lines) as front:
        started = HttpEngine(EngineSpec("http", options={"url": front.url, "tls": files}))
        assert asyncio.run(started.start()).model == "m"
        records, report = measured(front.url, Plan(6, users=2), tls=files)
        strangers, _ = measured(front.url, open_plan([0]), tls={"ca": str(authority.file)})
    assert [record.status for record in records] == [Status.OK] * 6
    assert report.connections_opened == 2
    assert (strangers[0].status, strangers[0].http_status) == (Status.HTTP_ERROR, 400)


def test_what_its_buffering_spoils_is_told(tmp_path: Path) -> None:
    """nginx holds back what comes without chunks until it has 4 KiB: the run says that the gaps cannot be seen."""
    load = [{"kind": "sustained", "users": 2, "requests": 12, "timeout": "20s"}]
    with running("--pause 0.01 --until-close") as behind, nginx(tmp_path, behind.port, buffering="on") as front:
        path = scenario(tmp_path, engines=[{"engine": "http", "url": front.url}], load=load)
        ended = harness("run", str(path), "--out", "run", "--format", "json", cwd=tmp_path)
    assert ended.code in (0, 4), ended.err  # a busy machine may make it invalid
    (trial,) = json.loads((tmp_path / "run" / "summary.json").read_text())["trials"]
    assert "bundled" in {note["code"] for note in trial["validity"]["notes"]}


@dataclass
class Steps:
    """An engine that goes on with a reply only when the client has read all that was sent of it; read: what it has."""

    chunked: bool
    read: bytearray = field(default_factory=bytearray)

    async def answer(self, call: Call) -> None:
        """Four tokens, each with a text of its own, one after the other."""
        head = STREAM_HEAD if self.chunked else STREAM_HEAD.replace(b"transfer-encoding: chunked\r\n", b"")
        await call.send(head)
        for token in range(4):
            text = f"<{call.number}.{token}>"
            await self.send(call, piece(text))
            while text.encode() not in self.read:
                await asyncio.sleep(0.001)
        await self.send(call, ending(4))
        if self.chunked:
            await call.send(LAST_CHUNK)
        else:
            call.writer.close()

    async def send(self, call: Call, events: bytes) -> None:
        """A piece of the body."""
        await call.send(chunk(events) if self.chunked else events)


@pytest.mark.parametrize(
    ("buffering", "chunked", "unix"),
    [("off", True, False), ("off", True, True), ("off", False, False), ("on", True, False)],
    ids=["unbuffered", "unix", "until-close", "buffered"],
)
def test_tokens_come_through_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffering: str, chunked: bool, unix: bool
) -> None:
    """Each has a time of its own: without buffering, and with it where the engine sends chunks."""
    steps, feed = Steps(chunked), ResponseReader.feed

    def read(reader: ResponseReader, data: bytes) -> bool:
        steps.read += data
        return feed(reader, data)

    monkeypatch.setattr(ResponseReader, "feed", read)

    async def main() -> list[Record]:
        async with serving(steps.answer) as engine:
            with nginx(tmp_path, engine.port, buffering=buffering, unix=unix) as front:
                target = Endpoint(front.url, "openai-completions", "m")
                return (await measure(target, Plan(8, users=2)))[0]

    records = asyncio.run(main())
    assert [record.status for record in records] == [Status.OK] * 8
    for record in records:
        times = list(record.chunk_ns or ())
        assert len(times) == 4
        assert times == sorted(set(times))


def test_killed_in_mid_run(tmp_path: Path) -> None:
    """What was under way is cut off, what fell due later finds nobody: each a row, each with a sentence."""
    fronts: list[Front] = []

    async def answer(call: Call) -> None:
        if call.number == 10:
            fronts[0].process.kill()
        await call.good()

    async def main() -> list[Record]:
        async with serving(answer) as engine:
            with nginx(tmp_path, engine.port) as front:
                fronts.append(front)
                target = Endpoint(front.url, "openai-completions", "m")
                return (await measure(target, Plan(30, users=2)))[0]

    records = asyncio.run(main())
    assert [record.request for record in records] == list(range(30))
    assert {record.status for record in records} <= {Status.OK, Status.TRUNCATED, Status.CONNECTION_ERROR}
    assert {record.status for record in records[:8]} == {Status.OK}
    assert {record.status for record in records[14:]} == {Status.CONNECTION_ERROR}
    assert {"nothing listens at localhost" in (record.error or "") for record in records[14:]} == {True}
    assert all(record.error for record in records if record.status != Status.OK)


def test_an_engine_that_is_gone_behind_it(tmp_path: Path) -> None:
    """Its page about a bad gateway is an error of the server, with its status."""
    with nginx(tmp_path, free_port()) as front:
        records, _ = measured(front.url, open_plan([0, 5]))
    assert [(record.status, record.http_status) for record in records] == [(Status.HTTP_ERROR, 502)] * 2


def test_idle_connections_that_it_closes(engine: ServerProcess, tmp_path: Path) -> None:
    """Another is opened for the next turn; nothing fails, and the notes say how many there were."""
    plan = Plan(2, users=1, think_ns=2_000 * MS)  # a busy nginx has more than a second to do it
    with nginx(tmp_path, engine.port, server="keepalive_timeout 700ms;") as front:
        records, report = measured(front.url, plan)
    assert [record.status for record in records] == [Status.OK] * 2
    assert plan.loop is Loop.CLOSED
    assert [note for note in report.notes if "idle connections were closed by localhost" in note]


@pytest.mark.usefixtures("used_again_at_once")
def test_a_connection_that_carries_few_requests(engine: ServerProcess, tmp_path: Path) -> None:
    """Told with the last reply that a connection carries, it is obeyed: no request is sent twice."""
    with nginx(tmp_path, engine.port, server="keepalive_requests 2;") as front:
        records, report = measured(front.url, Plan(10, users=1))
    assert [record.status for record in records] == [Status.OK] * 10
    assert report.connections_opened == 5
    assert not [note for note in report.notes if "sent again" in note]


def test_the_embedded_engine_behind_it(tmp_path: Path) -> None:
    """llama.cpp's replies come through unchanged; it closes connections silently, so nginx must not keep any to it."""
    spec = EngineSpec("llama-server", ModelReference("tiny"), "q8_0", {"n_threads": 1}, log_path=tmp_path / "log")

    async def main() -> list[list[Record]]:
        llama = LlamaServer(spec)
        await asyncio.to_thread(llama.prepare)
        try:
            await llama.start()
            direct = llama.endpoint()
            with nginx(tmp_path, int(direct.url.rpartition(":")[2]), upstream="") as front:
                targets = [direct, Endpoint(front.url, direct.dialect, direct.model)]
                return [(await measure(target, Plan(8, users=2), timeout_ms=30_000))[0] for target in targets]
        finally:
            await llama.stop()

    direct, through = asyncio.run(main())
    assert {(record.status, record.error) for record in direct + through} == {(Status.OK, None)}
    assert [record.output_tokens for record in through] == [record.output_tokens for record in direct]


def test_a_plan_is_checked_on_two_replicas_behind_it(tmp_path: Path) -> None:
    """Predicted from one server of known slots; each of the two gets half of the requests."""
    service = Service(slots=8, mean_s=0.05, cv=0.0)
    lengths = {"dist": "fixed", "value": TOKENS, "exact": True}
    with slotted_server(service, 1) as one, slotted_server(service, 2) as other, nginx(tmp_path, one, other) as front:
        given = {
            "instance": "g5.xlarge",
            "engines": [{"engine": "http", "url": f"http://127.0.0.1:{one}", "dialect": "openai-completions"}],
            "workload": {"prompt_tokens": 16, "output_tokens": lengths},
            "load": [{"kind": "sustained", "rate": rate, "duration": "60s"} for rate in (10.0, 20.0)],
            "slo": {"ttft": "500ms"},
            "seed": 1,
        }
        http = {"engine": "http", "model": ""}
        stored_run(tmp_path / "runs" / "one", {"": {10.0: 200.0, 20.0: 200.0}}, engine=http, scenario=given)
        point = f"replicas=2,url={front.url.replace('localhost', '127.0.0.1')},for=3s"
        ended = harness("plan", "one", "--demand", "30", "--validate", point, "--json", cwd=tmp_path)
    assert ended.code == 0, ended.err
    (check,) = json.loads(ended.out)["checks"]
    (rate,) = check["rates"]
    assert (check["kind"], check["replicas"], rate["rate_rps"]) == ("replicas", 2, pytest.approx(40 / 1.1, rel=0.01))
    assert rate["output_tokens_per_s"]["predicted"] == pytest.approx(64 * 40 / 1.1, rel=0.02)
    rows = pq.read_table(next((tmp_path / "runs" / check["run"]).rglob("records.parquet"))).column("status").to_pylist()
    assert Status.OK in rows
    assert set(rows) <= {Status.OK, Status.UNFINISHED}  # what was under way at the end of the cooldown
