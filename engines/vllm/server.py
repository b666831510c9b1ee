"""vLLM's own server, `python -m vllm.entrypoints.openai.api_server`, started, awaited and stopped here."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines.base import (
    PROBE,
    Endpoint,
    EngineError,
    EngineInfo,
    EngineSpec,
    LevelUnsupported,
    MemoryEstimate,
    Scores,
    StartFailed,
    put_before,
)
from engines.options import read_options
from engines.process.log import begun, read_from
from engines.process.server import ServerCommand, ServerProcess
from engines.vllm.levels import LEVELS, WHILE_LOADING, check_name
from engines.vllm.log import is_refusal, root_cause
from engines.vllm.model import LORA_NAME, VllmModel
from engines.vllm.options import DTYPES, VllmOptions
from engines.vllm.scores import check_length, page_rows, scores_of, whole_vocabulary

_NAME = "vllm-server"
_MODULE = "vllm.entrypoints.openai.api_server"
# The server's own defaults are those of the model's generation_config.json, in which many penalise repetition.
_PLAIN_SAMPLING = {"temperature": 0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
_REPLY_TIMEOUT_S = 60.0
# Every value of a page takes some 60 characters.
_MOST_VALUES_ON_A_PAGE = 1 << 20
_CACHE = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_DEVICE = re.compile(r"device_config=(\w+)")
_DTYPE = re.compile(r"dtype=torch\.(\w+)")


class VllmServer:
    """See the module; implements `engines.base.ServedEngine`. Options: `engines.vllm.options.VllmOptions`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._options = read_options(VllmOptions, spec.options, _NAME)
        check_name(spec.level)
        self._model: VllmModel | None = None
        self._server: ServerProcess | None = None
        self._log_start = 0
        self._context = 0
        self._stopped = False

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """Those of `vllm`."""
        return LEVELS

    @classmethod
    def devices(cls, level: str | None) -> tuple[str, ...]:
        """vLLM quantizes while loading on GPUs alone."""
        return ("cuda",) if level in WHILE_LOADING else ("cpu", "cuda")

    def prepare(self) -> Sequence[Path]:
        """Find or fetch the model and settle how its level is had."""
        if self._model is None:
            self._model = VllmModel.of(self._spec, self._options)
        return self._model.weights

    def memory_needed(self) -> MemoryEstimate | None:
        """From below; see `VllmModel.memory_needed`."""
        return self._model.memory_needed() if self._model is not None else None

    async def start(self) -> EngineInfo:
        """Start the server and wait until it is healthy; a minute is usual.

        Raises LevelUnsupported for a level that this build of vLLM refuses, else StartFailed.
        """
        if self._server is not None:
            raise EngineError(f"{_NAME} was started already; make a new engine for another start")
        await asyncio.to_thread(self.prepare)
        self._log_start = begun(self._spec.log_path)
        self._server = ServerProcess(self._command())
        try:
            await self._server.start()
        except StartFailed as error:
            raise self._start_failure(error) from error
        return await asyncio.to_thread(self._info)

    def endpoint(self) -> Endpoint:
        """Where the server listens."""
        if self._server is None or self._stopped:
            raise EngineError(f"{_NAME} is not running; start it first")
        return Endpoint(self._server.url, "openai-completions", model=self._served_model(), unsaid=_PLAIN_SAMPLING)

    def alive(self) -> str | None:
        """Why the process is not running, in one sentence; None while it runs."""
        if self._server is None:
            return f"{_NAME} was not started"
        return f"{_NAME} was stopped" if self._stopped else self._server.alive()

    async def stop(self) -> None:
        """End the server with its engine core and workers. Idempotent."""
        self._stopped = True
        if self._server is not None:
            await self._server.stop()

    async def tokenize(self, text: str) -> list[int]:
        """The token ids that the loaded model's own tokenizer gives, no special tokens added."""
        return await self._tokenized(text, special=False)

    async def beginning(self) -> list[int]:
        """The ids that it puts in front of a text that it is sent, such as the token of beginning; [] for none."""
        return put_before(await self._tokenized(PROBE, special=True), await self._tokenized(PROBE, special=False))

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """The distributions of tokens[first:], over the whole vocabulary where 2^20 values suffice, else the likeliest.

        Raises EngineError if the sequence is longer than the context.
        """
        check_length(len(tokens), first, self._context)
        assert self._model is not None
        vocabulary = self._model.shape.vocabulary if self._model.shape else None
        wanted = max(1, _MOST_VALUES_ON_A_PAGE // len(tokens))
        whole = vocabulary is not None and vocabulary <= wanted
        order = {
            "model": self._served_model(),
            "prompt": list(tokens),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": -1 if whole else min(wanted, vocabulary or 20),
        }
        answer = await asyncio.to_thread(_ask, self.endpoint().url, "/v1/completions", order)
        found = answer["choices"][0].get("prompt_logprobs")
        if found is None:
            raise EngineError(f"{_NAME} gave no log-probabilities")
        scores = scores_of(page_rows(found, first), tokens[first:], first)
        return whole_vocabulary(scores, vocabulary) if vocabulary is not None else scores

    async def _tokenized(self, text: str, *, special: bool) -> list[int]:
        order = {"model": self._served_model(), "prompt": text, "add_special_tokens": special}
        ids: list[int] = (await asyncio.to_thread(_ask, self.endpoint().url, "/tokenize", order))["tokens"]
        return ids

    def _command(self) -> ServerCommand:
        assert self._model is not None
        # -P, for interpreters before 3.11 too: no folder of the user's stands in front of vLLM's packages; nor, in
        # another interpreter, those that ours was given.
        environment = {"PYTHONSAFEPATH": "1"} | ({"PYTHONPATH": ""} if self._spec.python else {})
        words = [self._python(), "-m", _MODULE, "--host", "127.0.0.1", "--port", "{port}", *self._arguments()]
        return ServerCommand(
            shlex.join(words),
            env={**environment, **self._model.environment()},
            ready_path="/health",
            ready_timeout_s=self._options.ready_timeout_s,
            log_path=self._spec.log_path,
            port=self._options.port,
        )

    def _arguments(self) -> list[str]:
        assert self._model is not None
        ours = ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
        if self._model.lora is not None:
            ours += ["--lora-modules", f"{LORA_NAME}={self._model.lora}"]
        return [*command_line(self._model.arguments()), *ours]

    def _python(self) -> str:
        return self._spec.python or sys.executable

    def _served_model(self) -> str:
        assert self._model is not None
        return LORA_NAME if self._model.lora is not None else self._model.source.name

    def _start_failure(self, error: StartFailed) -> EngineError:
        assert self._model is not None
        log = self._log()
        if "No module named 'vllm'" in log:
            return StartFailed(f"{self._python()} has no vllm; install it there, or name another interpreter: python")
        if "ddress already in use" in log and self._options.port is not None:
            return StartFailed(f"port {self._options.port} is in use; name another port, or none for a free one")
        cause = root_cause(log)
        if cause is None:
            return error
        level = self._model.plan.level
        refused = is_refusal(cause) or (level in WHILE_LOADING and self._device() == "cpu")
        if level not in DTYPES and refused:
            return LevelUnsupported(f"this build of vllm cannot load the level {level}: {cause}")
        return StartFailed(f"{_NAME} did not start: {cause}")

    def _log(self) -> str:
        return read_from(self._spec.log_path, self._log_start)

    def _device(self) -> str | None:
        """What vLLM's log says of where it computes."""
        match = _DEVICE.search(self._log())
        return match[1] if match else None

    def _info(self) -> EngineInfo:
        assert self._server is not None
        assert self._model is not None
        url = self._server.url
        version = _ask(url, "/version").get("version")
        served = next(one for one in _ask(url, "/v1/models")["data"] if one["id"] == self._model.source.name)
        self._context = int(served["max_model_len"])
        cache = cache_facts(_page(url, "/metrics"))
        per_token = self._model.kv_bytes_per_token
        held = int(cache.get("num_gpu_blocks") or 0) * int(cache.get("block_size") or 0)
        dtype = _DTYPE.search(self._log())
        chosen: dict[str, Any] = {"max_model_len": self._context} | ({"dtype": dtype[1]} if dtype else {})
        chosen["n_threads"] = self._model.threads_in_force(self._log())
        return EngineInfo(
            name=_NAME,
            version=version,
            model=self._model.source.name,
            model_hash=self._model.model_hash,
            level=self._model.plan.level,
            weight_bytes=self._model.weight_bytes,
            context_tokens=self._context,
            pids=self._server.pids(),
            options={**asdict(self._options), **chosen, "port": self._server.port},
            libraries={"vllm": version} if version else {},
            device=self._device(),
            parameters=self._model.shape.parameters if self._model.shape else None,
            kv_bytes_per_token=per_token,
            memory={"kv_cache": round(held * per_token)} if per_token and held else {},
            metrics_urls=(f"{url}/metrics",),
            slots=self._options.max_num_seqs,
        )


def command_line(arguments: Mapping[str, Any]) -> list[str]:
    """Engine arguments as the server's command line has them."""
    words = []
    for name, value in arguments.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", json.dumps(value) if isinstance(value, (Mapping, list)) else str(value)]
    return words


def cache_facts(metrics: str) -> dict[str, str]:
    """The labels of `vllm:cache_config_info` on the metrics page; empty where it is missing."""
    match = _CACHE.search(metrics)
    return dict(re.findall(r'(\w+)="([^"]*)"', match[1])) if match else {}


def _ask(url: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON that our own server answers."""
    text = _page(url, path, body)
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise EngineError(f"{_NAME} answers {path} with what is no JSON: {error}; see its log") from error
    return found


def _page(url: str, path: str, body: Mapping[str, Any] | None = None) -> str:
    """What our own server answers; no proxy may come between."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=_REPLY_TIMEOUT_S)
    try:
        order = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, order, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"{_NAME} does not answer {path}: {error}; see its log") from error
    finally:
        connection.close()
    if response.status != 200:
        raise EngineError(f"{_NAME} refuses {path} (status {response.status}): {text[:200]}")
    return text
