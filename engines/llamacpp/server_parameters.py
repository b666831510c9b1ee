"""Parameters of xllamacpp for the options of `llama-server`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.llamacpp.options import LlamaServerOptions

_LOG_LOADING = 4  # llama.cpp logs its buffers one level below the server's information
_ALL_LAYERS = -2


def server_parameters(
    options: LlamaServerOptions, gguf: Path, alias: str, context_tokens: int, lora: Path | None = None
) -> dict[str, Any]:
    """Return the fields of xllamacpp.CommonParams as JSON, in the notation of `server_child`.

    Args:
        context_tokens: Context of one slot. The server divides its context, so it gets n_parallel times as much.
    """
    load_mode = {
        (True, False): "MMAP",
        (True, True): "MMAP_MLOCK",
        (False, True): "MLOCK",
        (False, False): "NONE",
    }[options.mmap, options.mlock]
    flash = {True: "ENABLED", False: "DISABLED", "auto": "AUTO"}[options.flash_attn]
    parameters: dict[str, Any] = {
        "model.path": str(gguf),
        "model_alias": [alias],
        "n_ctx": context_tokens * options.n_parallel,
        "n_parallel": options.n_parallel,
        "cont_batching": options.cont_batching,
        "cpuparams.n_threads": options.threads,
        "cpuparams_batch.n_threads": options.threads,
        "n_batch": options.n_batch,
        "n_ubatch": options.n_ubatch,
        "flash_attn_type": _member("llama_flash_attn_type", f"LLAMA_FLASH_ATTN_TYPE_{flash}"),
        "cache_type_k": _member("ggml_type", f"GGML_TYPE_{options.cache_type_k.upper()}"),
        "cache_type_v": _member("ggml_type", f"GGML_TYPE_{options.cache_type_v.upper()}"),
        "load_mode": _member("llama_load_mode", f"LLAMA_LOAD_MODE_{load_mode}"),
        "cache_prompt": options.prefix_cache,
        "port": options.port or 0,
        "endpoint_metrics": True,
        "ui": False,
        "offline": True,
        "verbosity": _LOG_LOADING,
    }
    if not options.prefix_cache:
        parameters["cache_ram_mib"] = 0
    elif options.cache_ram_mib is not None:
        parameters["cache_ram_mib"] = options.cache_ram_mib
    if options.n_gpu_layers is not None:
        parameters["n_gpu_layers"] = _ALL_LAYERS if options.n_gpu_layers == "all" else options.n_gpu_layers
    if options.grammar is not None:
        kind = _member("common_grammar_type", "COMMON_GRAMMAR_TYPE_USER")
        parameters["sampling.grammar"] = {"new": "CommonGrammar", "arguments": [kind, options.grammar]}
    if lora is not None:
        parameters["lora_adapters"] = {"list": [{"new": "CommonAdapterLoraInfo", "arguments": [str(lora), 1.0]}]}
    return parameters


def _member(enumeration: str, member: str) -> dict[str, str]:
    return {"enum": enumeration, "member": member}
