"""Common parts of the three llama.cpp engines: GGUF file, context, memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from engines.base import EngineError, EngineInfo, EngineSpec, LevelUnsupported, MemoryEstimate, ModelError
from engines.llamacpp.options import CACHE_BYTES, LlamaOptions, Options, parse_options
from engines.models import source as models
from engines.models.gguf import file as ggufs
from engines.models.gguf.header import read_header
from engines.models.gguf.quantize import LEVELS
from engines.models.shape import shape_of
from engines.models.types import ModelSource
from engines.options import DEFAULT_CONTEXT_TOKENS

_MIB = 1 << 20
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

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that loading reads."""
        return (self.path,) if self.lora is None else (self.path, self.lora)


def prepared_model(spec: EngineSpec) -> GgufModel:
    """Return the model of a spec at its level, found or made (cached). Raises ModelError and LevelUnsupported."""
    assert spec.model is not None
    source = models.resolve(spec.model)
    path, lora = ggufs.gguf_file(source, spec.level), _adapter(spec.model.lora)
    return GgufModel(source, path, lora, models.content_hash(source))  # hashed before start(), which is timed


def require_model(spec: EngineSpec) -> None:
    """Raise EngineError if the spec names no model, LevelUnsupported for a level that GGUF lacks."""
    if spec.model is None:
        raise EngineError(f"{spec.engine} needs a model; name one, for example model: tiny")
    if spec.level is not None and spec.level not in LEVELS:
        raise LevelUnsupported(f"{spec.engine} has no level {spec.level!r}; known are {', '.join(LEVELS)}")


def context_tokens(options: LlamaOptions, model: GgufModel) -> int:
    """Return the context of one request: as configured, else the model's, at most the default limit."""
    if options.n_ctx is not None:
        return options.n_ctx
    return min(ggufs.context_tokens(model.path) or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)


def kv_bytes_per_token(options: LlamaOptions, model: GgufModel) -> float | None:
    """Return the size of one token in the KV cache; None if the architecture is unknown."""
    shape = shape_of(model.path)
    if shape is None:
        return None
    return shape.kv_bytes_per_token((CACHE_BYTES[options.cache_type_k] + CACHE_BYTES[options.cache_type_v]) / 2)


class GgufEngine(Generic[Options]):
    """Base of the llama.cpp engines: the model's file, its levels, and the devices."""

    def __init__(self, spec: EngineSpec, kind: type[Options]) -> None:
        require_model(spec)
        self._spec = spec
        self._options = on_devices(parse_options(kind, spec.options, spec.engine), spec.devices)
        self._found: GgufModel | None = None

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        return LEVELS

    @classmethod
    def devices(cls, level: str) -> tuple[str, ...]:
        """Return both for every level. A GPU needs a build of llama.cpp that supports it."""
        return ("cpu", "cuda")

    def prepare(self) -> Sequence[Path]:
        """Find or fetch the model and make its GGUF file at the requested level (cached)."""
        return self._file.files

    def memory_needed(self) -> MemoryEstimate | None:
        """Return a lower bound: weights, the KV cache of all slots, and the process' minimum."""
        return memory_estimate(self._spec, self._options, self._file)

    @property
    def _file(self) -> GgufModel:
        """File of the model. Making it may take minutes."""
        if self._found is None:
            self._found = prepared_model(self._spec)
        return self._found

    def _info(self, context: int, log: str, **more: Any) -> EngineInfo:
        """Return the facts from file, options and log. Raises LevelUnsupported as `require_device`."""
        require_device(self._spec, self._options, logged_device(log))
        found = {
            "name": self._spec.engine,
            "context_tokens": context,
            "options": self._options.in_force(context),
            "device": logged_device(log),
            "memory": logged_memory(log),
            "slots": self._options.slots,
            **known_facts(self._options, self._file),
        }
        return EngineInfo(**{**found, **more})


