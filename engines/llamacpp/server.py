"""llama.cpp's own server (xllamacpp) in a process of its own, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from engines.base import Endpoint, EngineError, EngineInfo, EngineSpec, Scores, beginning_of
from engines.llamacpp.base import GgufServer, unused_instructions
from engines.llamacpp.options import PLAIN_SAMPLING, LlamaServerOptions
from engines.llamacpp.server_binary import Program, program
from engines.llamacpp.server_process import EmbeddedServer, server_parameters
from engines.llamacpp.server_scores import score_by_server

_SCORE_TIMEOUT_S = 300.0  # the first request evaluates half a chunk, of a large model on a small processor


class LlamaServer(GgufServer[LlamaServerOptions]):
    """Engine `llama-server`; implements `engines.base.ServedEngine`. Options: `LlamaServerOptions`."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec, LlamaServerOptions)
        self._program: Program | None = None
        self._context = 0

    def prepare(self) -> Sequence[Path]:
        """Find or fetch the model and make its GGUF file at the requested level (cached); inspect `binary`."""
        files = super().prepare()
        if self._options.binary is not None:
            self._program = program(self._options.binary)
        return files

    async def start(self) -> EngineInfo:
        """Start the process and wait until the model is loaded and the port is open.

        Raises StartFailed if it ends before that or takes longer than `ready_timeout_s`.
        """
        self._server.require_new(self._options.port)
        await asyncio.to_thread(self.prepare)
        options, model = self._options, self._file
        arguments = (options, model.path, model.source.name, self._context_tokens, model.lora)
        if self._program is None:
            parameters = server_parameters(*arguments)
            embedded = EmbeddedServer(self._spec, self._environment, parameters, options.ready_timeout_s)
            await self._server.start(embedded)
            return await asyncio.to_thread(self._started, "xllamacpp", embedded.version, embedded.system)
        words = self._program.arguments(*arguments)
        await self._server.start(self._process(words, "/health", options.ready_timeout_s, options.port))
        return await asyncio.to_thread(self._started, "llama-server", self._program.version, self._program.system)

    def endpoint(self) -> Endpoint:
        unsaid = {**PLAIN_SAMPLING, "cache_prompt": self._options.prefix_cache}
        return Endpoint(self._server.url, "openai-completions", model=self._file.source.name, unsaid=unsaid)

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        order = {"content": text, "add_special": special}
        ids: list[int] = (await asyncio.to_thread(self._server.answer, "/tokenize", order))["tokens"]
        return ids

    async def beginning(self) -> list[int]:
        return await beginning_of(self.tokenize)

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Return the distributions of tokens[first:], one request for each position.

        Raises EngineError if the sequence exceeds the context, or the server returns no probabilities.
        """
        if len(tokens) > self._context:
            raise EngineError(f"{len(tokens)} tokens are more than the context of {self._context}; raise n_ctx")
        ask = partial(self._server.answer, timeout_s=_SCORE_TIMEOUT_S, refusals=True)
        return await asyncio.to_thread(score_by_server, ask, tokens, first)

    def _started(self, library: str, version: str, system: str) -> EngineInfo:
        """Return the facts about the started server. `system` lists the features of the build."""
        self._context = int(self._server.answer("/props")["default_generation_settings"]["n_ctx"])
        return self._info(
            self._context,
            self._server.log(),
            version=version,
            pids=self._server.pids(),
            libraries={library: version, "ggml": system.strip()},
            metrics_urls=(f"{self._server.url}/metrics",),
            unused_instructions=unused_instructions(system),
        )
