"""Availability of cells on this machine: devices, interpreters, adapters, libraries, memory."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

import engines
from engines.base import EngineSpec, MemoryEstimate, ModelReference
from engines.huggingface.engine import Transformers
from harness.run import engine
from harness.run.supervisor import ChildCommand
from harness.scenario.model import Scenario
from harness.scenario.reader import as_checked
from harness.schedule import devices
from harness.schedule.cells import Cell, Skip, identity
from harness.schedule.interpreter import MODULES, cannot_run_trials, own_packages
from harness.schedule.matrix import cell_at, expand
from harness.telemetry.cgroup import memory_left_bytes

LOAD = [{"kind": "single_user", "requests": 3}]
GIB = 1 << 30


def planned(block: dict[str, Any], model: Any = "tiny") -> Cell | Skip:
    """The one cell of a scenario with this engine."""
    scenario = Scenario.model_validate({"model": model, "engines": [block], "load": LOAD})
    (found,) = expand(scenario, env={})
    return found


def cell(block: dict[str, Any], model: Any = "tiny") -> Cell:
    """Return the cell, which must be able to run."""
    found = planned(block, model)
    assert isinstance(found, Cell), found
    return found


def reason(block: dict[str, Any], model: Any = "tiny") -> str:
    """Return the reason why a cell cannot run."""
    found = planned(block, model)
    assert isinstance(found, Skip)
    return found.reason


def test_devices_reach_the_engine_and_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number, a list and `cpu` reach the specification and the variables that CUDA reads."""
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    for given, expected, visible in ((0, ("0",), "0"), ([1, 0], ("1", "0"), "1,0"), ("cpu", ("cpu",), "")):
        found = cell({"engine": "simulated", "devices": given})
        assert found.spec.devices == expected
        environment = ChildCommand.of(found, Path(), 60.0).environment
        assert environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
    plain = cell({"engine": "simulated"})
    assert ChildCommand.of(plain, Path(), 60.0).environment == {}
    assert identity(plain, plain.trials[0]) != identity(found, found.trials[0])


def test_a_gpu_that_is_not_here_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is here; the stored scenario can be read again."""
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)
    assert reason({"engine": "simulated", "devices": [0, 1]}) == (
        "`devices` names GPU 1, which is not available: there are 1, counted from 0"
    )
    scenario = Scenario.model_validate({"engines": [{"engine": "simulated", "devices": [0]}], "load": LOAD})
    assert Scenario.model_validate(scenario.resolved()) == scenario


@pytest.mark.parametrize(("given", "words"), [("gpu", "numbers of GPUs"), ([0, 0], "twice"), ([-1], "numbers of GPUs")])
def test_wrong_devices_are_reported(given: Any, words: str) -> None:
    """The message contains the allowed values."""
    with pytest.raises(ValueError, match=words):
        cell({"engine": "simulated", "devices": given})


def test_where_an_engine_may_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU counts if it is here, not hidden from this process, and not ruled out."""
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)
    both, cpu = {"cpu", "cuda"}, {"cpu"}
    assert devices.kinds_here((), {}) == both
    assert devices.kinds_here((), {"CUDA_VISIBLE_DEVICES": ""}) == cpu
    assert devices.kinds_here(("0",), {"CUDA_VISIBLE_DEVICES": ""}) == both
    assert devices.kinds_here(("cpu",), {}) == cpu
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    assert devices.kinds_here((), {}) == cpu


def test_an_adapter_is_a_part_of_the_model() -> None:
    """The adapter is part of reference, name and identity; some engines load none."""
    scenario = Scenario.model_validate(
        {
            "model": ["tiny", {"name": "tiny", "lora": "adapters/chat"}],
            "engines": [{"engine": "llama-server", "quantization": ["q8_0"]}],
            "load": LOAD,
        }
    )
    base, adapted = expand(scenario)
    assert isinstance(base, Cell)
    assert isinstance(adapted, Cell)
    assert adapted.spec.model is not None
    assert adapted.spec.model.lora == "adapters/chat"
    assert (base.model, adapted.model) == ("tiny", "tiny+chat")
    assert adapted.id == "001-tiny-chat-llama-server-q8_0"
    assert identity(base, base.trials[0]) != identity(adapted, adapted.trials[0])
    assert "simulated loads no adapter" in reason({"engine": "simulated"}, {"name": "tiny", "lora": "x"})


def test_an_interpreter_runs_the_cell_of_an_engine_inside_it(tmp_path: Path) -> None:
    """Our own can; one without our libraries is a skip that names them and what to install; one that is none too."""
    found = cell({"engine": "simulated", "python": sys.executable})
    command = ChildCommand.of(found, tmp_path, 60.0)
    assert command.arguments()[:4] == [sys.executable, "-P", "-m", "harness.run.child"]
    first = command.full_environment()["PYTHONPATH"].partition(":")[0]
    assert Path(first) == own_packages()
    assert sorted(path.name for path in Path(first).iterdir()) == ["engines", "harness", "reports"]
    assert cell({"engine": "llama-server", "python": sys.executable}).interpreter is None
    missing = str(tmp_path / "python")
    assert reason({"engine": "simulated", "python": missing}) == (
        f"`python` names {missing}, which cannot be run: No such file or directory"
    )
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -I -S "$@"\n')
    bare.chmod(0o755)
    why = reason({"engine": "simulated", "python": str(bare)})
    assert "pyarrow" in why
    assert why.endswith(f"; run `{bare} -m pip install inference-harness`")


def test_every_library_of_a_cells_process_is_required() -> None:
    """This interpreter has them all."""
    assert cannot_run_trials(sys.executable) is None
    assert "pyarrow" in MODULES


