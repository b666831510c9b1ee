"""Detection of the dialect and the model of a running server: each dialect is asked for one token until one answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engines.base import Chunk, ChunkKind, EngineSpec, Request, StartFailed
from engines.dialects import get as dialect_of
from engines.dialects.base import Dialect
from engines.http.engine import HttpEngine, HttpOptions
from engines.http.pages import Pages, open_pages

GENERATED = frozenset({ChunkKind.CONTENT, ChunkKind.REASONING, ChunkKind.TOOL})
PROOFS = {"generate-stats": frozenset({ChunkKind.USAGE})}  # its text alone could be generate-backend's
OLLAMA = ("ollama-chat", "ollama-generate")
USUAL = (
    "openai-chat",
    "openai-completions",
    "anthropic-messages",
    "openai-responses",
    "generate-stats",
    "generate-backend",
    "tgi",
    "llamacpp-completion",
    "openai-embeddings",
    "rerank",
)  # in the order in which they are tried
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
    names = [dialect] if dialect is not None else await _likely(base, api_key)
    model = await _model(url, names[0], served_model, api_key)
    return Detected(dialect or await _answering(base, names, model, api_key), model)


async def _likely(base: str, api_key: str | None) -> Sequence[str]:
    """Return the dialects to try in turn: chat first, and Ollama's only where the server says that it is one."""
    headers = dialect_of(OLLAMA[0]).key_headers(api_key) if api_key else {}
    async with open_pages(base, headers=headers, tls={}, proxy=None) as pages:
        return OLLAMA if "version" in await pages.optional("/api/version") else USUAL


async def _model(url: str, dialect: str, served_model: str | None, api_key: str | None) -> str | None:
    """Return the model that the engine finds at the server."""
    stated = {} if served_model is None else {"served_model": served_model}
    options = {"url": url, "dialect": dialect, **stated}
    engine = HttpEngine(EngineSpec("http", options=options, api_key=api_key))
    try:
        return (await engine.start()).model
    finally:
        await engine.stop()


async def _answering(base: str, names: Sequence[str], model: str | None, api_key: str | None) -> str:
    """Return the first dialect in which a result comes back, or else the first in which a reply ends without one."""
    silent, wrong = [], []
    async with open_pages(base, headers={}, tls={}, proxy=None) as pages:
        for name in names:
            chunks, why = await _reply(pages, dialect_of(name), model, api_key)
            if why is not None:
                wrong.append(f"{name}: {why}")
            elif _is_proof(name, chunks):
                return name
            else:
                silent.append(name)
    if not silent:
        raise StartFailed(f"{base} answers in no dialect ({'; '.join(wrong)}); name one with --dialect")
    return silent[0]


async def _reply(
    pages: Pages, dialect: Dialect, model: str | None, api_key: str | None
) -> tuple[Mapping[ChunkKind, Chunk], str | None]:
    """Return the last chunk of each kind in a reply, and why it is none of this dialect; None if it is one."""
    request = dialect.encode(ONE_TOKEN, model)
    keyed = dialect.key_headers(api_key) if api_key else {}
    response = await pages.send(replace(request, headers={**request.headers, **keyed}))
    if response.status != 200:
        return {}, f"HTTP {response.status}"
    chunks = {piece.chunk.kind: piece.chunk for piece in dialect.decode(response)}
    error = chunks.get(ChunkKind.ERROR)
    return chunks, None if error is None else error.text


def _is_proof(name: str, chunks: Mapping[ChunkKind, Chunk]) -> bool:
    """Return True if a reply holds what only this dialect returns; several end without text."""
    if not dialect_of(name).generates:
        return ChunkKind.FINISH in chunks
    return bool(chunks.keys() & PROOFS.get(name, GENERATED))
