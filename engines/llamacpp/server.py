"""The embedded engine: llama.cpp's own server (xllamacpp) in a process of its own, on loopback."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engines.base import (
    NO_USAGE_REPORTS,
    PROBE,
    Endpoint,
    EngineError,
    EngineInfo,
    EngineSpec,
    MemoryEstimate,
    Scores,
    StartFailed,
    put_before,
)
from engines.llamacpp.base import (
    GgufModel,
    context_tokens,
    device_environment,
    known_facts,
    logged_device,
    logged_memory,
    memory_estimate,
    on_devices,
    prepared_model,
    require_device,
    require_model,
)
from engines.llamacpp.instructions import unused_instructions
from engines.llamacpp.options import PLAIN_SAMPLING, LlamaServerOptions, parse_options
from engines.llamacpp.server_binary import Program, program
from engines.llamacpp.server_parameters import server_parameters
from engines.llamacpp.server_scores import score_by_server
from engines.models.gguf.file import gguf_levels
from engines.process.log import begun, read_from, size_of
from engines.process.server import ServerCommand, ServerProcess

_CHILD = Path(__file__).with_name("server_child.py")
_QUIET = {**NO_USAGE_REPORTS, "HF_HUB_OFFLINE": "1"}  # the model is there already
_STOP_TIMEOUT_S = 5.0
_REPLY_TIMEOUT_S = 10.0
_SCORE_TIMEOUT_S = 300.0  # the first one evaluates half a chunk, of a large model on a small processor
_LOG_LINES = 3
# Warnings and information of llama.cpp, and the frames of a Python traceback.
_UNTELLING = re.compile(r"[\d.]+ [WID] | |Traceback")


class LlamaServer:
    """xllamacpp's server; see `engines.base.ServedEngine`. Options: `engines.llamacpp.options.LlamaServerOptions`."""

    def __init__(self, spec: EngineSpec) -> None:
        require_model(spec)
        self._spec = spec
        self._options = on_devices(parse_options(LlamaServerOptions, spec.options, "llama-server"), spec.devices)
        self._model: GgufModel | None = None
        self._context = 0
        self._process: subprocess.Popen[str] | None = None
        self._url: str | None = None
        self._program: Program | None = None
        self._server: ServerProcess | None = None
        self._log_start = 0
        self._stopped = False

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """Every GGUF level that can be made here."""
        return gguf_levels

    @classmethod
    def devices(cls, level: str) -> tuple[str, ...]:
        """Both for every level; a GPU needs a build of xllamacpp that knows it."""
        return ("cpu", "cuda")

    def prepare(self) -> Sequence[Path]:
        """Find or fetch the model and make its GGUF file at the level asked for (cached); ask what `binary` is."""
        files = self._prepared().files
        if self._options.binary is not None:
            self._program = program(self._options.binary)
        return files

    def memory_needed(self) -> MemoryEstimate | None:
        """Weights, the KV cache of all slots, and the least that the process takes."""
        return memory_estimate(self._spec, self._options, self._prepared(), self._options.n_parallel)

    async def start(self) -> EngineInfo:
        """Start the process and wait until the model is loaded and the port listens.

        Raises StartFailed if it ends before that or takes longer than `ready_timeout_s`.
        """
        if self._process is not None or self._server is not None:
            raise EngineError("llama-server was started already; make a new engine for another start")
        await asyncio.to_thread(self.prepare)
        model = self._prepared()
        asked = (self._options, model.path, self._alias(), context_tokens(self._options, model), model.lora)
        if self._program is None:
            report = await self._launch(server_parameters(*asked))
        else:
            report = await self._start_program(self._program, self._program.arguments(*asked))
        self._url = report["url"]
        return await asyncio.to_thread(self._info, model, report)

    def endpoint(self) -> Endpoint:
        """Where the server listens."""
        if self._url is None:
            raise EngineError("llama-server is not running; start it first")
        asked = {**PLAIN_SAMPLING, "cache_prompt": self._options.prefix_cache}
        return Endpoint(self._url, "openai-completions", model=self._alias(), unsaid=asked)

    async def tokenize(self, text: str) -> list[int]:
        """The token ids that the loaded model's own tokenizer gives, no special tokens added."""
        return await self._tokenized(text, special=False)

    async def beginning(self) -> list[int]:
        """The ids that it puts in front of a text that it is sent, such as the token of beginning; [] for none."""
        return put_before(await self._tokenized(PROBE, special=True), await self._tokenized(PROBE, special=False))

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """The distributions of tokens[first:], asked for position by position.

        Raises EngineError if the sequence is longer than the context, or if the server does not tell.
        """
        if len(tokens) > self._context:
            raise EngineError(f"{len(tokens)} tokens are more than the context of {self._context}; raise n_ctx")
        ask = partial(_ask, timeout_s=_SCORE_TIMEOUT_S)
        return await asyncio.to_thread(score_by_server, ask, self.endpoint().url, tokens, first)

    def alive(self) -> str | None:
        """Why the process is not running, in one sentence; None while it runs."""
        if self._server is None and self._process is None:
            return "llama-server was not started"
        if self._stopped:
            return "llama-server was stopped"
        if self._server is not None:
            return self._server.alive()
        assert self._process is not None
        return None if self._process.poll() is None else self._ending()

    async def stop(self) -> None:
        """End the process, by force after some seconds."""
        self._stopped, self._url = True, None
        if self._process is not None:
            await asyncio.to_thread(_end, self._process)
        if self._server is not None:
            await self._server.stop()

    async def _start_program(self, program: Program, arguments: Sequence[str]) -> dict[str, Any]:
        """Start another llama-server; what the embedded one reports, of it."""
        self._log_start = begun(self._spec.log_path)
        self._server = ServerProcess(
            ServerCommand(
                shlex.join(arguments),
                env={**device_environment(self._spec.devices), **self._spec.env},
                ready_path="/health",
                ready_timeout_s=self._options.ready_timeout_s,
                log_path=self._spec.log_path,
                port=self._options.port,
            )
        )
        await self._server.start()
        return {"url": self._server.url, "version": program.version, "system": program.system}

    async def _tokenized(self, text: str, *, special: bool) -> list[int]:
        order = {"content": text, "add_special": special}
        ids: list[int] = (await asyncio.to_thread(_ask, self.endpoint().url, "/tokenize", order))["tokens"]
        return ids

    async def _launch(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        read_end, write_end = os.pipe()
        try:
            self._process = self._spawn(write_end)
        except OSError as error:
            os.close(read_end)
            raise StartFailed(f"{self._python()} cannot be run: {error.strerror}; check the engine's python") from error
        finally:
            os.close(write_end)
        _send(self._process, {"report_fd": write_end, "parameters": parameters})
        try:
            line = await asyncio.wait_for(_first_line(read_end), self._options.ready_timeout_s)
        except TimeoutError:
            await asyncio.to_thread(_end, self._process)
            raise StartFailed(
                f"llama-server was not ready within {self._options.ready_timeout_s:g} s; raise ready_timeout_s"
            ) from None
        if not line:
            await asyncio.to_thread(_end, self._process)
            raise StartFailed(self._why_not_started())
        found: dict[str, Any] = json.loads(line)
        return found

    def _spawn(self, report_fd: int) -> subprocess.Popen[str]:
        self._log_start = begun(self._spec.log_path)
        log = None if self._spec.log_path is None else self._spec.log_path.open("ab")
        try:
            return subprocess.Popen(
                # -P keeps the child's folder off the path: modules there are named like some of the library's.
                [self._python(), "-P", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                env={**os.environ, **_QUIET, **device_environment(self._spec.devices), **self._spec.env},
                pass_fds=(report_fd,),
                start_new_session=True,
                text=True,
            )
        finally:
            if log is not None:
                log.close()

    def _prepared(self) -> GgufModel:
        if self._model is None:
            self._model = prepared_model(self._spec)
        return self._model

    def _library(self) -> str:
        return "xllamacpp" if self._program is None else "llama-server"

    def _python(self) -> str:
        return self._spec.python or sys.executable

    def _alias(self) -> str:
        assert self._spec.model is not None
        return self._model.source.name if self._model else self._spec.model.name

    def _why_not_started(self) -> str:
        log = "\n".join(self._log())
        if "couldn't bind" in log:
            return f"port {self._options.port} is in use; name another port, or none to have a free one chosen"
        if "No module named 'xllamacpp'" in log:
            return f"{self._python()} has no xllamacpp; install it there with: pip install xllamacpp"
        return self._ending()

    def _ending(self) -> str:
        assert self._process is not None
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        lines = "; ".join(self._log()[-_LOG_LINES:])
        return f"llama-server (process {self._process.pid}) {how}" + (f", saying last: {lines}" if lines else "")

    def _log(self) -> list[str]:
        return [line.strip() for line in self._log_text().splitlines() if line.strip() and not _UNTELLING.match(line)]

    def _log_text(self) -> str:
        return read_from(self._spec.log_path, self._log_start)

    def _info(self, model: GgufModel, report: Mapping[str, Any]) -> EngineInfo:
        pids = self._server.pids() if self._server else (self._process.pid,) if self._process else ()
        self._context = int(_ask(report["url"], "/props")["default_generation_settings"]["n_ctx"])
        log = self._log_text()
        require_device(self._spec, self._options, logged_device(log))
        self._log_start = size_of(self._spec.log_path)  # what it says of its ending comes later
        return EngineInfo(
            name="llama-server",
            version=report["version"],
            context_tokens=self._context,
            pids=pids,
            options=self._options.in_force(self._context),
            libraries={self._library(): report["version"], "ggml": report["system"].strip()},
            device=logged_device(log),
            memory=logged_memory(log),
            metrics_urls=(f"{report['url']}/metrics",),
            slots=self._options.n_parallel,
            unused_instructions=unused_instructions(report["system"]),
            **known_facts(self._options, model),
        )


def _ask(
    url: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = _REPLY_TIMEOUT_S
) -> dict[str, Any]:
    """The JSON that our own server answers; no proxy may come between."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=timeout_s)
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise EngineError(f"llama-server does not answer {path}: {error}; see its log") from error
    finally:
        connection.close()
    return answer


def _send(process: subprocess.Popen[str], order: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return  # it has ended already; the empty report says so


async def _first_line(descriptor: int) -> bytes:
    """One line from a pipe, b"" if its other end is closed first."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        return await reader.readline()
    finally:
        transport.close()


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the process to end, force it if it does not."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        try:
            process.stdin.close()
        except BrokenPipeError:
            return  # what was buffered for it went with it
