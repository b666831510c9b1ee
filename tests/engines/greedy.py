"""Greedy continuations by any engine, for tests that compare engines."""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path
from typing import Any

import engines
from engines.base import EngineSpec, InProcessEngine, Request, ServedEngine, collect

HELD_OUT = Path(engines.__file__).parent / "models" / "tiny" / "heldout.txt"


def prompts(count: int, tokens: int) -> list[tuple[int, ...]]:
    """Token ids of `tiny`, which are bytes, from places spread evenly over the text that it was not trained on."""
    text = HELD_OUT.read_bytes()
    last = len(text) - tokens
    return [tuple(text[start : start + tokens]) for start in (last * number // (count - 1) for number in range(count))]


def continuations(spec: EngineSpec, given: list[tuple[int, ...]], tokens: int) -> list[bytes]:
    """Return an engine's greedy continuation of each prompt, with an exact number of tokens."""
    return asyncio.run(_continuations(spec, given, tokens))


async def _continuations(spec: EngineSpec, given: list[tuple[int, ...]], tokens: int) -> list[bytes]:
    engine = engines.create(spec)
    await asyncio.to_thread(engine.prepare)
    try:
        await engine.start()
        return await continued(engine, given, tokens)
    finally:
        await engine.stop()


async def continued(engine: Any, given: list[tuple[int, ...]], tokens: int) -> list[bytes]:
    """Return the continuations by an engine that runs."""
    return [await _continuation(engine, prompt, tokens) for prompt in given]


async def _continuation(engine: Any, prompt: tuple[int, ...], tokens: int) -> bytes:
    if isinstance(engine, InProcessEngine):
        request = Request(prompt, tokens, exact=True, sampling={"temperature": 0})
        return "".join([chunk.text for chunk in await collect(engine.generate(request))]).encode()
    assert isinstance(engine, ServedEngine)
    endpoint = engine.endpoint()
    return await asyncio.to_thread(_completion, endpoint.url, endpoint.model, prompt, tokens)


def _completion(url: str, model: str | None, prompt: tuple[int, ...], tokens: int) -> bytes:
    body = {"model": model, "prompt": list(prompt), "max_tokens": tokens, "min_tokens": tokens}
    body |= {"temperature": 0, "ignore_eos": True}
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return str(answer["choices"][0]["text"]).encode()
