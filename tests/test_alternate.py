"""`harness run --alternate`: both sides of a pair are up, and blocks of requests take turns, as a user runs it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.drivers.stub import StubServer, model_name
from tests.command import VIRTUAL_TIME, Ended, manifest, on_path, records, scenario, wait_until
from tests.forked import harness, running

pytestmark = pytest.mark.slow
LOAD = [{"kind": "sustained", "rate": 20, "requests": 20, "timeout": "5s", "warmup": "1s", "name": "chat"}]
GATE = ("--against", "base", "--alternate", "--pairs", "4", "--out", "gate")
SIDES = ("base", "head")


def two_variants(folder: Path, head_ms: float = 20.0, **keys: Any) -> Path:
    """A scenario with a base and a head."""
    variants = {"base": {"ttft_ms": 20}, "head": {"ttft_ms": head_ms}}
    engines = [{"engine": "simulated", "options": {"tpot_ms": 2}, "variants": variants}]
    return scenario(folder, **{"engines": engines, "load": LOAD, **keys})


@dataclass(frozen=True)
class Gated:
    """A gate that was conducted in virtual time, and its folder."""

    ended: Ended
    folder: Path

    def trials(self, pair: int, side: str) -> list[dict[str, Any]]:
        """The blocks of a start."""
        found: list[dict[str, Any]] = manifest(self.run(pair, side))["cells"][0]["trials"]
        return found

    def run(self, pair: int, side: str) -> Path:
        """The run of a start."""
        return self.folder / f"pair-{pair:02}" / side


@pytest.fixture(scope="module")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Gated:
    """A gate whose head has 2 ms more for the first token, 10 %."""
    folder = tmp_path_factory.mktemp("slower")
    path = two_variants(folder, 22.0)
    return Gated(harness("run", str(path), *GATE, cwd=folder, env=VIRTUAL_TIME, timeout_s=240), folder / "gate")


def test_ten_per_cent_are_found(slower: Gated) -> None:
    """The load has one row, over all its blocks; memory, which both hold, has none."""
    assert slower.ended.code == 5, slower.ended.err + slower.ended.out
    assert "4 pairs of starts, both sides up, 4 blocks of each in turns" in slower.ended.out
    data = json.loads((slower.folder / "comparison.json").read_text())
    rows = {(row["metric"], row["statistic"]): row for row in data["rows"]}
    assert {row["load"] for row in data["rows"]} == {"chat"}
    assert rows["ttft_ms", "p50"]["change"] == pytest.approx(1.1, abs=0.005)
    assert rows["tpot_ms", "p50"]["word"] == "unchanged"
    assert not [metric for metric, _ in rows if "memory" in metric]
    assert (data["blocks"], data["pairs"], data["were_started"]) == (4, 4, True)


def test_blocks_take_turns_with_the_same_requests(slower: Gated) -> None:
    """ABBA, the side first that the pair begins with; no request of one side is in flight while the other works."""
    for pair in range(1, 5):
        each = {side: slower.trials(pair, side) for side in SIDES}
        assert [one["plan_hash"] for one in each["base"]] == [one["plan_hash"] for one in each["head"]]
        spans = sorted((one["begun_ns"], one["ended_ns"], side) for side in SIDES for one in each[side])
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
        first, second = spans[0][2], spans[1][2]
        assert [side for *_, side in spans] == [first, second, second, first] * 2
    firsts = [min(SIDES, key=lambda side: slower.trials(pair, side)[0]["begun_ns"]) for pair in range(1, 5)]
    assert firsts[0] != firsts[1]
    assert firsts[2] != firsts[3]


def test_numbers_are_those_of_all_blocks_without_the_pauses(slower: Gated) -> None:
    """Every pair's number of requests is that of the load, and its rate that of the blocks."""
    data = json.loads((slower.folder / "comparison.json").read_text())
    (rate,) = [row for row in data["rows"] if row["metric"] == "completed_rps"]
    run, trials = slower.run(1, "base"), slower.trials(1, "base")
    kept = [[row for row in records(run, trial) if row["phase"] == "measure"] for trial in trials]
    assert sum(map(len, kept)) == 20
    assert rate["values"][0][0] == pytest.approx(20, rel=0.3)


def test_the_stored_gate_is_judged_the_same_again(slower: Gated) -> None:
    """By `harness compare`."""
    data = json.loads((slower.folder / "comparison.json").read_text())
    again = harness("compare", "gate", "--json", cwd=slower.folder.parent)
    assert again.code == 5, again.err
    assert json.loads(again.out) == data


def test_blocks_that_took_no_turns_are_refused(slower: Gated, tmp_path: Path) -> None:
    """Here one side of a pair was measured alone, after the other."""
    folder = shutil.copytree(slower.folder, tmp_path / "gate")
    run = folder / "pair-04" / "head"
    stored = manifest(run)
    for trial in stored["cells"][0]["trials"]:
        trial["t0_utc"] = f"2099-{trial['t0_utc'][5:]}"
    (run / "manifest.json").write_text(json.dumps(stored))
    ended = harness("compare", "gate", cwd=tmp_path)
    assert (ended.code, "the starts of one side came in a row" in ended.err) == (2, True), ended.err


