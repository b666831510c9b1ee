"""vLLM's own server, `python -m vllm.entrypoints.openai.api_server`, in its own process."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from engines.base import Endpoint, EngineError, EngineInfo, EngineSpec, Scores, StartFailed, beginning_of
from engines.process.placeholders import command_of
from engines.process.server import EngineServer, ServerCommand, ServerProcess
from engines.vllm.base import VllmEngine
from engines.vllm.levels import WHILE_LOADING
from engines.vllm.log import is_refusal, root_cause
from engines.vllm.model import LORA_NAME
from engines.vllm.scores import check_length, page_rows, scores_of, whole_vocabulary

_MODULE = "vllm.entrypoints.openai.api_server"
# The server's own defaults come from the model's generation_config.json, where many penalise repetition.
_PLAIN_SAMPLING = {"temperature": 0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
_MOST_VALUES_ON_A_PAGE = 1 << 20  # each takes some 60 characters
_CACHE = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_DEVICE = re.compile(r"device_config=(\w+)")
_DTYPE = re.compile(r"dtype=torch\.(\w+)")


class VllmServer(VllmEngine):
    """Engine `vllm-server`; implements `engines.base.ServedEngine`. Options: `engines.vllm.options.VllmOptions`."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self._server = EngineServer(spec.engine, spec.log_path)
        self._python = spec.python or sys.executable
        self._context = 0

    async def start(self) -> EngineInfo:
        """Start the server and wait until it is healthy, which usually takes a minute.

        Raises LevelUnsupported for a level that this build of vLLM refuses, else StartFailed.
        """
        self._server.require_new(self._options.port)
        await asyncio.to_thread(self.prepare)
        try:
            await self._server.start(ServerProcess(self._command()))
        except StartFailed as error:
            raise self._start_failure(error) from error
        return await asyncio.to_thread(self._info)

    def endpoint(self) -> Endpoint:
        return Endpoint(self._server.url, "openai-completions", model=self._served_model(), unsaid=_PLAIN_SAMPLING)

    def alive(self) -> str | None:
        return self._server.alive()

    async def stop(self) -> None:
        await self._server.stop()

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        order = {"model": self._served_model(), "prompt": text, "add_special_tokens": special}
        ids: list[int] = (await asyncio.to_thread(self._server.answer, "/tokenize", order))["tokens"]
        return ids

    async def beginning(self) -> list[int]:
        return await beginning_of(self.tokenize)

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Return the distributions of tokens[first:]: of all tokens up to 2^20 values, else of the most likely.

        Raises EngineError if the sequence exceeds the context.
        """
        check_length(len(tokens), first, self._context)
        vocabulary = self._model.shape.vocabulary if self._model.shape else None
        wanted = min(max(1, _MOST_VALUES_ON_A_PAGE // len(tokens)), vocabulary or 20)
        order = {
            "model": self._served_model(),
            "prompt": list(tokens),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": -1 if wanted == vocabulary else wanted,
        }
        answer = await asyncio.to_thread(self._server.answer, "/v1/completions", order)
        found = answer["choices"][0].get("prompt_logprobs")
        if found is None:
            raise EngineError(f"{self._spec.engine} returned no log-probabilities")
        scores = scores_of(page_rows(found, first), tokens[first:], first, wanted)
        return whole_vocabulary(scores, vocabulary) if vocabulary is not None else scores

    def _command(self) -> ServerCommand:
        # Like -P, also for interpreters before 3.11: no folder of the user's comes before vLLM's packages. Another
        # interpreter does not get the paths of ours either.
        environment = {"PYTHONSAFEPATH": "1"} | ({"PYTHONPATH": ""} if self._spec.python else {})
        words = [self._python, "-m", _MODULE, "--host", "127.0.0.1", "--port", "{port}", *self._arguments()]
        return ServerCommand(
            command_of(words),
            env={**environment, **self._model.environment()},
            ready_path="/health",
            ready_timeout_s=self._options.ready_timeout_s,
            log_path=self._spec.log_path,
            port=self._options.port,
        )

    def _arguments(self) -> list[str]:
        ours = ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
        if self._model.lora is not None:
            ours += ["--lora-modules", f"{LORA_NAME}={self._model.lora}"]
        return [*command_line(self._model.arguments()), *ours]

    def _served_model(self) -> str:
        return LORA_NAME if self._model.lora is not None else self._model.source.name

    def _start_failure(self, error: StartFailed) -> EngineError:
        log = self._server.log()
        if "No module named 'vllm'" in log:
            return StartFailed(f"{self._python} has no vllm; install it there, or name another interpreter: python")
        if "ddress already in use" in log and self._options.port is not None:
            return StartFailed(f"port {self._options.port} is in use; name another port, or none for a free one")
        cause = root_cause(log)
        if cause is None:
            return error
        on_cpu = self._model.plan.level in WHILE_LOADING and self._device() == "cpu"
        return self._failed(cause, refused=is_refusal(cause) or on_cpu)

    def _device(self) -> str | None:
        """Return the device in vLLM's log."""
        match = _DEVICE.search(self._server.log())
        return match[1] if match else None

    def _info(self) -> EngineInfo:
        server, log = self._server, self._server.log()
        version = server.answer("/version").get("version")
        served = next(one for one in server.answer("/v1/models")["data"] if one["id"] == self._model.source.name)
        self._context = int(served["max_model_len"])
        cache = cache_facts(server.page("/metrics"))
        dtype = _DTYPE.search(log)
        chosen: dict[str, Any] = {"max_model_len": self._context} | ({"dtype": dtype[1]} if dtype else {})
        chosen |= {"n_threads": self._model.threads_in_force(log), "port": urlsplit(server.url).port}
        return EngineInfo(
            version=version,
            level=self._model.plan.level,
            pids=server.pids(),
            options={**asdict(self._options), **chosen},
            libraries={"vllm": version} if version else {},
            device=self._device(),
            metrics_urls=(f"{server.url}/metrics",),
            slots=self._options.max_num_seqs,
            **self._facts(self._context, int(cache.get("num_gpu_blocks") or 0) * int(cache.get("block_size") or 0)),
        )


def command_line(arguments: Mapping[str, Any]) -> list[str]:
    """Return engine arguments as the server's command line has them."""
    words = []
    for name, value in arguments.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", json.dumps(value) if isinstance(value, (Mapping, list)) else str(value)]
    return words


def cache_facts(metrics: str) -> dict[str, str]:
    """Return the labels of `vllm:cache_config_info` on the metrics page; {} if missing."""
    match = _CACHE.search(metrics)
    return dict(re.findall(r'(\w+)="([^"]*)"', match[1])) if match else {}