def test_a_library_that_is_not_installed_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter of the engine is checked, and the reason contains the command to install."""
    asked = []

    def lacks(python: str | None, module: str) -> bool:
        asked.append((python, module))
        return False

    monkeypatch.setattr("engines._has_module", lacks)
    why = reason({"engine": "llama-server", "python": sys.executable})
    assert "needs the library xllamacpp, which is not installed in the environment of" in why
    assert why.endswith("pip install xllamacpp")
    assert asked == [(sys.executable, "xllamacpp")]


def test_the_process_of_a_cell_does_not_check_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on another machine needs the environment variables, but no library of the engine."""
    monkeypatch.setattr("engines._has_module", lambda python, module: False)
    scenario = Scenario.model_validate(
        {"engines": [{"engine": "llama-server"}, {"engine": "http", "url": "http://a:1", "api_key_env": "KEY"}],
         "load": LOAD}
    )  # fmt: skip
    assert isinstance(cell_at(scenario, 0, {}), Cell)
    assert isinstance(cell_at(scenario, 1, {}), Skip)
    assert cell_at(scenario, 2, {}) is None


class Needy:
    """An engine that needs some memory."""

    def __init__(self, estimate: MemoryEstimate | None) -> None:
        self.estimate = estimate

    def memory_needed(self) -> MemoryEstimate | None:
        """Return the arguments."""
        return self.estimate


def test_missing_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason lists needed and free memory; unknown memory is no reason to skip."""

    def shortage(estimate: MemoryEstimate | None, free: int | None) -> str | None:
        monkeypatch.setattr(engine, "free_bytes", lambda needed, spec: free)
        return engine.too_little_memory(Needy(estimate), EngineSpec("x"))  # type: ignore[arg-type]

    estimate = MemoryEstimate("cpu", {"weights": 5 * GIB, "kv_cache": GIB, "runtime": GIB // 2})
    assert shortage(estimate, 4 * GIB) == (
        "needs at least 6.5 GiB (weights 5 GiB, KV cache 1 GiB, runtime 512 MiB); 4 GiB is free here"
    )
    assert shortage(estimate, 7 * GIB) is None
    assert shortage(estimate, None) is None
    assert shortage(None, 1) is None
    assert engine.too_little_memory(object(), EngineSpec("x")) is None  # type: ignore[arg-type]
    gpu = MemoryEstimate("cuda", {"weights": 5 * GIB})
    assert (shortage(gpu, GIB) or "").endswith("1 GiB is free on the GPUs")


def test_weights_that_may_go_to_the_host_are_no_need_of_the_gpus() -> None:
    """With `max_memory` transformers puts on the host what the GPUs do not hold; this asks for no library."""
    spec = EngineSpec("transformers", ModelReference("tiny"), None, {"max_memory": {"0": "10GiB", "cpu": "20GiB"}})
    assert Transformers(spec).memory_needed() is None


@pytest.mark.parametrize(
    ("visible", "given", "free"),
    [(None, (), 48), ("1", (), 32), ("GPU-a", (), 16), ("1", ("0",), 16), ("", (), None), ("MIG-1", (), None)],
)
def test_free_memory_is_that_of_the_engines_gpus(
    visible: str | None, given: tuple[str, ...], free: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices are found by number or UUID; None if they are ambiguous."""

    class Free:
        """Two GPUs, with 16 and 32 bytes free."""

        def free_bytes(self, devices: Collection[int] = ()) -> int:
            """Return the readings of some or all GPUs."""
            return sum((16, 32)[number] for number in devices or (0, 1))

    monkeypatch.setattr(engine, "find_gpus", lambda: (Free(), None))
    monkeypatch.setattr(devices, "gpus_here", lambda: (("MI300X", "GPU-aa"), ("MI300X", "GPU-bb")))
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    spec = EngineSpec("x", devices=given, env=env)
    assert engine.free_bytes(MemoryEstimate("cuda", {}), spec) == free


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_bounds_what_is_free(tmp_path: Path, version: int) -> None:
    """The tightest group counts; file cache that can be dropped is not in use."""
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
             2: ("memory.max", "memory.current", "inactive_file")}[version]  # fmt: skip
    own = tmp_path / "own"
    own.write_text("4:memory:/a/b\n" if version == 1 else "0::/a/b\n")
    root = tmp_path / "memory" if version == 1 else tmp_path
    for folder, limit, used in (("a", "1000", "400"), ("a/b", "max" if version == 2 else str(2**63 - 4096), "100")):
        (root / folder).mkdir(parents=True)
        (root / folder / names[0]).write_text(limit)
        (root / folder / names[1]).write_text(used)
        active = names[2].replace("inactive", "active")
        (root / folder / "memory.stat").write_text(f"{names[2]} 150\n{active} 30\nother 7\n")
    assert memory_left_bytes(tmp_path, own) == 1000 - 400 + 150 + 30
    assert memory_left_bytes(tmp_path / "nothing", own) is None


def test_a_process_may_lack_an_engine_of_another_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in of the environment that leads the run need not be in the one that a cell's process runs in."""
    monkeypatch.setitem(engines.BUILT_IN, "only_there", "nowhere:Nothing")
    blocks = [{"engine": "only_there"}, {"engine": "simulated"}]
    there = Scenario.model_validate({"engines": blocks, "load": [{"kind": "single_user", "requests": 1}]}).resolved()
    monkeypatch.delitem(engines.BUILT_IN, "only_there")
    with pytest.raises(ValueError, match="unknown engine `only_there`"):
        Scenario.model_validate(there)
    assert isinstance(cell_at(as_checked(there), 1), Cell)
