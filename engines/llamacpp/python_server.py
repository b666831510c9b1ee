"""Server of llama-cpp-python, `python -m llama_cpp.server`, in its own process."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines import missing_library
from engines.base import Endpoint, EngineError, EngineInfo, EngineSpec, StartFailed
from engines.llamacpp.base import GgufModel, GgufServer
from engines.llamacpp.options import PLAIN_SAMPLING, LlamaCppServerOptions

# The numbers of ggml's types, as the server takes them.
_TYPE_NUMBERS = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2}
_ALL_LAYERS = -1  # default of llama.cpp; the server's is 0
_NEVER = -1e9  # added to a logit
# Runs in the library's environment: prints its version, and which tokens of a model end a reply.
_REPORT = """
import importlib.metadata, json, sys
from llama_cpp import llama_cpp as c
c.llama_backend_init()
parameters = c.llama_model_default_params()
parameters.vocab_only = True
model = c.llama_model_load_from_file(sys.argv[1].encode(), parameters)
vocabulary = None if model is None else c.llama_model_get_vocab(model)
size = 0 if model is None else c.llama_vocab_n_tokens(vocabulary)
ends = [token for token in range(size) if c.llama_vocab_is_eog(vocabulary, token)]
eos = None if model is None else c.llama_vocab_eos(vocabulary)
print(json.dumps({"version": importlib.metadata.version("llama-cpp-python"), "ends": ends, "eos": eos}))
"""


class LlamaCppServer(GgufServer[LlamaCppServerOptions]):
    """Engine `llama-cpp-server`; implements `engines.base.ServedEngine`. Options: `LlamaCppServerOptions`."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec, LlamaCppServerOptions)
        if self._options.flash_attn == "auto":
            raise EngineError(f"option flash_attn of {spec.engine} is 'auto'; it must be true or false")
        self._python = spec.python or sys.executable
        self._library: dict[str, Any] = {"ends": (), "eos": None}

    def prepare(self) -> Sequence[Path]:
        files = super().prepare()
        if not missing_library(self._spec.engine, self._spec.python):
            _library_facts(self._python, str(self._file.path))  # before start(), which is timed
        return files

    async def start(self) -> EngineInfo:
        """Start the server and wait until it answers.

        Raises StartFailed if it ends before that or takes longer than `ready_timeout_s`.
        """
        self._server.require_new()
        await asyncio.to_thread(self.prepare)
        if missing := missing_library(self._spec.engine, self._spec.python):
            raise StartFailed(missing)
        self._library = await asyncio.to_thread(_library_facts, self._python, str(self._file.path))
        context = self._context_tokens
        words = [self._python, "-P", "-m", "llama_cpp.server", *arguments(self._options, self._file, context)]
        await self._server.start(self._process(words, "/v1/models", self._options.ready_timeout_s))
        version = str(self._library["version"])
        more = {"version": version, "libraries": {"llama-cpp-python": version}, "pids": self._server.pids()}
        return await asyncio.to_thread(self._info, context, self._server.log(), **more)

    def endpoint(self) -> Endpoint:
        # A logit bias excludes every token that ends a reply. `min_tokens` would exclude only one of them. With both,
        # the server (0.3.36) ignores both.
        ends, exact = self._library["ends"], {}
        if set(ends) - {self._library["eos"]}:
            exact = {"logit_bias": {str(token): _NEVER for token in ends}}
        url, model = self._server.url, self._file.source.name
        return Endpoint(url, "openai-completions", model, unsaid=PLAIN_SAMPLING, exact=exact)


@functools.cache
def _library_facts(python: str, gguf: str) -> dict[str, Any]:
    command = [python, "-P", "-c", _REPORT, gguf]
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        found: dict[str, Any] = json.loads(ended.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise StartFailed(f"{python} cannot report its version of llama-cpp-python: {error}") from error
    return found


def arguments(options: LlamaCppServerOptions, model: GgufModel, context: int) -> list[str]:
    """Return the command line after `python -m llama_cpp.server`, with {port} in the place of the port.

    interrupt_requests is off, because a new request would cancel the one in progress. logits_all is off: it keeps the
    logits of a whole context, which nothing here reads.
    """
    given = {
        "model": model.path,
        "model_alias": model.source.name,
        "host": "127.0.0.1",
        "port": "{port}",
        "n_ctx": context,
        "n_threads": options.threads,
        "n_threads_batch": options.threads,
        "n_batch": options.n_batch,
        "n_ubatch": options.n_ubatch,
        "n_gpu_layers": options.n_gpu_layers if isinstance(options.n_gpu_layers, int) else _ALL_LAYERS,
        "flash_attn": options.flash_attn,
        "type_k": _TYPE_NUMBERS[options.cache_type_k],
        "type_v": _TYPE_NUMBERS[options.cache_type_v],
        "use_mmap": options.mmap,
        "use_mlock": options.mlock,
        "cache": options.state_cache_bytes > 0,
        "cache_size": options.state_cache_bytes,
        "logits_all": False,
        "interrupt_requests": False,
    }
    if model.lora is not None:
        given["lora_path"] = model.lora
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]
