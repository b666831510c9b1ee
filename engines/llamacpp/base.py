"""Common parts of the three llama.cpp engines: GGUF file, context, memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic

from engines.base import (
    EngineError,
    EngineInfo,
    EngineSpec,
    LevelUnsupported,
    MemoryEstimate,
    ModelError,
    device_environment,
)
from engines.llamacpp.options import CACHE_BYTES, Options, parse_options
from engines.models import source as models
from engines.models.gguf import file as ggufs
from engines.models.gguf.header import read_header
from engines.models.gguf.quantize import LEVELS
from engines.models.shape import ModelShape, shape_of
from engines.models.types import ModelSource
from engines.options import DEFAULT_CONTEXT_TOKENS
from engines.process.placeholders import command_of
from engines.process.server import EngineServer, ServerCommand, ServerProcess

_MIB = 1 << 20
PROCESSORS = Path("/proc/cpuinfo")
NVIDIA_DRIVER = Path("/proc/driver/nvidia")
RUNTIME_BYTES = {"llama-cpp": 14 * _MIB, "llama-server": 24 * _MIB, "llama-cpp-server": 55 * _MIB}
"""Minimum memory without weights and cache: measured with `tiny` and a batch of 32, rounded down. For `llama-cpp` the
memory that loading adds to the process, for the servers their whole process."""
_BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")
_NARROW = ("q2", "q3", "q4", "q5", "q6")
_PURPOSES = {"model": "weights", "KV": "kv_cache", "RS": "kv_cache", "compute": "runtime", "output": "runtime"}


@dataclass(frozen=True, slots=True)
class GgufModel:
    """Model ready to be loaded.

    Attributes:
        lora: Adapter, a GGUF file.
        model_hash: Hash of the source's weights.
    """

    source: ModelSource
    path: Path
    lora: Path | None = None
    model_hash: str | None = None


def prepared_model(spec: EngineSpec) -> GgufModel:
    """Return the model of a spec at its level, found or made (cached). Raises ModelError and LevelUnsupported."""
    assert spec.model is not None
    source = models.resolve(spec.model)
    path, lora = ggufs.gguf_file(source, spec.level), None
    if (name := spec.model.lora) is not None:
        adapter = Path(name).expanduser()
        if not adapter.exists():
            raise ModelError(f"there is no file {name!r} for the adapter; check the path, it counts from {Path.cwd()}")
        if not adapter.is_file() or adapter.suffix != ".gguf":
            convert = "convert a PEFT folder with llama.cpp's convert_lora_to_gguf.py"
            raise ModelError(f"the adapter {name!r} is not a .gguf file; {convert}")
        lora = adapter.resolve()
    return GgufModel(source, path, lora, models.content_hash(source))  # hashed before start(), which is timed


class GgufEngine(Generic[Options]):
    """Base of the llama.cpp engines: the model's file, its levels, and the devices."""

    adapter_suffix = ".gguf"  # of a LoRA adapter; other engines take folders

    def __init__(self, spec: EngineSpec, kind: type[Options]) -> None:
        if spec.model is None:
            raise EngineError(f"{spec.engine} needs a model; name one, for example model: tiny")
        if spec.level is not None and spec.level not in LEVELS:
            raise LevelUnsupported(f"{spec.engine} has no level {spec.level!r}; known are {', '.join(LEVELS)}")
        self._spec = spec
        self._options = on_devices(parse_options(kind, spec.options, spec.engine), spec.devices)

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        return LEVELS

    @classmethod
    def devices(cls, level: str) -> tuple[str, ...]:
        """Return both for every level. A GPU needs a build of llama.cpp that supports it."""
        return ("cpu", "cuda")

    def prepare(self) -> Sequence[Path]:
        """Find or fetch the model and make its GGUF file at the requested level (cached)."""
        return (self._file.path,) if self._file.lora is None else (self._file.path, self._file.lora)

    def memory_needed(self) -> MemoryEstimate | None:
        """Return a lower bound: the weights' file, the KV cache of all slots, and the engine's minimum.

        Compute buffers are left out, because they depend on batch and build. So is the cache of models with a sliding
        window. None if only some layers go to a GPU, or llama.cpp chooses between GPU and host: its build decides.
        """
        layers, devices = self._options.n_gpu_layers, self._spec.devices
        left_to_choose = layers is None and not devices and NVIDIA_DRIVER.exists()
        if layers not in (None, 0, "all") or left_to_choose:
            return None
        parts = {"weights": ggufs.weight_bytes(self._file.path), "runtime": RUNTIME_BYTES[self._spec.engine]}
        if self._file.lora is not None:
            parts["weights"] += self._file.lora.stat().st_size
        per_token, header = self._kv_bytes_per_token, read_header(self._file.path)
        if per_token is not None and not header.get(f"{header.get('general.architecture')}.attention.sliding_window"):
            parts["kv_cache"] = round(per_token * self._context_tokens * self._options.slots)
        on_gpu = layers == "all" or (layers is None and devices not in ((), ("cpu",)))
        return MemoryEstimate("cuda" if on_gpu else "cpu", parts)

    @cached_property
    def _file(self) -> GgufModel:
        """File of the model. Making it may take minutes."""
        return prepared_model(self._spec)

    @cached_property
    def _shape(self) -> ModelShape | None:
        """Sizes of the model. A large vocabulary takes time to read."""
        return shape_of(self._file.path)

    @property
    def _context_tokens(self) -> int:
        """Context of one request: as configured, else the model's, at most the default limit."""
        if self._options.n_ctx is not None:
            return self._options.n_ctx
        return min(ggufs.context_tokens(self._file.path) or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)

    @property
    def _kv_bytes_per_token(self) -> float | None:
        """Size of one token in the KV cache; None if the architecture is unknown."""
        shape, types = self._shape, (self._options.cache_type_k, self._options.cache_type_v)
        return None if shape is None else shape.kv_bytes_per_token(sum(CACHE_BYTES[one] for one in types) / 2)

    def _info(self, context: int, log: str, **more: Any) -> EngineInfo:
        """Return the facts from file, options and log.

        Raises LevelUnsupported if a GPU is requested, and the build silently loaded everything on the CPU.
        """
        model, device, requested = self._file, logged_device(log), self._spec.devices
        if device == "cpu" and requested not in ((), ("cpu",)) and self._options.n_gpu_layers != 0:
            raise LevelUnsupported(
                f"{self._spec.engine} put no layer on GPU {', '.join(requested)}: this build of llama.cpp supports "
                "none; install one that does, or write devices: cpu"
            )
        shape = self._shape
        found = {
            "name": self._spec.engine,
            "context_tokens": context,
            "options": self._options.in_force(context),
            "device": device,
            "memory": logged_memory(log),
            "slots": self._options.slots,
            "model": model.source.name,
            "model_hash": model.model_hash,
            "level": ggufs.gguf_level(model.path),
            "weight_bytes": ggufs.weight_bytes(model.path),
            "imatrix": _has_imatrix(model),
            "parameters": None if shape is None else shape.parameters,
            "kv_bytes_per_token": self._kv_bytes_per_token,
        }
        return EngineInfo(**{**found, **more})


