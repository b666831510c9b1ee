"""How many threads an engine takes: cores and not their siblings, no more than the control group pays for, less one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engines import cores
from engines.cores import default_threads, one_of_each_core
from engines.huggingface.options import Options
from engines.llamacpp.options import LlamaCppOptions, LlamaServerOptions
from engines.vllm.model import _on_threads


def processors(folder: Path, siblings: Sequence[str]) -> Path:
    """A machine's description of its logical processors: for each, which share its core."""
    for number, shared in enumerate(siblings):
        (folder / f"cpu{number}" / "topology").mkdir(parents=True)
        (folder / f"cpu{number}" / "topology" / "thread_siblings_list").write_text(f"{shared}\n")
    return folder


@pytest.mark.parametrize(
    ("cores_there", "quota", "threads"),
    [
        (64, 4.0, 3),  # `--cpus 4` on a machine with 64 cores
        (64, None, 63),
        (64, 1.5, 1),
        (64, 0.5, 1),
        (16, 2.9, 1),
        (2, 8.0, 1),
        (1, None, 1),
    ],
)
def test_one_core_is_left_to_the_client(
    monkeypatch: pytest.MonkeyPatch, cores_there: int, quota: float | None, threads: int
) -> None:
    """Existing cores within the quota count, minus one; at least one thread remains."""
    monkeypatch.setattr(cores, "one_of_each_core", lambda: list(range(cores_there)))
    monkeypatch.setattr(cores, "cpu_quota_cores", lambda: quota)
    assert default_threads() == threads


@pytest.mark.parametrize(
    ("siblings", "allowed", "chosen"),
    [
        (["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"], range(8), [0, 1, 2, 3]),
        (["0-1", "0-1", "2-3", "2-3"], range(4), [0, 2]),
        (["0-1", "0-1", "2-3", "2-3"], (1, 2, 3), [1, 2]),  # half a core is a core where the rest is not ours
        (["0", "1"], (1,), [1]),
        ([], range(3), [0, 1, 2]),  # a machine that does not tell
    ],
)
def test_the_logical_processors_of_a_core_count_once(
    tmp_path: Path, siblings: list[str], allowed: Sequence[int], chosen: list[int]
) -> None:
    """The first of each, of those that we may run on."""
    assert one_of_each_core(allowed, processors(tmp_path, siblings)) == chosen


def test_every_engine_takes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a table compares threads; what the scenario says holds."""
    monkeypatch.setattr(cores, "one_of_each_core", lambda: list(range(64)))
    monkeypatch.setattr(cores, "cpu_quota_cores", lambda: 4.0)
    assert default_threads() == 3
    assert {one().threads for one in (Options, LlamaCppOptions, LlamaServerOptions)} == {3}
    assert Options(n_threads=7).threads == 7


@pytest.mark.parametrize(
    ("threads", "quota", "told"),
    [
        (3, None, {"VLLM_CPU_OMP_THREADS_BIND": "0,2,4"}),
        (4, 8.0, {"VLLM_CPU_OMP_THREADS_BIND": "0,2,4,6"}),
        (2, 3.0, {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "2"}),
        (6, None, {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "6"}),
    ],
)
def test_vllm_gets_number_and_place_of_threads(threads: int, quota: float | None, told: dict[str, str]) -> None:
    """Bound to cores of its own as it does by itself, but not where others of the machine would be bound to the same,
    nor several threads to one core.
    """
    assert _on_threads(threads, [0, 2, 4, 6], quota) == told
