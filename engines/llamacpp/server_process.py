"""Process of xllamacpp's server: start, readiness, end, and its parameters."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from engines.base import NO_USAGE_REPORTS, EngineSpec, StartFailed
from engines.llamacpp.options import ALL_LAYERS, LlamaServerOptions
from engines.process.log import begun, read_from, size_of
from engines.process.server import signal_name

_CHILD = Path(__file__).with_name("server_child.py")
_QUIET = {**NO_USAGE_REPORTS, "HF_HUB_OFFLINE": "1"}  # the model is on disk already
_STOP_TIMEOUT_S = 5.0
_LOG_LINES = 3
_LOG_LOADING = 4  # llama.cpp logs its buffers one level below the server's information
# Lines without a cause: warnings and information of llama.cpp, and the frames of a Python traceback.
_NOISE = re.compile(r"[\d.]+ [WID] | |Traceback")


class EmbeddedServer:
    """Server process, from start() to stop(); see `engines.process.server.RunningServer`.

    Attributes:
        parameters: See `server_parameters`.
        url, version, system: As the server reports them when ready.
    """

    def __init__(
        self, spec: EngineSpec, environment: Mapping[str, str], parameters: Mapping[str, Any], ready_timeout_s: float
    ) -> None:
        self._python = spec.python or sys.executable
        self._log_path = spec.log_path
        self._environment = {**os.environ, **_QUIET, **environment}
        self._parameters = parameters
        self._ready_timeout_s = ready_timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._log_start = 0
        self.url = self.version = self.system = ""

    async def start(self) -> None:
        """Start the server and wait until the model is loaded and the port is open. Raises StartFailed."""
        read_end, write_end = os.pipe()
        try:
            self._process = self._spawn(write_end)
        except OSError as error:
            os.close(read_end)
            raise StartFailed(f"{self._python} cannot be run: {error.strerror}; check the engine's python") from error
        finally:
            os.close(write_end)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and so has its report
            self._process.stdin.write(json.dumps({"report_fd": write_end, "parameters": self._parameters}) + "\n")
            self._process.stdin.flush()
        try:
            line = await asyncio.wait_for(_first_line(read_end), self._ready_timeout_s)
        except TimeoutError:
            await self.stop()
            limit_s = self._ready_timeout_s
            raise StartFailed(f"llama-server was not ready within {limit_s:g} s; raise ready_timeout_s") from None
        if not line:
            await self.stop()
            raise StartFailed(self._why_not_started())
        report = json.loads(line)
        self.url, self.version, self.system = report["url"], report["version"], report["system"]
        self._log_start = size_of(self._log_path)  # `alive` quotes only what comes later

    def alive(self) -> str | None:
        if self._process is None:
            return "llama-server was not started"
        return None if self._process.poll() is None else self._ending()

    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,) if self._process else ()

    async def stop(self) -> None:
        """End the process, by force after some seconds. Idempotent."""
        if self._process is not None:
            await asyncio.to_thread(_end, self._process)

    def _spawn(self, report_fd: int) -> subprocess.Popen[str]:
        self._log_start = begun(self._log_path)
        log = None if self._log_path is None else self._log_path.open("ab")
        try:
            return subprocess.Popen(
                # -P keeps the child's folder off the path: some modules there have names of the library's.
                [self._python, "-P", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                env=self._environment,
                pass_fds=(report_fd,),
                start_new_session=True,
                text=True,
            )
        finally:
            if log is not None:
                log.close()

    def _why_not_started(self) -> str:
        log = "\n".join(self._log())
        if "couldn't bind" in log:
            return f"port {self._parameters['port']} is in use; name another port, or none to have a free one chosen"
        if "No module named 'xllamacpp'" in log:
            return f"{self._python} has no xllamacpp; install it there with: pip install xllamacpp"
        return self._ending()

    def _ending(self) -> str:
        assert self._process is not None
        code = self._process.returncode
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"exited with code {code}"
        lines = "; ".join(self._log()[-_LOG_LINES:])
        return f"llama-server (process {self._process.pid}) {how}" + (f", saying last: {lines}" if lines else "")

    def _log(self) -> list[str]:
        """Return the lines of the log that state a cause."""
        lines = read_from(self._log_path, self._log_start).splitlines()
        return [line.strip() for line in lines if line.strip() and not _NOISE.match(line)]


async def _first_line(descriptor: int) -> bytes:
    """Return one line from a pipe, b"" if its other end is closed first."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        return await reader.readline()
    finally:
        transport.close()


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the process to end, then force it."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # the process ended before reading it
            process.stdin.close()


def server_parameters(
    options: LlamaServerOptions, gguf: Path, alias: str, context_tokens: int, lora: Path | None = None
) -> dict[str, Any]:
    """Return the fields of xllamacpp.CommonParams as JSON, in the notation of `server_child`.

    Args:
        context_tokens: Context of one slot. The server divides its context, so it gets n_parallel times as much.
    """
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
        "flash_attn_type": _member("llama_flash_attn_type", options.flash_attn_type),
        "cache_type_k": _member("ggml_type", f"GGML_TYPE_{options.cache_type_k.upper()}"),
        "cache_type_v": _member("ggml_type", f"GGML_TYPE_{options.cache_type_v.upper()}"),
        "load_mode": _member("llama_load_mode", options.load_mode),
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
        parameters["n_gpu_layers"] = ALL_LAYERS if options.n_gpu_layers == "all" else options.n_gpu_layers
    if options.grammar is not None:
        kind = _member("common_grammar_type", "COMMON_GRAMMAR_TYPE_USER")
        parameters["sampling.grammar"] = {"new": "CommonGrammar", "arguments": [kind, options.grammar]}
    if lora is not None:
        parameters["lora_adapters"] = {"list": [{"new": "CommonAdapterLoraInfo", "arguments": [str(lora), 1.0]}]}
    return parameters


def _member(enumeration: str, member: str) -> dict[str, str]:
    return {"enum": enumeration, "member": member}