class GgufServer(GgufEngine[Options]):
    """Base of the llama.cpp engines behind a socket."""

    def __init__(self, spec: EngineSpec, kind: type[Options]) -> None:
        super().__init__(spec, kind)
        self._server = EngineServer(spec.engine, spec.log_path)
        self._environment = {**device_environment(spec.devices), **spec.env}

    def alive(self) -> str | None:
        return self._server.alive()

    async def stop(self) -> None:
        await self._server.stop()

    def _process(
        self, words: Sequence[str], ready_path: str, ready_timeout_s: float, port: int | None = None
    ) -> ServerProcess:
        """Return the server that a command line starts."""
        command = ServerCommand(
            command_of(words),
            env=self._environment,
            ready_path=ready_path,
            ready_timeout_s=ready_timeout_s,
            log_path=self._spec.log_path,
            port=port,
        )
        return ServerProcess(command)


def logged_memory(log: str) -> dict[str, int]:
    """Return bytes by purpose, from the log of loading; {} if the log has none.

    With a mapped file, "weight_copies" are weights that were copied into the processor's own order. They are in the
    file's pages too.
    """
    buffers = _BUFFER.findall(log)
    mapped = any(device.endswith("_Mapped") for device, _, _ in buffers)
    found: dict[str, int] = {}
    for device, kind, mebibytes in buffers:
        purpose = "weight_copies" if mapped and device.endswith("_REPACK") else _PURPOSES[kind]
        found[purpose] = found.get(purpose, 0) + round(float(mebibytes) * _MIB)
    return found


def logged_device(log: str) -> str | None:
    """Return the device of the weights, such as "cpu" or "cuda:0"; the first accelerator of several."""
    devices = [device for device, kind, _ in _BUFFER.findall(log) if kind == "model"]
    accelerators = [one for one in devices if not one.startswith("CPU") and not one.endswith("_Host")]
    if not accelerators:
        return "cpu" if devices else None
    return re.sub(r"(?<=\D)(\d+)$", r":\1", accelerators[0].lower())


def on_devices(options: Options, devices: tuple[str, ...]) -> Options:
    """Return the options for the devices of the spec: ("cpu",) puts no layer on a GPU.

    Raises EngineError if the options contradict.
    """
    if devices != ("cpu",):
        return options
    if options.n_gpu_layers not in (None, 0):
        raise EngineError(f"n_gpu_layers is {options.n_gpu_layers}, but the device is the cpu; leave one of them out")
    return replace(options, n_gpu_layers=0)


def _has_imatrix(model: GgufModel) -> bool | None:
    """Return True if an importance matrix was used in quantizing. Ours are made without.

    None for 8 bits and more, and for a file that does not state its origin.
    """
    if "quantize.imatrix.entries_count" in read_header(model.path):
        return True
    level = ggufs.gguf_level(model.path) or ""
    return False if model.path != model.source.path and level[:2] in _NARROW else None


# llama.cpp's name of an instruction set -> the kernel's flag.
_INSTRUCTIONS = {
    "AVX2": "avx2",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}


def unused_instructions(system_info: str, processors: Path = PROCESSORS) -> tuple[str, ...]:
    """Return the instruction sets, by llama.cpp's names, that the processor has and the build does not report.

    Args:
        system_info: Text of `llama_print_system_info`, "AVX2 = 1 | FMA = 1 | ...". An empty one gives ().
    """
    parts = [part for part in system_info.split("|") if part.strip().endswith("= 1")]
    used = {part.split("=")[0].split(":")[-1].strip() for part in parts}
    try:
        lines = processors.read_text().splitlines()
    except OSError:
        return ()
    listed = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    flags = listed.partition(":")[2].split()
    return tuple(name for name, flag in _INSTRUCTIONS.items() if used and flag in flags and name not in used)
