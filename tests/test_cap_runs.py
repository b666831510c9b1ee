"""Runs under a cap on the requests in flight, and with retries: by one process, by several, and by Locust."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from command import manifest, records, scenario

from harness.drivers.stub import model_name
from tests.busy_server import BusyServer, busy_server
from tests.forked import harness

pytestmark = pytest.mark.slow
LOAD = {"kind": "sustained", "rate": 100, "requests": 60, "timeout": "20s"}
RETRIES = {"times": 5, "wait": "10ms"}
CAP = 2
WAYS: dict[str, dict[str, Any]] = {
    "capped": {"max_concurrency": CAP},
    "one process": {"retries": RETRIES},
    "two processes": {"retries": RETRIES, "workers": 2},
    "capped, with retries": {"max_concurrency": CAP, "retries": RETRIES},
    "by Locust": {"max_concurrency": CAP, "retries": RETRIES, "driver": "locust"},
}
RETRIED = [name for name, keys in WAYS.items() if "retries" in keys]
CAPPED = [name for name, keys in WAYS.items() if "max_concurrency" in keys]


@dataclass(frozen=True)
class Made:
    """A run with a trial for each of WAYS, and its server."""

    run: Path
    server: BusyServer

    def trial(self, way: str) -> dict[str, Any]:
        """Its entry in the manifest."""
        (cell,) = manifest(self.run)["cells"]
        return dict(cell["trials"][list(WAYS).index(way)])

    def rows(self, way: str) -> list[dict[str, Any]]:
        """Its records."""
        return records(self.run, self.trial(way))

    def derived(self, way: str) -> dict[str, Any]:
        """Its part of the summary as JSON."""
        told = json.loads((self.run / "summary.json").read_text())
        return dict(told["trials"][list(WAYS).index(way)])

    def notes(self, way: str) -> dict[str, str]:
        """The sentences of its notes by their codes."""
        return {one["code"]: one["sentence"] for one in self.derived(way)["validity"]["notes"]}

    def in_trial(self, way: str, moments: list[int]) -> int:
        """How many moments lay within the trial."""
        trial = self.trial(way)
        return sum(trial["t0_ns"] <= at <= trial["ended_ns"] for at in moments)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """One run of all."""
    folder = tmp_path_factory.mktemp("capped")
    with busy_server(refuse_every=5) as server:
        engine = {"engine": "http", "url": server.url, "served_model": model_name(20, 2)}
        loads = [LOAD | {"name": name} | keys for name, keys in WAYS.items()]
        path = scenario(folder, engines=[engine], load=loads, workload={"prompt_tokens": 8, "output_tokens": 4})
        ended = harness("run", str(path), "--out", "run", "--format", "json", cwd=folder)
        assert ended.code in (0, 4), ended.err  # without retries many fail, and a busy machine may make it invalid
        yield Made(folder / "run", server)


@pytest.mark.parametrize("way", RETRIED)
def test_each_attempt_is_counted_once(made: Made, way: str) -> None:
    """The server read the requests of the records and their retries, and refused as many as were retried."""
    rows, trial = made.rows(way), made.trial(way)
    assert {row["status"] for row in rows if row["phase"] == "measure"} == {"ok"}
    assert sum(row["phase"] == "measure" for row in rows) == 60
    sent = [row for row in rows if row["sent_ns"] is not None]
    retries = sum(row["retries"] for row in rows)
    assert retries > 5
    assert made.in_trial(way, made.server.asked_ns) == len(sent) + retries
    assert trial["client"]["retried"] == {"HTTP 503": retries}
    assert trial["workers"] == WAYS[way].get("workers", 1)
    assert made.derived(way)["facts"]["retries"]["attempts"] == retries
    assert f"{retries} after HTTP 503" in made.notes(way)["retried"]
    ends = [row["attempt_end"] for row in rows if row["retries"]]
    assert [len(one) - 1 for one in ends] == [row["retries"] for row in rows if row["retries"]]
    assert {*chain.from_iterable(one[:-1] for one in ends)} == {"HTTP 503"}
    (failed,) = made.derived(way)["facts"]["retries"]["failed"]
    assert (failed["cause"], failed["attempts"]) == ("HTTP 503", retries)
    assert 0 < failed["p50_ms"] <= failed["max_ms"]


@pytest.mark.parametrize("way", CAPPED)
def test_no_more_than_the_cap_are_in_flight(made: Made, way: str) -> None:
    """By the records, and no requests are late but for their wait."""
    rows, trial = made.rows(way), made.trial(way)
    assert trial["max_concurrency"] == CAP
    assert made.derived(way)["facts"]["peak_in_flight"] <= CAP
    sent = [row for row in rows if row["sent_ns"] is not None]
    assert all(row["sent_ns"] >= row["due_ns"] + row["held_ns"] for row in sent)
    assert sum(row["held_ns"] > 0 for row in sent) > 30
    assert f" requests waited for one of {CAP} places; " in made.notes(way)["capped"]
    assert {row["held_ns"] for name in WAYS if name not in CAPPED for row in made.rows(name)} == {None}


def test_without_retries_a_refusal_is_the_outcome(made: Made) -> None:
    """One in five."""
    rows = [row for row in made.rows("capped") if row["phase"] == "measure"]
    assert sum(row["status"] == "rejected" for row in rows) == pytest.approx(12, abs=2)
    assert {row["retries"] for row in rows} == {0}
    assert "retried" not in made.notes("capped")


def test_a_cap_is_not_divided_among_machines(tmp_path: Path) -> None:
    """Each would keep its own: the sentence says which option to leave out."""
    engine = {"engine": "http", "url": "http://127.0.0.1:9", "served_model": "m"}
    path = scenario(tmp_path, engines=[engine], load=[LOAD | {"max_concurrency": 4}])
    ended = harness("run", str(path), "--driver", "locust", "--expect-workers", "2", cwd=tmp_path)
    assert ended.code == 2
    assert "`max_concurrency` is kept by one process; leave --expect-workers or `max_concurrency` out" in ended.err
