"""Servers for tests, run as a program: APIs that are not OpenAI's, spoken over real engines (llama.cpp with `tiny`).

python real_apis.py PORT

Each API is below a path of its own: `/stats`, `/backend` and `/ollama`. POST to its `/manners` forgets what it keeps,
and sets `pause`, the seconds after each piece of a reply, `break_after`, the pieces after which every reply breaks,
`cut_after`, those after which its connection closes, and `tell`: streams say who answered. GET of its `/health` tells
how many `pieces` it has generated.

stats: a cache of whole results by exact prompt, a batch window, the peak memory that was really read, and a metrics
page of its own names. Beyond `most` requests at a time (a manner), it answers 503.
backend: two levels of one model are its backends, chosen by name, by urgency, or by which has less to do.
ollama: `/api/generate`, `/api/chat`, `/api/tags` and `/api/version`, a JSON object a line.

Not the stub server (`harness.drivers.stub`), because what these formats say is true of replies that a model generated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import psutil
from aiohttp import web

import engines
from engines.base import EngineSpec, ModelReference, ServedEngine

MB = 2**20
SAMPLING = ("temperature", "top_p", "top_k", "seed", "stop", "ignore_eos")
BROKEN = "the model ran out of memory"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Backend:
    """A llama.cpp server at one level. busy: requests that it answers now.   peak_bytes: the most memory it was seen
    to take, with this process.   pieces: what it has generated so far.
    """

    level: str
    engine: ServedEngine = field(init=False)
    busy: int = 0
    peak_bytes: int = 0
    pieces: int = 0

    async def start(self) -> None:
        """Load the model."""
        options = {"n_ctx": 512, "n_parallel": 4, "n_threads": 1, "prefix_cache": False}
        made = engines.create(EngineSpec("llama-server", ModelReference("tiny"), self.level, options))
        assert isinstance(made, ServedEngine)
        self.engine = made
        self.pids = [psutil.Process(pid) for pid in (await made.start()).pids] + [psutil.Process()]

    async def stop(self) -> None:
        """Unload it."""
        await self.engine.stop()

    async def generate(
        self, prompt: str, max_tokens: int, sampling: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of a completion, as they come; closing this cancels it."""
        given = {name: sampling[name] for name in SAMPLING if sampling.get(name) is not None}
        body = {"prompt": prompt, "max_tokens": max_tokens, "stream": True, **given}
        body["stream_options"] = {"include_usage": True}
        url = self.engine.endpoint().url + "/v1/completions"
        self.busy += 1
        try:
            async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
                async for line in answer.content:
                    if line.startswith(b"data: {"):
                        yield json.loads(line[6:])
        finally:
            self.busy -= 1
            self.peak_bytes = max(self.peak_bytes, sum(process.memory_info().rss for process in self.pids))


