"""Loading a model with transformers: device, level, adapter and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

from engines.base import EngineError, EngineSpec, LevelUnsupported, ModelError, StartFailed, device_environment
from engines.huggingface.levels import (
    PLAIN,
    TORCHAO,
    checkpoint_level,
    level_to_load,
    loaded_level,
    loading_arguments,
    places,
    require_libraries,
    torchao_recipe,
)
from engines.huggingface.options import Options
from engines.secrets import masked

_PROBE_WIDTH = 256
_ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Model in memory."""

    model: Any
    level: str  # actual level of the weights
    device: str
    weight_bytes: int | None  # None if some are moved in and out


def choose_device(options: Options, devices: Sequence[str]) -> str:
    """Return the torch device to load to, of `EngineSpec.devices`. Raises EngineError if torch cannot use the GPU."""
    import torch

    if devices == ("cpu",):
        if options.device.startswith("cuda"):
            raise EngineError(f"device: {options.device} contradicts devices: cpu; leave one of them out")
        return "cpu"
    wanted = options.device
    if devices:
        # Numbered as by the driver. The environment of this process takes precedence.
        os.environ.update({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **device_environment(tuple(devices)), **os.environ})
        wanted = "cuda" if wanted == "auto" else wanted
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return wanted
    number = int(wanted.partition(":")[2] or 0)
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        raise EngineError(f"torch {torch.__version__} finds no GPU for device {wanted}; write device: cpu")
    return f"cuda:{number}"


def load(folder: Path, name: str, spec: EngineSpec, options: Options, adapter: Path | None) -> Loaded:
    """Load the model at the requested level.

    Raises LevelUnsupported if the level is unavailable here, StartFailed if loading fails otherwise.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    wanted = level_to_load(spec.level, folder, name)
    device = choose_device(options, spec.devices)
    if wanted is not None and device.split(":")[0] not in places(wanted):
        raise LevelUnsupported(f"{wanted} runs only on {', '.join(places(wanted))}, and the device here is {device}")
    require_libraries(checkpoint_level(folder))
    if options.attention == "flash_attention_2":
        _require_flash_attention(device)
    logging.disable_progress_bar()
    spread = options.max_memory is not None or (len(spec.devices) > 1 and device != "cpu")
    arguments: dict[str, Any] = {"local_files_only": True, "device_map": "auto" if spread else device}
    if options.attention is not None:
        arguments["attn_implementation"] = options.attention
    if options.max_memory is not None:
        arguments["max_memory"] = {int(key) if key.isdigit() else key: v for key, v in options.max_memory.items()}
    made = _try_level(wanted, device, folder)
    if wanted == "int8":  # else it logs each cast of each layer
        getLogger("bitsandbytes.autograd._functions").setLevel(ERROR)
    requested = spec.level or wanted
    failure = (StartFailed, f"transformers cannot load {name}")
    refusal = (LevelUnsupported, f"{name} cannot be loaded at {requested} here")
    with _refused(*failure if requested is None or requested in PLAIN else refusal):
        model = AutoModelForCausalLM.from_pretrained(folder, **arguments, **made)
    model.eval()
    if "disk" in (getattr(model, "hf_device_map", None) or {}).values():
        raise StartFailed(f"max_memory leaves layers of {name} without room on any device; raise it")
    level = loaded_level(model, wanted, folder)
    if adapter is not None:
        put_on(model, adapter)
    if level not in PLAIN:
        _try_one_token(model, level)
    return Loaded(model, level, str(model.device), weight_bytes(model))


def put_on(model: Any, adapter: Path) -> None:
    """Put a LoRA adapter on a model. Raises StartFailed if it does not fit."""
    with _refused(StartFailed, f"the adapter {adapter.name} does not fit the model"):
        model.load_adapter(str(adapter))
    model.eval()  # new layers are in training, and some versions leave their dropout on


def adapter_folder(reference: str) -> Path:
    """Return the folder of a LoRA adapter, fetched if it is a hub id. Raises ModelError if it is unavailable."""
    path = Path(reference).expanduser()
    if path.is_file():
        raise ModelError(f"the adapter {reference!r} is a file; transformers takes a folder with adapter_config.json")
    if not path.is_dir():
        if reference.count("/") != 1 or reference.startswith((".", "~")):
            raise ModelError(f"there is no adapter {reference!r}; name a folder in PEFT's layout or a hub id: org/name")
        from huggingface_hub import snapshot_download

        with _refused(ModelError, f"the adapter {reference!r} could not be fetched from the hub"):
            path = Path(snapshot_download(reference, allow_patterns=_ADAPTER_FILES))
    missing = [name for name in _ADAPTER_FILES if not (path / name).is_file()]
    if missing:
        raise ModelError(f"the adapter {reference!r} has no {', '.join(missing)}; save it with PEFT's save_pretrained")
    return path


def weight_bytes(model: Any) -> int | None:
    """Return the memory of parameters and buffers, shared ones counted once; None if some are loaded on demand."""
    seen: dict[tuple[str, int], int] = {}
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.device.type == "meta" for tensor in tensors):
        return None
    for tensor in tensors:
        for part in _parts(tensor):
            seen[str(part.device), part.data_ptr()] = part.numel() * part.element_size()
    return sum(seen.values())


def _parts(tensor: Any) -> Iterator[Any]:
    """Yield the plain tensors of a quantized one."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
        return
    yield tensor.data
    state = getattr(tensor, "quant_state", None)  # of bitsandbytes, 4 bits
    if state is not None:
        nested = getattr(state, "state2", None)
        yield from (state.absmax, state.code, *((nested.absmax, nested.code) if nested is not None else ()))
    row_scales = getattr(tensor, "SCB", None)  # of bitsandbytes, 8 bits
    if row_scales is not None:
        yield row_scales


def _require_flash_attention(device: str) -> None:
    from transformers.utils import is_flash_attn_2_available

    if device == "cpu" or not is_flash_attn_2_available():
        raise EngineError("attention: flash_attention_2 needs a GPU and the package flash-attn; write sdpa or eager")


def _try_level(level: str | None, device: str, folder: Path) -> dict[str, Any]:
    """Return the arguments for a level. torchao's are tried on one layer first, because loading hides its errors."""
    with _refused(LevelUnsupported, f"{level} does not run on {device} here"):
        made = loading_arguments(level, device, folder)
        if level in TORCHAO:
            import torch
            from torchao.quantization import quantize_

            layer = torch.nn.Linear(_PROBE_WIDTH, _PROBE_WIDTH, bias=False, device=device, dtype=made["dtype"])
            probe = torch.nn.Sequential(layer)
            quantize_(probe, torchao_recipe(str(level), device))
            with torch.inference_mode():
                probe(torch.zeros(1, _PROBE_WIDTH, device=device, dtype=made["dtype"]))
    return made


def _try_one_token(model: Any, level: str) -> None:
    """Run one token, because kernels refuse shapes only when called, and some checkpoints are unpacked only then.

    The failure then belongs to the start, not to the first request, and the weights are measured unpacked.
    """
    import torch

    with _refused(LevelUnsupported, f"{level} does not run with this model here"), torch.inference_mode():
        model(torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)


@contextmanager
def _refused(error_type: type[EngineError], finding: str) -> Iterator[None]:
    """Raise an error of ours, with the first line of the library's, for any error that a library raises."""
    try:
        yield
    except Exception as error:  # a library may refuse in any way
        lines = str(error).strip().splitlines()
        cause = ": ".join([type(error).__name__, *(masked(line.strip(), 300) for line in lines[:1])])
        raise error_type(f"{finding}: {cause}") from error
