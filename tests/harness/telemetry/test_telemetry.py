"""Readings are of the processes they claim to be of, and what cannot be read is said."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.base import EngineSpec
from harness.errors import StorageFailed
from harness.records import Sample
from harness.run import run
from harness.run.events import Events
from harness.run.supervisor import StopRequest
from harness.scenario.model import Scenario
from harness.schedule import devices
from harness.schedule.cells import Cell
from harness.store.manifest import CellEntry, Manifest
from harness.store.run import RunWriter
from harness.telemetry import gpus, provenance
from harness.telemetry import sampler as telemetry
from harness.telemetry.processes import numbers_are_the_machines, resident_bytes, tree
from harness.telemetry.sampler import Sampler
from tests.fabricated import NO_PAGES

MIB = 1 << 20
HOLDER = (
    "import sys\nblock = bytearray({size}); block[::4096] = b'1' * len(range(0, {size}, 4096))\n"
    "print('held', flush=True)\nsys.stdin.readline()"
)


def holding(mib: int) -> subprocess.Popen[str]:
    """A process that holds this much memory until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(size=mib * MIB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process that holds 100 MiB."""
    process = holding(100)
    yield process
    process.communicate("\n")


def values(samples: list[Sample], source: str, name: str) -> list[float]:
    """The values of one gauge."""
    return [sample.value for sample in samples if (sample.source, sample.name) == (source, name)]


def test_the_engines_memory_is_the_engines(holder: subprocess.Popen[str]) -> None:
    """A process that holds 100 MiB reads at least that; the client's reading is its own."""
    taken: list[Sample] = []
    sampler = Sampler(taken.append, client_pid=None)
    sampler.watch([holder.pid], os.getpid())
    sampler.sample()
    (engine,) = values(taken, "engine", "rss_bytes")
    assert 100 * MIB < engine < 200 * MIB
    assert len(values(taken, "client", "rss_bytes")) == 1
    assert {sample.scope for sample in taken if sample.source == "client"} == {"client"}
    (share,) = values(taken, "host", "memory_used_share")
    assert 0 < share < 1


def test_descendants_count_for_the_engine(holder: subprocess.Popen[str]) -> None:
    """Our own tree holds the child; a process is in one tree only."""
    assert {os.getpid(), holder.pid} <= tree([os.getpid()])
    taken: list[Sample] = []
    sampler = Sampler(taken.append, client_pid=None)
    sampler.watch([holder.pid], os.getpid())
    sampler.sample()
    (client,) = values(taken, "client", "rss_bytes")
    assert client <= resident_bytes(tree([os.getpid()]) - tree([holder.pid])) * 1.2


def test_a_process_that_ends_is_no_error(holder: subprocess.Popen[str]) -> None:
    """Readings go on without it, and it is absent, not zero."""
    taken: list[Sample] = []
    sampler = Sampler(taken.append, client_pid=None)
    other = holding(1)
    sampler.watch([other.pid], None)
    sampler.sample()
    other.communicate("\n")
    sampler.watch([other.pid], None)
    taken.clear()
    sampler.sample()
    assert values(taken, "engine", "rss_bytes") == []
    assert {sample.source for sample in taken} <= {"host", "cgroup", "client"}


def test_readings_of_another_machine_are_labelled_client() -> None:
    """With a server elsewhere nothing here is the server's."""
    taken: list[Sample] = []
    Sampler(taken.append, client_pid=None, scope="client").sample()
    assert {sample.scope for sample in taken} == {"client"}


def test_without_a_gpu_the_reason_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver is a reason, not a reading."""

    def no_driver(devices: object) -> None:
        raise RuntimeError("no NVIDIA GPU can be read here: no driver")

    monkeypatch.setattr(gpus, "NvidiaGpus", no_driver)
    assert Sampler([].append, client_pid=None).unread == ["no NVIDIA GPU can be read here: no driver"]
    assert gpus.find_gpus() == (None, "no NVIDIA GPU can be read here: no driver")


class TwoOnOneGpu:
    """A GPU on which the engine computes, and somebody else."""

    def __init__(self, *processes: int) -> None:
        self._processes = set(processes)
        self.unread: list[str] = []

    def samples(self, engine_pids: Collection[int] = ()) -> Iterator[Sample]:
        """Nothing."""
        yield from ()

    def processes(self, engine_pids: Collection[int] = ()) -> set[int]:
        """Both."""
        return self._processes


def test_foreign_processes_on_the_gpus_are_counted(
    monkeypatch: pytest.MonkeyPatch, holder: subprocess.Popen[str]
) -> None:
    """Not the engine itself, and nobody where the engine's processes are not known."""
    gpu = TwoOnOneGpu(holder.pid, os.getpid())
    monkeypatch.setattr(telemetry, "find_gpus", lambda _: (gpu, None))
    sampler = Sampler(lambda _: None, client_pid=None)
    sampler.sample()
    assert sampler.take_others_on_gpus() is None
    sampler.watch([holder.pid], None)
    sampler.sample()
    assert sampler.take_others_on_gpus() == 1
    assert sampler.take_others_on_gpus() is None


def test_an_engine_that_waits_for_its_turn_is_no_stranger(
    monkeypatch: pytest.MonkeyPatch, holder: subprocess.Popen[str]
) -> None:
    """It holds memory of the GPU and computes nothing; its number may come while readings are taken."""
    gpu, beside = TwoOnOneGpu(holder.pid, os.getpid()), list[int]()
    monkeypatch.setattr(telemetry, "find_gpus", lambda _: (gpu, None))
    sampler = Sampler(lambda _: None, client_pid=None, beside=beside)
    beside.append(os.getpid())
    sampler.watch([holder.pid], None)
    sampler.sample()
    assert sampler.take_others_on_gpus() == 0


def test_the_engines_own_processes_are_no_strangers_in_a_container(
    monkeypatch: pytest.MonkeyPatch, holder: subprocess.Popen[str]
) -> None:
    """The driver may tell the numbers that they have outside of it, and by chance one of them is here: nobody is
    accused, and that nothing is known is said once. Where it tells our numbers, others are counted.
    """
    monkeypatch.setattr(telemetry, "numbers_are_the_machines", lambda: False)
    for on_gpu, others, said in (({os.getppid(), 10**7}, None, True), ({holder.pid, os.getpid()}, 1, False)):
        gpu = TwoOnOneGpu(*on_gpu)
        monkeypatch.setattr(telemetry, "find_gpus", lambda _, gpu=gpu: (gpu, None))
        sampler = Sampler(lambda _: None, client_pid=None)
        for pids in ([holder.pid], [holder.pid]):
            sampler.watch(pids, None)
            sampler.sample()
        assert sampler.take_others_on_gpus() == others
        assert sampler.unread.count(telemetry.NOT_IDENTIFIED) == said
        sampler.close()


@pytest.mark.parametrize(("link", "own"), [("pid:[4026531836]", True), ("pid:[4026533333]", False), (None, True)])
def test_a_container_with_numbers_of_its_own_is_known(tmp_path: Path, link: str | None, own: bool) -> None:
    """The namespace of the process decides; systems without namespaces have no containers."""
    folder = tmp_path / "self" / "ns"
    folder.mkdir(parents=True)
    if link is not None:
        (folder / "pid").symlink_to(link)
    assert numbers_are_the_machines(tmp_path) is own


ONE_USER = {"kind": "single_user", "requests": 1}


class ScriptedGpus:
    """Two GPUs, the second of which is lost on the way."""

    def __init__(self, engines: str | None = None) -> None:
        self.unread: list[str] = []
        self.asked_for: list[set[int]] = []
        self._engines = engines

    def samples(self, engine_pids: Collection[int] = ()) -> Iterator[Sample]:
        """Memory of both, then of one."""
        self.asked_for.append(set(engine_pids))
        for number in (0, 1) if len(self.asked_for) == 1 else (0,):
            yield Sample(time.monotonic_ns(), f"gpu{number}", "memory_used_bytes", 10.0, "server", 3)
            yield Sample(time.monotonic_ns(), f"gpu{number}", "memory_total_bytes", 40.0, "server", 3)
        if self._engines is not None:
            yield Sample(time.monotonic_ns(), self._engines, "engine_memory_bytes", 7.0, "server", 3)
        if len(self.asked_for) > 1 and not self.unread:
            self.unread.append("gpu1 was lost")

    def processes(self, engine_pids: Collection[int] = ()) -> set[int]:
        """None."""
        return set()


def test_a_glance_shows_the_last_reading(monkeypatch: pytest.MonkeyPatch, holder: subprocess.Popen[str]) -> None:
    """The engine's memory, and that of all GPUs together; a GPU that is lost is said to be, once."""
    gpus_here = ScriptedGpus()
    monkeypatch.setattr(telemetry, "find_gpus", lambda _: (gpus_here, None))
    taken: list[Sample] = []
    sampler = Sampler(taken.append, client_pid=None)
    assert sampler.glance() == {}
    sampler.watch([holder.pid], None)
    sampler.sample()
    glance = sampler.glance()
    assert glance["rss_bytes"] == values(taken, "engine", "rss_bytes")[-1]
    assert (glance["gpu_memory_bytes"], glance["gpu_memory_total_bytes"]) == (20.0, 80.0)
    assert gpus_here.asked_for == [{holder.pid}]
    assert {(sample.scope, sample.width_ns) for sample in taken if sample.source == "gpu0"} == {("server", 3)}
    for _ in range(3):
        sampler.sample()
    sampler.close()
    assert sampler.glance()["gpu_memory_bytes"] == 10.0
    assert sampler.unread.count("gpu1 was lost") == 1
    elsewhere = Sampler(taken.append, client_pid=None, scope="client")
    elsewhere.sample()
    assert {sample.scope for sample in taken if sample.source == "gpu0"} == {"server", "client"}
    assert elsewhere.glance() == {}
    elsewhere.close()


def test_a_glance_is_at_the_engines_gpus(monkeypatch: pytest.MonkeyPatch, holder: subprocess.Popen[str]) -> None:
    """The driver lists them."""
    monkeypatch.setattr(telemetry, "find_gpus", lambda _: (ScriptedGpus("gpu1"), None))
    sampler = Sampler([].append, client_pid=None)
    sampler.watch([holder.pid], None)
    sampler.sample()
    assert (sampler.glance()["gpu_memory_bytes"], sampler.glance()["gpu_memory_total_bytes"]) == (10.0, 40.0)
    sampler.close()


def test_no_gpu_is_read_if_the_engine_has_none() -> None:
    """And that is said."""
    sampler = Sampler([].append, client_pid=None, gpus=())
    assert sampler.unread == ["no GPU was read: the engine is given none"]
    sampler.close()


@pytest.mark.parametrize(
    ("devices", "given", "read"),
    [(None, None, None), ("cpu", None, ()), ([1, 2], None, (1, 2)), ([1, 2], [0], (0,)), (None, [], ())],
)
def test_the_gpus_read_are_the_given_ones_or_the_engine_s(
    devices: Any, given: list[int] | None, read: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scenario's `telemetry.gpus` before the engine's `devices`; all without either."""
    asked: list[Any] = []
    monkeypatch.setattr(run, "Sampler", lambda *_, **options: asked.append(options["gpus"]))
    engine = {"engine": "simulated"} | ({} if devices is None else {"devices": devices})
    scenario = Scenario.model_validate(
        {"engines": [engine], "load": [{"kind": "single_user", "requests": 1}]}
        | ({} if given is None else {"telemetry": {"gpus": given}})
    )
    spec = EngineSpec("simulated", devices=scenario.engines[0].devices)
    cell = Cell(0, "c", None, "simulated", None, None, 1, spec, ())
    run.reading_for(scenario, cell, lambda _: None)
    assert asked == [read]


@pytest.mark.parametrize(
    ("visible", "read"),
    [(None, None), ("1", (1,)), ("GPU-b", (1,)), ("1,0", (1, 0)), ("0,-1,1", (0,)), ("", ()), ("-1", ()), ("7", ())],
)
def test_the_gpus_that_an_engine_inherits_are_its(
    visible: str | None, read: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers and identifiers are read like CUDA does; those of a running server are unknown."""
    monkeypatch.setattr(devices, "gpus_here", lambda: (("H200", "GPU-aa"), ("H200", "GPU-bb")))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    asked: list[Any] = []
    monkeypatch.setattr(run, "Sampler", lambda *_, **options: asked.append(options["gpus"]))
    scenario = Scenario.model_validate({"engines": [{"engine": "simulated"}], "load": [ONE_USER]})
    for options in ({}, {"url": "http://127.0.0.1:9"}):
        run.reading_for(scenario, Cell(0, "c", None, "x", None, None, 1, EngineSpec("x", options=options), ()), print)
    assert asked == [read, None]


@pytest.mark.parametrize(
    ("visible", "names", "why"),
    [
        ("MIG-12", ("H200", "H200"), "MIG-12, which is not one GPU"),
        ("GPU-", ("H200", "H200"), "GPU-, which"),
        ("1", ("H200", "T4"), "several kinds"),
    ],
)
def test_unknown_gpus_are_all_read_and_reported(
    visible: str, names: tuple[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, with what to do."""
    monkeypatch.setattr(devices, "gpus_here", lambda: ((names[0], "GPU-aa"), (names[1], "GPU-bb")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    scenario = Scenario.model_validate({"engines": [{"engine": "simulated"}], "load": [ONE_USER]})
    sampler = run.reading_for(scenario, Cell(0, "c", None, "x", None, None, 1, EngineSpec("x"), ()), print)
    assert [why in said for said in sampler.unread].count(True) == 1
    sampler.close()


def test_what_moves_slowly_is_read_rarely(holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readings within a second both have the engine's memory, one the machine's; times are ordered."""
    clock = itertools.count(10**10, 10**6)  # a millisecond at each look, however long the machine takes
    monkeypatch.setattr(
        telemetry, "time", SimpleNamespace(monotonic_ns=clock.__next__, thread_time_ns=time.thread_time_ns)
    )
    taken: list[Sample] = []
    sampler = Sampler(taken.append, client_pid=None)
    sampler.watch([holder.pid], os.getpid())
    before_ns = next(clock)
    sampler.sample()
    sampler.sample()
    assert len(values(taken, "engine", "rss_bytes")) == 2
    for name in ("memory_used_share", "swap_in_bytes"):
        assert len(values(taken, "host", name)) == 1
    assert len(values(taken, "engine", "pss_bytes")) == 1
    assert len(values(taken, "engine", "cpu_share")) == 1  # there is none before the second reading
    assert all(before_ns <= sample.at_ns - sample.width_ns / 2 for sample in taken)
    after_ns = next(clock)
    assert after_ns < before_ns + 10**9
    assert all(sample.at_ns + sample.width_ns / 2 <= after_ns for sample in taken)
    sampler.close()


@pytest.mark.slow
def test_readings_go_on_while_the_parent_is_busy(holder: subprocess.Popen[str]) -> None:
    """A thread takes the readings, so a blocked loop (closing a long trial's files) leaves no gap."""
    enough = threading.Event()
    taken: list[Sample] = []

    def sink(sample: Sample) -> None:
        taken.append(sample)
        if len(values(taken, "engine", "rss_bytes")) > 10 and values(taken, "sampler", "late_ms"):
            enough.set()

    sampler = Sampler(sink, client_pid=None)
    sampler.watch([holder.pid], None)
    entry = CellEntry()

    async def main() -> None:
        with run.sampling(sampler, 0.02, entry):
            assert enough.wait(120)  # the loop stands still for as long

    asyncio.run(main())
    told = entry.sampler
    assert told is not None
    assert (told.interval_s, told.scope) == (0.02, "server")
    assert told.ticks == len(values(taken, "engine", "rss_bytes"))
    assert 0 < (told.cpu_share or 0.0) < 1
    assert entry.unread == sampler.unread
    (share,) = values(taken, "sampler", "cpu_share")[:1]
    assert 0 < share < 1
    assert {sample.scope for sample in taken if sample.source == "sampler"} == {"client"}


def test_a_reading_that_cannot_be_stored_is_not_lost_in_the_thread() -> None:
    """The run hears of it."""

    def full(_: Sample) -> None:
        raise StorageFailed("no space left")

    with pytest.raises(StorageFailed), run.sampling(Sampler(full, client_pid=None), 0.001, CellEntry()):
        pass


def test_a_reading_that_breaks_ends_the_readings_and_not_the_run() -> None:
    """The measurements continue, and the end of the readings is reported."""

    def broken(_: Sample) -> None:
        raise ValueError("not a number")

    entry = CellEntry()
    with run.sampling(Sampler(broken, client_pid=None), 0.001, entry):
        pass
    assert entry.unread[-1] == "readings ended after 1 ticks: ValueError: not a number"


def test_several_threads_share_a_sink_one_at_a_time() -> None:
    """The sink need not be thread-safe."""
    inside: list[int] = []
    most = []

    def sink(_: Sample) -> None:
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    keep = telemetry.one_at_a_time(sink)
    threads = [threading.Thread(target=lambda: [keep(Sample(0, "x", "y", 0.0)) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (800, 1)


def events_of(run: Path, sampler: Sampler, tell: Callable[[dict[str, Any]], None] = lambda _: None) -> Events:
    """Return the events of a cell without pages; `tell` receives each of them."""
    return Events(
        RunWriter(run, Manifest()), CellEntry(), (sampler, NO_PAGES), StopRequest(), lambda _, event: tell(event)
    )


def test_progress_includes_the_last_readings_of_the_machine(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Other events are passed on as they came."""
    sampler = Sampler(lambda _: None, client_pid=None)
    sampler.watch([holder.pid], None)
    sampler.sample()
    told: list[dict[str, Any]] = []
    events = events_of(tmp_path / "run", sampler, told.append)
    events.receive({"event": "progress", "trial": 0, "done": 3})
    events.receive({"event": "prepared"})
    sampler.close()
    assert told == [
        {"event": "progress", "trial": 0, "done": 3, "machine": sampler.glance()},
        {"event": "prepared"},
    ]
    assert told[0]["machine"]["rss_bytes"] > 100 * MIB


def test_an_engine_is_read_from_the_moment_it_starts(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the cell's process says so, all that it has below it is the engine, also what comes a fifth of a second
    later; from then on, when the engine has told its processes, they are.
    """
    now_ns = [10**10]
    monkeypatch.setattr(
        telemetry, "time", SimpleNamespace(monotonic_ns=lambda: now_ns[0], thread_time_ns=time.thread_time_ns)
    )
    taken: list[Sample] = []
    sampler = Sampler(taken.append, client_pid=None, gpus=())
    events = events_of(tmp_path / "run", sampler)

    def engine_bytes(after_s: float) -> float:
        now_ns[0] += round(after_s * 1e9)
        taken.clear()
        sampler.sample()
        return sum(values(taken, "engine", "rss_bytes"))

    events.child_is(os.getpid())
    others = resident_bytes(tree([os.getpid()]) - tree([holder.pid]) - {os.getpid()})  # that earlier tests have left
    assert engine_bytes(0.1) == 0
    events.receive({"event": "starting", "in_process": False})
    first = engine_bytes(0.1)
    assert 100 * MIB < first - others < 200 * MIB
    other = holding(50)
    assert engine_bytes(telemetry.START_TREES_S) > first + 50 * MIB
    described = {"pids": [other.pid]}
    events.receive({"event": "started", "engine": described, "start": {}})
    assert 50 * MIB < engine_bytes(0.1) < 100 * MIB
    other.communicate("\n")
    sampler.close()


@pytest.mark.gpu
def test_a_gpu_reports_its_memory() -> None:
    """A GPU's used memory lies between 0 and its total."""
    found, reason = gpus.find_gpus()
    if found is None:
        pytest.skip(f"needs a GPU: {reason}")
    read = {sample.name: sample.value for sample in found.samples() if sample.source == "gpu0"}
    assert 0 < read["memory_used_bytes"] < read["memory_total_bytes"]


def test_provenance_has_its_three_parts() -> None:
    """The machine, what is under test, and the circumstances; unknown facts are null."""
    found = provenance.collect()
    assert set(found) == {"must_match", "under_test", "context"}
    assert found["must_match"]["cores"] == os.cpu_count()
    assert found["must_match"]["memory_bytes"] > 0
    assert found["under_test"]["libraries"]["numpy"]
    assert found["context"]["python"] == ".".join(map(str, sys.version_info[:3]))