@dataclass
class Said:
    """Reply received so far."""

    text: str = ""
    pieces: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    reason: str = "stop"
    began_s: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the request came in."""
        return time.monotonic() - self.began_s

    @property
    def tokens(self) -> int:
        """Tokens as the engine counts them."""
        return self.usage.get("completion_tokens", 0)


class Api:
    """What the three have in common: backends, and a stream that may break."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self.backends = dict(backends)
        self.behave({})

    def behave(self, manners: Mapping[str, Any]) -> None:
        """Begin anew, with these manners."""
        self.pause_s: float = manners.get("pause", 0.0)
        self.break_after: int | None = manners.get("break_after")
        self.cut_after: int | None = manners.get("cut_after")
        self.tell: bool = manners.get("tell", False)
        for backend in self.backends.values():
            backend.pieces = 0

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of its requests."""
        raise NotImplementedError

    async def manners(self, request: web.Request) -> web.StreamResponse:
        """Begin anew."""
        self.behave(await request.json())
        return web.json_response({})

    async def health(self, request: web.Request) -> web.StreamResponse:
        """How many pieces have been generated."""
        return web.json_response({"pieces": sum(backend.pieces for backend in self.backends.values())})

    def app(self) -> web.Application:
        """Return the application, which runs the engines."""
        app = web.Application()
        app.cleanup_ctx.append(self.running)  # type: ignore[arg-type]
        app.add_routes([*self.routes(), web.post("/manners", self.manners), web.get("/health", self.health)])
        return app

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """Run from the start of the engines to their end."""
        for backend in self.backends.values():
            await backend.start()
        yield
        for backend in self.backends.values():
            await backend.stop()

    async def pieces(
        self, backend: Backend, said: Said, prompt: str, length: int, sampling: Mapping[str, Any]
    ) -> AsyncIterator[str]:
        """The texts of a reply, noted in `said`. Raises RuntimeError where it breaks."""
        async with aclosing(backend.generate(prompt, length, sampling)) as events:  # type: ignore[type-var]
            async for event in events:
                said.usage = event.get("usage") or said.usage
                for choice in event.get("choices", ()):
                    said.reason = choice.get("finish_reason") or said.reason
                    if choice.get("text"):
                        said.text += choice["text"]
                        said.pieces += 1
                        backend.pieces += 1
                        yield choice["text"]
                        await asyncio.sleep(self.pause_s)
                if said.pieces == self.break_after:
                    raise RuntimeError(BROKEN)

    async def whole(self, *about: Any) -> None:
        """Return the whole reply."""
        async for _ in self.pieces(*about):
            pass


async def opened(request: web.Request, kind: str) -> web.StreamResponse:
    """An answer whose body comes piece by piece."""
    answer = web.StreamResponse(headers={"Content-Type": kind})
    await answer.prepare(request)
    return answer


async def event(answer: web.StreamResponse, content: Mapping[str, Any]) -> None:
    """Return a server-sent event."""
    await answer.write(f"data: {json.dumps(content)}\n\n".encode())


class BatchWindow:
    """Holds requests back, so that they enter the engine together: until `most` wait, or the first has for `wait_s`."""

    def __init__(self, most: int = 32, wait_s: float = 0.05) -> None:
        self._most, self._wait_s = most, wait_s
        self._gate: asyncio.Event | None = None
        self.waiting = 0

    async def enter(self) -> None:
        """Come back when the batch begins."""
        if self._gate is None:
            self._gate, self.waiting = asyncio.Event(), 0
            asyncio.get_running_loop().call_later(self._wait_s, self._open, self._gate)
        gate = self._gate
        self.waiting += 1
        if self.waiting >= self._most:
            self._open(gate)
        await gate.wait()

    def _open(self, gate: asyncio.Event) -> None:
        if self._gate is gate:
            self.waiting = 0
        gate.set()
        self._gate = None if self._gate is gate else self._gate


class StatsApi(Api):
    """POST /generate and /generate/stream with statistics."""

    def __init__(self) -> None:
        super().__init__({"q8_0": Backend("q8_0")})
        self._window = BatchWindow()

    def behave(self, manners: Mapping[str, Any]) -> None:
        """The cache is empty again."""
        super().behave(manners)
        self._most: int | None = manners.get("most")
        self._results: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/generate", self.generate),
            web.post("/generate/stream", self.stream),
            web.get("/metrics", self.metrics),
        ]

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Prometheus' text: requests that are generated, and that wait for their batch."""
        running = f"gpt2_active_requests {self.backends['q8_0'].busy}"
        return web.Response(text=f"{running}\ngpt2_queued_requests {self._window.waiting}\n")

    def _full(self) -> web.StreamResponse | None:
        if self._most is None or self.backends["q8_0"].busy + self._window.waiting < self._most:
            return None
        return web.json_response({"error": "too many requests at a time"}, status=503)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """A whole reply, from the cache where the same was asked before."""
        if full := self._full():
            return full
        body = await request.json()
        known = self._results.get(_key(body))
        if known is not None:
            return web.json_response({**known, "cached": True})
        said = Said()
        try:
            await self.whole(*await self._about(said, body))
        except RuntimeError as error:
            return web.json_response({"error": str(error)}, status=500)
        return web.json_response({**self._result(body, said), "cached": False})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Stream the reply; a cached one comes in one piece."""
        if full := self._full():
            return full
        body = await request.json()
        answer = await opened(request, "text/event-stream")
        known = self._results.get(_key(body))
        if known is not None:
            await event(answer, {**known, "cached": True, "done": True})
            return answer
        said = Said()
        try:
            async for text in self.pieces(*await self._about(said, body)):
                await event(answer, {"token": text})
        except RuntimeError as error:
            await event(answer, {"error": str(error)})
            return answer
        result = self._result(body, said)
        await event(answer, {"generation_stats": result["generation_stats"], "cached": False, "done": True})
        return answer

    async def _about(self, said: Said, body: Mapping[str, Any]) -> tuple[Any, ...]:
        await self._window.enter()
        config = body.get("generation_config") or {}
        sampling = {**config, "ignore_eos": config.get("min_new_tokens") is not None or None}
        return self.backends["q8_0"], said, body["prompt"], config.get("max_new_tokens", 16), sampling

    def _result(self, body: Mapping[str, Any], said: Said) -> dict[str, Any]:
        stats = {
            "prompt_tokens": said.usage.get("prompt_tokens", 0),
            "generated_tokens": said.tokens,
            "total_time_ms": said.seconds * 1000,
            "tokens_per_second": said.tokens / said.seconds,
            "memory_peak_mb": self.backends["q8_0"].peak_bytes / MB,
        }
        about = {"prompt": body["prompt"], "model_name": body.get("model_name") or "tiny"}
        found = {"generated_text": said.text, **about, "generation_stats": stats}
        self._results[_key(body)] = found
        return found


def _key(body: Mapping[str, Any]) -> str:
    return json.dumps([body["prompt"], body.get("generation_config")], sort_keys=True)


class BackendApi(Api):
    """POST /generate and /generate/stream of a platform that chooses between backends."""

    def __init__(self) -> None:
        super().__init__({"llama_cpp": Backend("q8_0"), "llama_cpp_small": Backend("q4_0")})

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post("/generate", self.generate), web.post("/generate/stream", self.stream)]

    def _chosen(self, body: Mapping[str, Any]) -> str:
        wanted = body.get("backend", "auto")
        if wanted == "auto":
            idle = min(self.backends, key=lambda name: self.backends[name].busy)
            return "llama_cpp_small" if body.get("urgency") == "high" else idle
        if wanted not in self.backends:
            raise web.HTTPBadRequest(text=json.dumps({"error": f"there is no backend {wanted} here"}))
        return str(wanted)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """A whole reply, with the name of the backend."""
        body = await request.json()
        name, said = self._chosen(body), Said()
        try:
            await self.whole(self.backends[name], said, body["prompt"], body.get("max_tokens", 16), body)
        except RuntimeError as error:
            return web.json_response({"error": str(error)}, status=500)
        told = {"backend_used": name, "generation_time": said.seconds}
        return web.json_response({"text": said.text, **told, "tokens_per_second": said.tokens / said.seconds})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Stream the reply. The last event only marks the end or, with `tell`, names the backend."""
        body = await request.json()
        name, said = self._chosen(body), Said()
        answer = await opened(request, "text/event-stream")
        try:
            async for text in self.pieces(self.backends[name], said, body["prompt"], body.get("max_tokens", 16), body):
                await event(answer, {"token": text})
        except RuntimeError as error:
            await event(answer, {"error": str(error)})
            return answer
        told = {"backend_used": name, "generation_time": said.seconds} if self.tell else {}
        await event(answer, {"done": True, **told})
        return answer


