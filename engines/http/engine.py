"""External server, or one that a command starts, in any dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from engines.base import Endpoint, EngineError, EngineInfo, EngineSpec, StartFailed, check_header
from engines.dialects import DIALECTS
from engines.dialects import get as dialect_of
from engines.http.addresses import Address, check_proxy, is_loopback
from engines.http.pages import Pages, open_pages
from engines.options import read_options
from engines.process.placeholders import problem_with
from engines.process.server import READY_LIMIT_S, READY_POLL_S, ServerCommand, ServerProcess
from engines.secrets import hide

DEFAULT_DIALECT = "openai-completions"
_NO_PAGES = ("ollama",)  # dialects of servers without Prometheus pages
_RESETS = {"vllm": "/reset_prefix_cache", "sglang": "/flush_cache"}
_USUAL_VERSIONS = (("/version", "version"), ("/props", "build_info"))
_VERSIONS = {"ollama": (("/api/version", "version"),), "tgi": (("/info", "version"),)}
_V1_MODELS = ("/v1/models", "data", "id")
_MODEL_LISTS = {
    **dict.fromkeys(("anthropic", "llamacpp", "openai", "rerank", "tgi"), _V1_MODELS),
    "ollama": ("/api/tags", "models", "name"),
}


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Address of the server and its wire format."""

    dialect: str = DEFAULT_DIALECT
    url: str | Sequence[str] | None = None  # of a running server; several with one model share the requests
    command: str | None = None  # starts a server (see `engines.process.server`), instead of `url`
    ready: Mapping[str, Any] | None = None  # {path, timeout_s}
    stop: str | None = None  # command to run after `command` has ended
    served_model: str | None = None  # name to put in requests
    headers: Mapping[str, Any] = field(default_factory=dict)  # extra ones, not secret
    tls: Mapping[str, Any] = field(default_factory=dict)  # files under `ca`, `cert`, `key`; `verify`
    proxy: str | None = None  # address, or "none"; None follows the environment
    request: Mapping[str, Any] = field(default_factory=dict)  # extra fields of each body; None leaves one out
    rename: Mapping[str, str] = field(default_factory=dict)  # of the body's fields, if the server's names differ

    @property
    def urls(self) -> tuple[str, ...]:
        """Base addresses without /v1, which the dialects add; () if a command starts the server."""
        listed = (self.url,) if isinstance(self.url, str) else tuple(self.url or ())
        return tuple(url.rstrip("/").removesuffix("/v1").rstrip("/") for url in listed)

    def __post_init__(self) -> None:
        if (self.url is None) == (self.command is None):
            raise ValueError("write either url (a running server) or command (to start one)")
        if self.dialect not in DIALECTS:
            near = get_close_matches(self.dialect, DIALECTS, n=1) or sorted(DIALECTS)
            raise ValueError(f"there is no dialect {self.dialect!r}; did you mean {' or '.join(near)}?")
        dialect_of(self.dialect, self.request, self.rename)
        if self.ready is not None and not set(self.ready) <= {"path", "timeout_s"}:
            raise ValueError(f"ready is written {{path: /health, timeout: 5m}}, not {dict(self.ready)!r}")
        for name, text in (("command", self.command), ("stop", self.stop)):
            if text is not None and (why := problem_with(text)) is not None:
                raise ValueError(f"{name} has an {why}")
        if self.url is not None and not self.urls:
            raise ValueError("url is empty; write the address of the server")
        addresses = [Address.of(url) for url in self.urls]
        if self.tls and not any(address.secure for address in addresses):
            raise ValueError("tls is for a url that begins with https://")
        if self.proxy is not None:
            check_proxy(self.proxy)
        for name, value in self.headers.items():
            check_header(name, str(value))


@dataclass(frozen=True, slots=True)
class _Server:
    """Facts that a server reports about itself; None where it reports none."""

    model: str | None
    version: str | None
    context_tokens: int | None
    level: str | None = None
    reset_path: str | None = None
    notes: tuple[str, ...] = ()