def test_a_dry_run_tells_the_blocks_and_the_time(tmp_path: Path) -> None:
    """And how long all pairs take; the section of the scenario asks for it, too."""
    section = {"baseline": "base", "alternate": True, "pairs": "4..6"}
    path = two_variants(tmp_path, compare=section, load=[{"kind": "single_user", "duration": "60s", "timeout": "5s"}])
    ended = harness("run", str(path), "--dry-run", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "4 to 6 pairs of starts, both sides up, 12 blocks of 5 s (single_user) in turns (ABBA)" in ended.out
    assert "all pairs       about " in ended.out


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    """A server that streams at known times."""
    with StubServer() as running_server:
        yield running_server


def test_servers_that_run_already_are_two_processes(tmp_path: Path, server: StubServer) -> None:
    """Tokens every 12 ms instead of 4 regress; no pair starts the servers again, and the verdict says so."""
    names = {"base": model_name(10, 4), "head": model_name(10, 12)}
    variants = {name: {"served_model": model} for name, model in names.items()}
    block = {"engine": "http", "url": f"http://127.0.0.1:{server.port}", "dialect": "openai-completions"}
    load = [{"kind": "single_user", "requests": 10, "timeout": "20s"}]
    path = scenario(tmp_path, engines=[{**block, "variants": variants}], load=load)
    gates = ("--fail-on", "tpot p50 +30%")
    refused = harness("run", str(path), *GATE, *gates, cwd=tmp_path)
    assert (refused.code, "model: known-10-4 and known-10-12" in refused.err) == (2, True), refused.err
    gates = (*gates, "--across", "model")
    ended = harness("run", str(path), *GATE, *gates, cwd=tmp_path, timeout_s=240)
    assert ended.code == 5, ended.err + ended.out
    assert "These servers ran already: another start of them may differ." in ended.out


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A gate in real time whose sides have both sent a block."""
    load = [{"kind": "single_user", "requests": 400, "timeout": "5s"}]
    with running("run", str(two_variants(folder, load=load)), *GATE, cwd=folder) as process:
        wait_until(lambda: all(list((folder / "gate").rglob(f"{side}/**/records*")) for side in SIDES), process)
        yield process


def test_ctrl_c_ends_both_sides(tmp_path: Path) -> None:
    """Both runs are kept as interrupted, and no process is left."""
    with at_work(tmp_path) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "the same command with --out gate goes on with its seeds" in err
    assert not [child for child in children if child.is_running()]
    assert [manifest(tmp_path / "gate" / "pair-01" / side)["status"] for side in SIDES] == ["interrupted"] * 2


def test_a_side_that_is_killed_ends_the_other(tmp_path: Path) -> None:
    """Whether it works or waits at that moment: the pair is lost, and the side is named."""
    with at_work(tmp_path) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        (head,) = [child for child in children if "/head/" in " ".join(child.cmdline())]
        head.kill()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert err.splitlines()[-1].startswith("harness: head: "), err
    assert "its process was killed by SIGKILL" in err.splitlines()[-1]
    assert not [child for child in children if child.is_running()]


@pytest.mark.parametrize(
    ("level", "code", "sentence"),
    [
        ("too_large", 2, "--alternate keeps both sides up, and they do not fit: they need at least"),
        ("segfault_at_start", 3, "before its first trial: its process was killed by SIGSEGV"),
    ],
)
def test_a_side_that_does_not_fit_or_start_ends_both(tmp_path: Path, level: str, code: int, sentence: str) -> None:
    """Engines that are too large together are not started; neither leaves a run."""
    block = {"engine": "misbehaving", "quantization": [level], "variants": {"base": {}, "head": {}}}
    path = scenario(tmp_path, engines=[block], load=[{"kind": "single_user", "requests": 20, "timeout": "20s"}])
    ended = harness("run", str(path), *GATE, cwd=tmp_path, env=on_path("misbehaving"))
    assert (ended.code, sentence in ended.err.splitlines()[-1]) == (code, True), ended.err
    assert ended.err.count("pair ") == 1
    runs = [manifest(tmp_path / "gate" / "pair-01" / side) for side in SIDES]
    assert "complete" not in [run["status"] for run in runs]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((*GATE, "--fail-on", "memory_peak_bytes +5%"), "both sides hold memory at the same time"),
        ((*GATE, "--set", "load.0.ramp={from: 1, over: 500ms}"), "load chat: its rate changes by plan"),
        (("--alternate",), "--alternate belongs to a gate: name its baseline with --against"),
        (("--base-set", "load.0.rate=10"), "are not comparable: rate: 10.0 and 20.0"),
        (("--base-set", "load.0.rate=10", "--across", "loads"), "--across loads: did you mean `load`"),
        (("--base-set", "load.0.name=other"), "have no load in common"),
    ],
)
def test_a_gate_that_cannot_be_is_one_sentence_before_anything_runs(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """Nothing is stored."""
    more = () if "--out" in arguments else ("--out", "gate")
    ended = harness("run", str(two_variants(tmp_path)), *arguments, *more, cwd=tmp_path)
    assert (ended.code, sentence in ended.err, len(ended.err.splitlines())) == (2, True, 1), ended.err
    assert not (tmp_path / "gate").exists()


def test_a_difference_on_purpose_is_allowed(tmp_path: Path) -> None:
    """The plan can be made, and the kind is stored with the gate."""
    base = ("--base-set", "load.0.rate=10", "--across", "load", "--dry-run")
    ended = harness("run", str(two_variants(tmp_path)), *base, cwd=tmp_path)
    assert ended.code == 0, ended.err
