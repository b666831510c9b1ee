"""Further servers for tests, run as a program beside `real_apis`: APIs of the field over real engines.

python field_apis.py PORT

tgi: `/generate_stream`, `/generate`, `/info` and `/v1/models`, as Text Generation Inference writes them.
native: what llama.cpp itself answers to `/v1/messages`, `/v1/responses` and `/completion`, event by event.
vectors: `/v1/embeddings` and `/v1/rerank` of two llama.cpp servers for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web
from real_apis import BROKEN, Api, Backend, Said, event, opened, serve

import engines
from engines.base import EngineSpec, ModelReference
from engines.llamacpp.options import LlamaServerOptions
from engines.llamacpp.server_process import EmbeddedServer, server_parameters


class TgiApi(Api):
    """Text Generation Inference's API."""

    def __init__(self) -> None:
        super().__init__({"q8_0": Backend("q8_0")})

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/v1/models", self.models),
            web.get("/info", self.info),
            web.post("/generate", self.generate),
            web.post("/generate_stream", self.stream),
        ]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """What is served."""
        return web.json_response({"data": [{"id": "tiny", "object": "model"}]})

    async def info(self, request: web.Request) -> web.StreamResponse:
        """What it is."""
        return web.json_response({"model_id": "tiny", "version": "3.3.5", "max_total_tokens": 4096})

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """A whole reply, with the prompt's length and the time in its head."""
        body, said = await request.json(), Said()
        if refused := _refused_by_tgi(body):
            return refused
        try:
            await self.whole(*self._about(said, body))
        except RuntimeError as error:
            return web.json_response({"error": str(error), "error_type": "generation"}, status=424)
        head = {"x-prompt-tokens": str(said.usage["prompt_tokens"]), "x-total-time": str(round(said.seconds * 1000))}
        found = {"generated_text": said.text, "details": {**_details(said), "prefill": [], "tokens": []}}
        return web.json_response(found, headers=head)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """An event a token; the last one has the whole text and the counts."""
        body, said = await request.json(), Said()
        if refused := _refused_by_tgi(body):
            return refused
        answer = await opened(request, "text/event-stream")
        last: dict[str, Any] | None = None
        try:
            async for text in self.pieces(*self._about(said, body)):
                if last is not None:
                    await event(answer, last)
                if said.pieces - 1 == self.cut_after:
                    assert request.transport is not None
                    request.transport.close()
                    return answer
                token = {"id": 1, "text": text, "logprob": -0.5, "special": False}
                last = {"index": said.pieces, "token": token, "generated_text": None, "details": None}
        except RuntimeError as error:
            await event(answer, {"error": str(error), "error_type": "generation"})
            return answer
        details = {**_details(said), "input_length": said.usage["prompt_tokens"]}
        await event(answer, {**(last or {}), "generated_text": said.text, "details": details})
        return answer

    def _about(self, said: Said, body: Mapping[str, Any]) -> tuple[Any, ...]:
        parameters = body["parameters"]
        sampling = parameters if parameters.get("do_sample") else {**parameters, "temperature": 0}
        return self.backends["q8_0"], said, body["inputs"], parameters["max_new_tokens"], sampling


def _refused_by_tgi(body: Mapping[str, Any]) -> web.Response | None:
    """Its refusal of settings that are off."""
    parameters = body["parameters"]
    if parameters.get("temperature", 1) > 0 and 0 < parameters.get("top_p", 0.5) < 1:
        return None
    said = {"error": "Input validation error: `temperature` must be strictly positive", "error_type": "validation"}
    return web.json_response(said, status=422)


def _details(said: Said) -> dict[str, Any]:
    reason = said.reason if said.reason == "length" else "eos_token"
    return {"finish_reason": reason, "generated_tokens": said.tokens, "seed": None}


