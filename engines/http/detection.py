"""Detection of the dialect and the model of a running server: each dialect is asked for one token until one answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.base import ChunkKind, EngineSpec, Request, StartFailed
from engines.dialects import get as dialect_of
from engines.http.engine import HttpEngine, HttpOptions
from engines.http.pages import Pages, open_pages

GENERATED = frozenset({ChunkKind.CONTENT, ChunkKind.REASONING, ChunkKind.TOOL})
PROOFS = {"generate-stats": frozenset({ChunkKind.USAGE})}  # its text alone could be generate-backend's
ONE_TOKEN = Request("Hi", max_tokens=1)


@dataclass(frozen=True, slots=True)
class Detected:
    """Dialect in which a server answers, and the name of its model; None if it has none."""

    dialect: str
    served_model: str | None


async def detect(
    url: str, *, dialect: str | None = None, served_model: str | None = None, api_key: str | None = None
) -> Detected:
    """Return the dialect and the model of the server at an address; what is given is believed.

    Raises StartFailed, one sentence, if the server does not answer, serves several models, refuses the key, or answers
    in no dialect.
    """
    base = HttpOptions(url=url).urls[0]
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with open_pages(base, headers=headers, tls={}, proxy=None) as pages:
        names = [dialect] if dialect is not None else await _likely(pages)
        model = await _model(url, names[0], served_model, api_key)
        return Detected(names[0] if dialect is not None else await _answering(pages, names, model), model)


async def _likely(pages: Pages) -> Sequence[str]:
    """Return the dialects to try in turn: chat first, and Ollama's only where the server says that it is one."""
    if "version" in await pages.optional("/api/version"):
        return ("ollama-chat", "ollama-generate")
    return ("openai-chat", "openai-completions", "generate-stats", "generate-backend")


async def _model(url: str, dialect: str, served_model: str | None, api_key: str | None) -> str | None:
    """Return the model that the engine finds at the server."""
    stated = {} if served_model is None else {"served_model": served_model}
    options = {"url": url, "dialect": dialect, **stated}
    engine = HttpEngine(EngineSpec("http", options=options, api_key=api_key))
    try:
        return (await engine.start()).model
    finally:
        await engine.stop()


async def _answering(pages: Pages, names: Sequence[str], model: str | None) -> str:
    """Return the first dialect in which text comes back, or else the first in which a reply ends without any."""
    silent, wrong = [], []
    for name in names:
        dialect = dialect_of(name)
        response = await pages.send(dialect.encode(ONE_TOKEN, model))
        if response.status != 200:
            wrong.append(f"{name}: HTTP {response.status}")
            continue
        chunks = {piece.chunk.kind: piece.chunk for piece in dialect.decode(response)}
        if ChunkKind.ERROR in chunks:
            wrong.append(f"{name}: {chunks[ChunkKind.ERROR].text}")
        elif chunks.keys() & PROOFS.get(name, GENERATED):
            return name
        else:
            silent.append(name)
    if not silent:
        raise StartFailed(f"{pages.url} answers in no dialect ({'; '.join(wrong)}); name one with --dialect")
    return silent[0]