class OllamaApi(Api):
    """Ollama's own API with one model, `tiny:latest`."""

    def __init__(self) -> None:
        super().__init__({"q8_0": Backend("q8_0")})

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/api/version", self.version),
            web.get("/api/tags", self.tags),
            web.post("/api/generate", self.generate),
            web.post("/api/chat", self.chat),
        ]

    async def version(self, request: web.Request) -> web.StreamResponse:
        """Which version this is."""
        return web.json_response({"version": "0.0.1"})

    async def tags(self, request: web.Request) -> web.StreamResponse:
        """Which models there are."""
        details = {"quantization_level": "Q8_0", "family": "llama"}
        return web.json_response({"models": [{"name": "tiny:latest", "details": details}]})

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """A prompt as it is."""
        body = await request.json()
        return await self._answer(request, body, body["prompt"], lambda text: {"response": text})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Messages, one under the other: `tiny` has no template."""
        body = await request.json()
        prompt = "\n".join(message["content"] for message in body["messages"])
        return await self._answer(
            request, body, prompt, lambda text: {"message": {"role": "assistant", "content": text}}
        )

    async def _answer(
        self, request: web.Request, body: Mapping[str, Any], prompt: str, said_as: Callable[[str], dict[str, Any]]
    ) -> web.StreamResponse:
        if body["model"] not in ("tiny", "tiny:latest"):
            return web.json_response({"error": f"model '{body['model']}' not found"}, status=404)
        said, options = Said(), body.get("options") or {}
        about = (self.backends["q8_0"], said, prompt, options.get("num_predict", 16), options)
        if not body.get("stream", True):
            await self.whole(*about)
            return web.json_response({**self._line(body, said_as(said.text), done=True), **_counts(said)})
        answer = await opened(request, "application/x-ndjson")
        try:
            async for text in self.pieces(*about):
                await answer.write(json.dumps(self._line(body, said_as(text), done=False)).encode() + b"\n")
        except RuntimeError as error:
            await answer.write(json.dumps({"error": str(error)}).encode() + b"\n")
            return answer
        last = {**self._line(body, said_as(""), done=True), **_counts(said)}
        await answer.write(json.dumps(last).encode() + b"\n")
        return answer

    def _line(self, body: Mapping[str, Any], said: Mapping[str, Any], *, done: bool) -> dict[str, Any]:
        return {"model": body["model"], "created_at": datetime.now(UTC).isoformat(), **said, "done": done}


def _counts(said: Said) -> dict[str, Any]:
    return {
        "done_reason": said.reason,
        "total_duration": round(said.seconds * 1e9),
        "prompt_eval_count": said.usage.get("prompt_tokens", 0),
        "eval_count": said.tokens,
    }


APIS: dict[str, Callable[[], Api]] = {"stats": StatsApi, "backend": BackendApi, "ollama": OllamaApi}


def serve(apis: Mapping[str, Callable[[], Api]]) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    given = parser.parse_args()
    app = web.Application()
    for name, api in apis.items():
        app.add_subapp(f"/{name}", api().app())
    web.run_app(app, host="127.0.0.1", port=given.port, handler_cancellation=True, print=None)


if __name__ == "__main__":
    serve(APIS)