def memory_estimate(spec: EngineSpec, options: LlamaOptions, model: GgufModel) -> MemoryEstimate | None:
    """Return a lower bound: the weights' file, the KV cache of all slots, and the engine's minimum.

    Compute buffers are left out, because they depend on batch and build. So is the cache of models with a sliding
    window. None if only some layers go to a GPU, or llama.cpp chooses between GPU and host: its build decides.
    """
    layers = options.n_gpu_layers
    left_to_choose = layers is None and not spec.devices and NVIDIA_DRIVER.exists()
    if layers not in (None, 0, "all") or left_to_choose:
        return None
    parts = {"weights": ggufs.weight_bytes(model.path), "runtime": RUNTIME_BYTES[spec.engine]}
    if model.lora is not None:
        parts["weights"] += model.lora.stat().st_size
    per_token = kv_bytes_per_token(options, model)
    if per_token is not None and not _has_window(model.path):
        parts["kv_cache"] = round(per_token * context_tokens(options, model) * options.slots)
    on_gpu = layers == "all" or (layers is None and spec.devices not in ((), ("cpu",)))
    return MemoryEstimate("cuda" if on_gpu else "cpu", parts)


def known_facts(options: LlamaOptions, model: GgufModel) -> dict[str, Any]:
    """Return the fields of EngineInfo from the file and the options."""
    shape = shape_of(model.path)
    return {
        "model": model.source.name,
        "model_hash": model.model_hash,
        "level": ggufs.gguf_level(model.path),
        "weight_bytes": ggufs.weight_bytes(model.path),
        "imatrix": _has_imatrix(model),
        "parameters": None if shape is None else shape.parameters,
        "kv_bytes_per_token": kv_bytes_per_token(options, model),
    }


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
    if not devices:
        return None
    if not accelerators:
        return "cpu"
    name = accelerators[0].lower()
    return re.sub(r"(?<=\D)(\d+)$", r":\1", name)


def on_devices(options: Options, devices: tuple[str, ...]) -> Options:
    """Return the options for the devices of the spec: ("cpu",) puts no layer on a GPU.

    Raises EngineError if the options contradict.
    """
    if devices != ("cpu",):
        return options
    if options.n_gpu_layers not in (None, 0):
        raise EngineError(f"n_gpu_layers is {options.n_gpu_layers}, but the device is the cpu; leave one of them out")
    return replace(options, n_gpu_layers=0)


def require_device(spec: EngineSpec, options: LlamaOptions, device: str | None) -> None:
    """Raise LevelUnsupported if a GPU is requested, and the build silently loaded everything on the CPU."""
    if device != "cpu" or spec.devices in ((), ("cpu",)) or options.n_gpu_layers == 0:
        return
    raise LevelUnsupported(
        f"{spec.engine} put no layer on GPU {', '.join(spec.devices)}: this build of llama.cpp supports none; install "
        "one that does, or write devices: cpu"
    )


def _has_imatrix(model: GgufModel) -> bool | None:
    """Return True if an importance matrix was used in quantizing. Ours are made without.

    None for 8 bits and more, and for a file that does not state its origin.
    """
    if "quantize.imatrix.entries_count" in read_header(model.path):
        return True
    level = ggufs.gguf_level(model.path) or ""
    return False if model.path != model.source.path and level[:2] in _NARROW else None


def _has_window(path: Path) -> bool:
    header = read_header(path)
    return bool(header.get(f"{header.get('general.architecture')}.attention.sliding_window"))


def _adapter(name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name).expanduser()
    if not path.exists():
        raise ModelError(f"there is no file {name!r} for the adapter; check the path, it counts from {Path.cwd()}")
    if not path.is_file() or path.suffix != ".gguf":
        raise ModelError(
            f"the adapter {name!r} is not a .gguf file; convert a PEFT folder with llama.cpp's convert_lora_to_gguf.py"
        )
    return path.resolve()