class _ListRefused(StartFailed):
    """List of models that a server does not give, or not in a form that can be read."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}; {advice}")
        self.what = what


class HttpEngine:
    """Engine `http`; implements `engines.base.ServedEngine`."""

    def __init__(self, spec: EngineSpec) -> None:
        hide(spec.api_key, *spec.headers.values())
        self._spec = spec
        self._options = read_options(HttpOptions, spec.options, "http")
        self._server = self._server_process()
        self._urls = self._options.urls
        self._model: str | None = None
        self._resets: list[str | None] = []
        self._running = False

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        return ()  # the server decides

    def prepare(self) -> Sequence[Path]:
        return ()  # no weight files are known

    async def start(self) -> EngineInfo:
        """Start the server if there is a command, wait for it, and request the model it serves.

        Raises StartFailed if it does not answer, is no API, refuses the key, or serves another model.
        """
        if self._server is not None:
            await self._server.start()
            self._urls = (self._server.url,)
        servers = [await self._inspect(url) for url in self._urls]
        self._model = servers[0].model
        self._resets = [server.reset_path for server in servers]
        for url, server in zip(self._urls, servers, strict=True):
            if server.model != self._model:
                what = f"{self._urls[0]} serves {self._model!r}, {url} serves {server.model!r}"
                raise StartFailed(f"{what}; requests are spread only over servers of one model")
        versions = dict.fromkeys(server.version for server in servers if server.version is not None)
        context_tokens = [server.context_tokens for server in servers if server.context_tokens is not None]
        self._running = True
        return EngineInfo(
            name="http",
            version=", ".join(versions) or None,
            model=self._model,
            level=servers[0].level if len({server.level for server in servers}) == 1 else None,
            context_tokens=min(context_tokens, default=None),
            pids=self._server.pids() if self._server is not None else (),
            options={**asdict(self._options), "url": self._urls[0] if len(self._urls) == 1 else list(self._urls)},
            metrics_urls=_metrics_pages(self._urls, self._options.dialect),
            notes=tuple(note for server in servers for note in server.notes),
        )

    async def reset_cache(self) -> bool | None:
        """Clear the prefix cache of servers that identify as vLLM or SGLang; None if one has no such function.

        vLLM has it in its development mode only.
        """
        if None in self._resets or not self._resets:
            return None
        statuses = []
        for url, path in zip(self._urls, self._resets, strict=True):
            async with self._open_pages(url) as pages:
                statuses.append(await pages.post(str(path)))
        return all(status == HTTPStatus.OK for status in statuses)

    async def stop(self) -> None:
        self._running = False
        if self._server is not None:
            await self._server.stop()

    def endpoint(self) -> Endpoint:
        """Return the address for the load generator. Raises EngineError before start()."""
        if not self._running:
            raise EngineError("the http engine is not running; call start() first")
        options = self._options
        return Endpoint(
            self._urls[0],
            options.dialect,
            self._model,
            self._headers(),
            others=self._urls[1:],
            tls=options.tls,
            proxy=options.proxy,
            request=options.request,
            rename=options.rename,
        )

    def alive(self) -> str | None:
        """Return why our server ended; None while it runs, and for an external server."""
        return self._server.alive() if self._server is not None else None

    def _server_process(self) -> ServerProcess | None:
        options = self._options
        if options.command is None:
            return None
        ready = options.ready or {}
        command = ServerCommand(
            command=options.command,
            model=self._spec.model.name if self._spec.model else None,
            labels=self._spec.labels,
            env=self._spec.env,
            headers=self._headers(),
            ready_path=ready.get("path"),
            ready_timeout_s=float(ready.get("timeout_s", READY_LIMIT_S)),
            stop=options.stop,
            log_path=self._spec.log_path,
        )
        return ServerProcess(command)

    def _headers(self) -> dict[str, str]:
        """Return the headers of every request. Raises EngineError for an invalid value, naming the header."""
        key = self._spec.api_key
        plain = {name: str(value) for name, value in self._options.headers.items()}
        keyed = dialect_of(self._options.dialect).key_headers(key) if key else {}
        headers = {**plain, **self._spec.headers, **keyed}
        for name, value in headers.items():
            try:
                check_header(name, value)
            except ValueError as error:
                raise EngineError(str(error)) from error
        return headers

    def _open_pages(self, url: str) -> AbstractAsyncContextManager[Pages]:
        headers = {**dialect_of(self._options.dialect).headers, **self._headers()}
        return open_pages(url, headers=headers, tls=self._options.tls, proxy=self._options.proxy)

    async def _inspect(self, url: str) -> _Server:
        """Wait for a server as the scenario states, and request its models."""
        async with self._open_pages(url) as pages:
            if self._server is None and self._options.ready is not None:
                await self._wait_until_ready(pages)
            models, doubt = await self._models_or_doubt(pages)
            model = listed = self._choose_model(models, url)
            if models and model not in models and f"{model}:latest" in models:
                listed = f"{model}:latest"  # Ollama serves it under both names
            if models and listed not in models:
                doubt = f"{url} lists {_listed(models)}"
            notes = () if doubt is None else (f"served_model {model!r} is sent as written, though {doubt}",)
            entry = (models or {}).get(listed or "") or {}
            context_tokens = await self._context_tokens(pages, entry)
            reset_path = _RESETS.get(str(entry.get("owned_by")).lower())
            return _Server(model, await self._version(pages), context_tokens, _level(entry), reset_path, notes)

    async def _wait_until_ready(self, pages: Pages) -> None:
        """Poll the page of `ready` until it answers 200."""
        ready = self._options.ready or {}
        path, limit_s = ready.get("path", "/health"), float(ready.get("timeout_s", READY_LIMIT_S))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        while True:
            try:
                found = f"status {(await pages.get(path)).status}"
            except StartFailed as error:
                found = str(error)
            if found == "status 200":
                return
            if loop.time() >= deadline:
                raise StartFailed(f"{pages.at(path)} did not answer 200 within {limit_s:g} s: {found}")
            await asyncio.sleep(READY_POLL_S)

    async def _models_or_doubt(self, pages: Pages) -> tuple[dict[str, dict[str, Any]] | None, str | None]:
        """Return the server's list of models. A list that cannot be used is a doubt where `served_model` is given."""
        try:
            return await self._served_models(pages), None
        except _ListRefused as refused:
            if self._options.served_model is None:
                raise
            return None, refused.what

    async def _served_models(self, pages: Pages) -> dict[str, dict[str, Any]] | None:
        """Return the server's list of models, id -> entry; None if it has no such list."""
        path, listed, name = _MODEL_LISTS.get(self._options.dialect.partition("-")[0], ("", "", ""))
        url = pages.at(path)
        page = await pages.get(path)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_LIMIT_S
        while page.status == HTTPStatus.SERVICE_UNAVAILABLE and self._loading() and loop.time() < deadline:
            await asyncio.sleep(READY_POLL_S)
            page = await pages.get(path)
        if page.status in (401, 403):
            refused = f"{url} refused the API key (status {page.status})"
            raise _ListRefused(refused, "name the variable of a valid one in api_key_env")
        if not path or page.status == 404:
            return None
        advice = "set url to the base address of the API"
        if self._server is not None:
            advice = f"check the dialect of the server that command starts: it may not be {self._options.dialect!r}"
        if page.html:
            raise _ListRefused(f"{url} answered with an HTML page", advice)
        entries = page.content.get(listed) if page.content is not None else None
        if page.status != 200 or not isinstance(entries, list):
            advice = f"{advice}, or name its model in served_model if it has no list"
            raise _ListRefused(f"{url} did not list its models (status {page.status})", advice)
        return {str(entry[name]): entry for entry in entries if isinstance(entry, dict) and name in entry}

    def _loading(self) -> bool:
        """Return True if a 503 only means that our own server, which has no page for readiness, is loading."""
        return self._server is not None and self._options.ready is None and self._server.alive() is None

    def _choose_model(self, models: Mapping[str, Any] | None, url: str) -> str | None:
        """Return the name to put in requests: `served_model` as written, or that of a model in the server's list."""
        stated = self._options.served_model
        wanted = stated or (self._spec.model.name if self._spec.model else None)
        if stated is not None or not models or wanted in models:
            return wanted
        if wanted is None:
            if len(models) == 1:
                return next(iter(models))
            raise StartFailed(f"the server at {url} serves {_listed(models)}; set served_model to one of them")
        same = [name for name in models if _stem(name) == _stem(wanted)]
        if len(same) == 1:
            return same[0]
        near = get_close_matches(wanted, models, n=3, cutoff=0.4) or list(models)[:10]
        what = f"the server at {url} does not serve {wanted!r}"
        raise StartFailed(f"{what}; set served_model to one that it serves, such as {_listed(near)}")

    async def _version(self, pages: Pages) -> str | None:
        """Return the server's version: vLLM on /version, llama.cpp in /props, Ollama on /api/version, TGI in /info."""
        for path, key in _VERSIONS.get(self._options.dialect.partition("-")[0], _USUAL_VERSIONS):
            content = await pages.optional(path)
            if isinstance(content.get(key), str):
                return str(content[key])
        return None

    async def _context_tokens(self, pages: Pages, entry: Mapping[str, Any]) -> int | None:
        """Return the context in use: vLLM's max_model_len, TGI's max_total_tokens, llama.cpp's n_ctx per slot."""
        length = entry.get("max_model_len")
        if not isinstance(length, int) and self._options.dialect == "tgi":
            length = (await pages.optional("/info")).get("max_total_tokens")
        elif not isinstance(length, int):
            settings = (await pages.optional("/props")).get("default_generation_settings")
            length = settings.get("n_ctx") if isinstance(settings, dict) else None
        return length if isinstance(length, int) else None


def _metrics_pages(urls: Sequence[str], dialect: str) -> tuple[str, ...]:
    """Return possible Prometheus pages of servers on this machine. The scenario must name those of others."""
    if dialect.startswith(_NO_PAGES) or not all(is_loopback(url) for url in urls):
        return ()
    return tuple(Address.of(url).page_url("/metrics") for url in urls)


def _stem(name: str) -> str:
    path = urlsplit(name).path if "://" in name else name  # `qwen:1b` is not a URL
    return PurePosixPath(path).name.lower().removesuffix(".gguf").removesuffix(":latest")


def _level(entry: Mapping[str, Any]) -> str | None:
    """Return the level that Ollama reports for a model, in lower case."""
    details = entry.get("details")
    level = details.get("quantization_level") if isinstance(details, Mapping) else None
    return level.lower() if isinstance(level, str) and level else None


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(repr(name) for name in list(names)[:10]) + (", ..." if len(names) > 10 else "")