FAILED = {
    "/v1/messages": ("error", {"type": "error", "error": {"type": "api_error", "message": BROKEN}}),
    "/v1/responses": (
        "response.failed",
        {
            "type": "response.failed",
            "response": {
                "object": "response",
                "status": "failed",
                "error": {"code": "server_error", "message": BROKEN},
            },
        },
    ),
    "/completion": ("", {"error": {"code": 500, "message": BROKEN, "type": "server_error"}}),
}
"""How a stream of each API fails: the event's name, and what it holds."""


class NativeApi(Api):
    """llama.cpp's own routes, passed on event by event."""

    def __init__(self) -> None:
        super().__init__({"q8_0": Backend("q8_0")})

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/v1/models", self.models), *(web.post(path, self.passed_on) for path in FAILED)]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """Which models there are; like Anthropic's, its messages want a version and no bearer."""
        return web.json_response({"data": [{"id": "tiny", "type": "model"}]})

    async def passed_on(self, request: web.Request) -> web.StreamResponse:
        """The server's reply, unless it is to break or to be cut."""
        path = request.path[request.path.index("/", 1) :]
        if path == "/v1/messages" and "anthropic-version" not in request.headers:
            return web.json_response({"error": {"message": "anthropic-version: header is required"}}, status=400)
        url = self.backends["q8_0"].engine.endpoint().url + path
        async with aiohttp.ClientSession() as session, session.post(url, data=await request.read()) as reply:
            if reply.content_type != "text/event-stream":
                body = await reply.read()
                return web.Response(body=body, status=reply.status, content_type=reply.content_type)
            answer = await opened(request, "text/event-stream")
            pieces, lines = 0, b""
            async for line in reply.content:
                lines += line
                if line.strip():
                    continue
                if pieces == self.cut_after and b"data:" in lines:
                    assert request.transport is not None
                    request.transport.close()
                    return answer
                await answer.write(lines)
                pieces += b"delta" in lines or b'"stop":false' in lines
                lines = b""
                await asyncio.sleep(self.pause_s)
                if pieces == self.break_after:
                    name, content = FAILED[path]
                    await answer.write((f"event: {name}\n" if name else "").encode())
                    await event(answer, content)
                    return answer
        return answer


class Vectors(Backend):
    """A llama.cpp server for embeddings or rerank. A ranking of `tiny` means nothing, but has the server's form."""

    async def start(self) -> None:
        """Load the model."""
        spec = EngineSpec("llama-server", ModelReference("tiny"), "q8_0")
        (path,) = engines.create(spec).prepare()
        pooling = {"embeddings": "MEAN", "rerank": "RANK"}[self.level]
        kind = {"enum": "llama_pooling_type", "member": f"LLAMA_POOLING_TYPE_{pooling}"}
        parameters = server_parameters(LlamaServerOptions(n_parallel=2), path, "tiny", 512)
        self.server = EmbeddedServer(spec, {}, {**parameters, "embedding": True, "pooling_type": kind}, 60)
        await self.server.start()

    async def stop(self) -> None:
        """End it."""
        await self.server.stop()


class VectorsApi(Api):
    """Embeddings and rankings, each of a server for it."""

    def __init__(self) -> None:
        super().__init__({"embeddings": Vectors("embeddings"), "rerank": Vectors("rerank")})

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        paths = [web.post(f"/v1/{name}", self.passed_on) for name in self.backends]
        return [web.get("/v1/models", self.models), *paths]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """Which models there are."""
        return web.json_response({"data": [{"id": "tiny"}]})

    async def passed_on(self, request: web.Request) -> web.StreamResponse:
        """The server's reply."""
        name = request.path.rpartition("/")[2]
        vectors = self.backends[name]
        assert isinstance(vectors, Vectors)
        url = f"{vectors.server.url}/v1/{name}"
        async with aiohttp.ClientSession() as session, session.post(url, data=await request.read()) as reply:
            return web.Response(body=await reply.read(), status=reply.status, content_type=reply.content_type)


if __name__ == "__main__":
    serve({"tgi": TgiApi, "native": NativeApi, "vectors": VectorsApi})
