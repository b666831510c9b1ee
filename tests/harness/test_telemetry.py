"""Readings are of the processes they claim to be of, and what cannot be read is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterator

import pytest

from harness import gpus, provenance, telemetry
from harness.process_gauges import resident_bytes
from harness.process_tree import tree
from harness.records import Sample
from harness.telemetry import Sampler

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
    assert client <= resident_bytes([os.getpid()]) * 1.2


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


def test_without_a_gpu_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver is a reason, not a reading."""

    def no_driver() -> None:
        raise RuntimeError("no NVIDIA GPU can be read here: no driver")

    monkeypatch.setattr(gpus, "NvidiaGpus", no_driver)
    assert Sampler([].append, client_pid=None).unread == ["no NVIDIA GPU can be read here: no driver"]
    assert telemetry.find_gpus() == (None, "no NVIDIA GPU can be read here: no driver")


class TwoOnOneGpu:
    """A GPU on which the engine computes, and somebody else."""

    def __init__(self, *processes: int) -> None:
        self._processes = set(processes)
        self.unread: list[str] = []

    def samples(self, at_ns: int, engine_pids: Collection[int] = ()) -> Iterator[Sample]:
        """Nothing."""
        yield from ()

    def processes(self) -> set[int]:
        """Both."""
        return self._processes


def test_others_on_the_gpus_are_told(monkeypatch: pytest.MonkeyPatch, holder: subprocess.Popen[str]) -> None:
    """Not the engine itself, and nobody where the engine's processes are not known."""
    gpu = TwoOnOneGpu(holder.pid, os.getpid())
    monkeypatch.setattr(telemetry, "find_gpus", lambda: (gpu, None))
    sampler = Sampler(lambda _: None, client_pid=None)
    sampler.sample()
    assert sampler.take_others_on_gpus() is None
    sampler.watch([holder.pid], None)
    sampler.sample()
    assert sampler.take_others_on_gpus() == 1
    assert sampler.take_others_on_gpus() is None


@pytest.mark.gpu
def test_a_gpu_tells_its_memory() -> None:
    """Where there is a GPU, its memory in use lies between nothing and its total."""
    found, reason = gpus.find_gpus()
    if found is None:
        pytest.skip(f"needs a GPU: {reason}")
    read = {sample.name: sample.value for sample in found.samples(0) if sample.source == "gpu0"}
    assert 0 < read["memory_used_bytes"] < read["memory_total_bytes"]


def test_provenance_has_its_three_parts() -> None:
    """The machine, what is under test, and the circumstances; unknown facts are null."""
    found = provenance.collect()
    assert set(found) == {"must_match", "under_test", "context"}
    assert found["must_match"]["cores"] == os.cpu_count()
    assert found["must_match"]["memory_bytes"] > 0
    assert found["under_test"]["libraries"]["numpy"]
    assert found["context"]["python"] == ".".join(map(str, sys.version_info[:3]))
