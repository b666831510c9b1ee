"""The search for the largest rate by the command, in real time, on a server of known slots and times."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import Ended, manifest, records, scenario

from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk
from tests.forked import harness
from tests.scripted_server import Call, ending, piece, reply, serving

SLOTS, SERVICE_S = 4, 0.08
MOST_RPS = SLOTS / SERVICE_S
SLO_MS = 400
LOAD = {"kind": "saturate", "within": "16s", "measure": "3s", "first_rate": 10, "timeout": "20s"}


class Slots:
    """Server that answers at most SLOTS requests at a time, each SERVICE_S after it got a slot."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(SLOTS)

    async def answer(self, call: Call) -> None:
        """A reply of two tokens at the end of the service; at once the list of its models."""
        if call.head.startswith(b"GET"):
            await call.send(
                reply("200 OK", b'{"object": "list", "data": [{"id": "m"}]}', "content-type: application/json")
            )
            return
        async with self._free:
            await asyncio.sleep(SERVICE_S)
            await call.send(STREAM_HEAD + chunk(piece(" a")) + chunk(piece(" b", "length")) + chunk(ending()))
            await call.send(LAST_CHUNK)


def searched(folder: Path, *arguments: str, **keys: Any) -> Ended:
    """What a search on the server says; its run is `run` in the folder."""

    async def main() -> Ended:
        async with serving(Slots().answer) as server:
            engine = {"engine": "http", "url": server.endpoint.url, "dialect": "openai-completions"}
            path = scenario(folder, engines=[engine], slo={"ttft": f"{SLO_MS}ms"}, **keys)
            command, *rest = arguments
            whole = (command, str(path), *rest, "--out", "run", "--format", "json,md")
            return await asyncio.to_thread(harness, *whole, cwd=folder)

    return asyncio.run(main())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Path]:
    """A run of the load, and its folder."""
    folder = tmp_path_factory.mktemp("saturation")
    return searched(folder, "run", load=[LOAD]), folder


def result_of(folder: Path) -> dict[str, Any]:
    """The result in the summary."""
    text = (folder / "run" / "summary.json").read_text()
    found: dict[str, Any] = json.loads(text)["trials"][0]["facts"]["saturation"]
    return found


@pytest.mark.slow
def test_no_rate_beyond_the_servers_own_is_found(run: tuple[Ended, Path]) -> None:
    """Four slots of 80 ms serve 50/s at most, whatever this machine does; a busy one serves fewer."""
    ended, folder = run
    assert ended.code in (0, 4), ended.err  # 4: a busy machine makes the client late
    found = result_of(folder)
    assert 0 < found["lower_rps"] < found["value_rps"] < found["upper_rps"]
    assert found["throughput_rps"] <= 1.2 * MOST_RPS
    assert found["lower_rps"] <= 1.1 * found["throughput_rps"]
    assert {one["rate"] for one in found["rates"]} >= {10.0, 20.0, 40.0}


@pytest.mark.slow
def test_the_search_is_told_while_it_goes_on_and_at_the_end(run: tuple[Ended, Path]) -> None:
    """A line for each rate with what is known by then; the result is in the terminal and in Markdown."""
    ended, folder = run
    assert re.search(r"ramp, 20 requests/s", ended.err)
    assert re.search(r"search, [\d.]+ requests/s; largest rate [\d.]+ to [\d.]+, median [\d.]+ \(slo\)", ended.err)
    assert re.search(r"measuring at [\d.]+ requests/s", ended.err)
    assert re.search(r"SATURATION +plan with [\d.]+ req/s; the largest rate is [\d.]+ to [\d.]+", ended.out)
    assert "## Saturation" in (folder / "run" / "report.md").read_text()


@pytest.mark.slow
def test_the_measurement_is_the_last_part(run: tuple[Ended, Path]) -> None:
    """Its rows are measured; those of the search are warm-up."""
    _, folder = run
    (trial,) = manifest(folder / "run")["cells"][0]["trials"]
    last = trial["search"]["visits"][-1]
    assert last["state"] == "confirm"
    assert trial["window"] == {"start_ns": last["counted_from_ns"], "end_ns": last["end_ns"]}
    rows = records(folder / "run", trial)
    by_phase = {row["phase"] for row in rows}
    assert {"warmup", "measure"} <= by_phase
    inside = [last["counted_from_ns"] <= row["due_ns"] < last["end_ns"] for row in rows]
    assert inside == [row["phase"] == "measure" for row in rows]
    assert sorted(row["request"] for row in rows) == list(range(len(rows)))


@pytest.mark.slow
def test_the_report_finds_the_same_again(run: tuple[Ended, Path]) -> None:
    """From the stored records alone."""
    _, folder = run
    before = result_of(folder)
    assert harness("report", "run", "--format", "json", cwd=folder).code in (0, 4)
    assert result_of(folder) == before


def test_a_search_needs_an_slo(tmp_path: Path) -> None:
    """One sentence with the place and what to write."""
    path = scenario(tmp_path, engines=[{"engine": "simulated"}], load=[{"kind": "saturate"}])
    ended = harness("validate", str(path), cwd=tmp_path)
    assert ended.code == 2
    assert "`kind: saturate` needs an `slo` to keep; write for example `slo: {ttft: 500ms}`" in ended.err


def test_the_command_makes_a_search_of_any_scenario(tmp_path: Path) -> None:
    """Its loads are replaced; the SLO may come from the command."""
    load = [{"kind": "single_user", "requests": 3}, {"kind": "sustained", "rate": 2, "duration": "10s"}]
    path = scenario(tmp_path, engines=[{"engine": "simulated"}], load=load)
    ended = harness("saturate", str(path), "--for", "5m", "--slo", "ttft=200ms", "--dry-run", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "000-saturate  saturate" in ended.out
    assert "single_user" not in ended.out


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        ({"rate": 4}, "is what this load searches for"),
        ({"users": 4}, "for the knee by users write `kind: sustained` and `users: [1, 2, 4, 8, 16]`"),
        ({"duration": "3m"}, "write `within: 3m`"),
        ({"warmup": "3s"}, "a search warms up by itself; leave `warmup` out"),
        ({"workers": 4}, "a search is sent by one process; leave `workers` out"),
        ({"driver": "locust"}, "`driver: locust` cannot change the rate while it runs; leave `driver` out"),
    ],
)
def test_keys_that_make_no_sense_are_refused(tmp_path: Path, load: dict[str, Any], sentence: str) -> None:
    """Each with what to write instead."""
    keys = {"engines": [{"engine": "simulated"}], "slo": {"ttft": "1s"}}
    path = scenario(tmp_path, load=[{"kind": "saturate", **load}], **keys)
    ended = harness("validate", str(path), cwd=tmp_path)
    assert ended.code == 2
    assert sentence in ended.err


def test_the_command_tries_numbers_of_users(tmp_path: Path) -> None:
    """A closed loop has no rate to search for: each number of users is a load."""
    path = scenario(tmp_path, engines=[{"engine": "simulated"}], load=[{"kind": "single_user", "requests": 3}])
    ended = harness("saturate", str(path), "--users", "8", "--for", "2m", "--slo", "ttft=1s", "--dry-run", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert re.findall(r"sustained-users-(\d+)", ended.out) == ["1", "2", "3", "4", "6", "8"]
    refused = harness("saturate", str(path), "--users", "8", "--measure", "9s", "--slo", "ttft=1s", cwd=tmp_path)
    assert refused.code == 2
    assert "--measure is for a search by rate, and --users tries users" in refused.err
