"""Any server that runs already, or that a command starts, in any dialect."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from engines.base import Endpoint, EngineError, EngineInfo, EngineSpec, StartFailed
from engines.dialects import DIALECTS
from engines.options import read_options
from engines.server_process import READY_LIMIT_S, READY_POLL_S, ServerCommand, ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

DEFAULT_DIALECT = "openai-completions"
ANSWER_LIMIT_S = 10.0
_READY_KEYS = frozenset({"path", "timeout_s"})


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Where the server is and how to talk to it.

    url: base address of a server that runs already; or command: what starts one (see `engines.server_process`).
    ready: {path, timeout_s}.   stop: run after the command has ended.   served_model: the name to put in requests.
    """

    dialect: str = DEFAULT_DIALECT
    url: str | None = None
    command: str | None = None
    ready: Mapping[str, Any] | None = None
    stop: str | None = None
    served_model: str | None = None

    def __post_init__(self) -> None:
        if (self.url is None) == (self.command is None):
            raise ValueError("write either url (a server that runs) or command (which starts one)")
        if self.dialect not in DIALECTS:
            near = get_close_matches(self.dialect, DIALECTS, n=1) or sorted(DIALECTS)
            raise ValueError(f"there is no dialect {self.dialect!r}; did you mean {' or '.join(near)}?")
        if self.ready is not None and not set(self.ready) <= _READY_KEYS:
            raise ValueError(f"ready is written {{path: /health, timeout: 5m}}, not {dict(self.ready)!r}")


@dataclass(frozen=True, slots=True)
class _Page:
    """What a GET brought: status, whether it is HTML, and the JSON object in it (None: it is none)."""

    status: int
    html: bool
    content: dict[str, Any] | None


class HttpEngine:
    """See the module; implements `engines.base.ServedEngine`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._options = read_options(HttpOptions, spec.options, "http")
        self._server = self._server_process()
        self._url = "" if self._options.url is None else _base(self._options.url)
        self._model: str | None = None
        self._running = False

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """No say: the server decides what it serves."""
        return ()

    def prepare(self) -> Sequence[Path]:
        """Nothing to build, no weight files that we know of."""
        return ()

    async def start(self) -> EngineInfo:
        """Start the server where there is a command, wait for it, and ask it which model it serves.

        Raises StartFailed, one sentence: it does not answer, is no API, refuses the key, or serves another model.
        """
        if self._server is not None:
            await self._server.start()
            self._url = self._server.url
        async with self._session() as session:
            if self._server is None and self._options.ready is not None:
                await self._wait_until_ready(session)
            models = await self._served_models(session)
            self._model = self._choose_model(models)
            version = await self._version(session)
            context_tokens = await self._context_tokens(session, models)
        self._running = True
        return EngineInfo(
            name="http",
            version=version,
            model=self._model,
            context_tokens=context_tokens,
            pids=self._server.pids() if self._server is not None else (),
            options={**asdict(self._options), "url": self._url},
        )

    async def stop(self) -> None:
        """End the server if we started it."""
        self._running = False
        if self._server is not None:
            await self._server.stop()

    def endpoint(self) -> Endpoint:
        """Where the client sends; EngineError before start()."""
        if not self._running:
            raise EngineError("the http engine is not running; call start() first")
        return Endpoint(self._url, self._options.dialect, self._model, self._headers())

    def alive(self) -> str | None:
        """Why our server ended; None while it runs, and for a server that is not ours."""
        return self._server.alive() if self._server is not None else None

    def _server_process(self) -> ServerProcess | None:
        options = self._options
        if options.command is None:
            return None
        ready = options.ready or {}
        command = ServerCommand(
            command=options.command,
            model=self._spec.model.name if self._spec.model else None,
            env=self._spec.env,
            headers=self._headers(),
            ready_path=ready.get("path"),
            ready_timeout_s=float(ready.get("timeout_s", READY_LIMIT_S)),
            stop=options.stop,
            log_path=self._spec.log_path,
        )
        return ServerProcess(command)

    def _headers(self) -> dict[str, str]:
        key = self._spec.api_key
        return {**self._spec.headers, **({"Authorization": f"Bearer {key}"} if key else {})}

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)
        async with aiohttp.ClientSession(headers=self._headers(), timeout=timeout) as session:
            yield session

    async def _wait_until_ready(self, session: aiohttp.ClientSession) -> None:
        """Poll the page of `ready` until it answers 200."""
        ready = self._options.ready or {}
        url, limit_s = self._url + ready.get("path", "/health"), float(ready.get("timeout_s", READY_LIMIT_S))
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + limit_s
        while True:
            try:
                found = f"status {(await self._get(session, url)).status}"
            except StartFailed as error:
                found = str(error)
            if found == "status 200":
                return
            if loop.time() >= give_up_at:
                raise StartFailed(f"{url} did not answer 200 within {limit_s:g} s: {found}")
            await asyncio.sleep(READY_POLL_S)

    async def _served_models(self, session: aiohttp.ClientSession) -> dict[str, dict[str, Any]] | None:
        """id -> entry of the server's list of models; None where it has no such list."""
        path = "/v1/models" if self._options.dialect.startswith("openai") else ""
        url = self._url + path
        page = await self._get(session, url)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + READY_LIMIT_S
        while page.status == HTTPStatus.SERVICE_UNAVAILABLE and self._loading() and loop.time() < give_up_at:
            await asyncio.sleep(READY_POLL_S)
            page = await self._get(session, url)
        if page.status in (401, 403):
            raise StartFailed(
                f"{url} refused us (status {page.status}); name the variable of a valid key in api_key_env"
            )
        if not path or page.status == 404:
            return None
        if page.html:
            raise StartFailed(f"{url} answered with an HTML page; set url to the base address of the API")
        entries = page.content.get("data") if page.content is not None else None
        if page.status != 200 or not isinstance(entries, list):
            raise StartFailed(
                f"{url} did not list its models (status {page.status}); set url to the base address of the API"
            )
        return {str(entry["id"]): entry for entry in entries if isinstance(entry, dict) and "id" in entry}

    def _loading(self) -> bool:
        """Whether a 503 only means that our own server, of which no page tells when it is ready, still loads."""
        return self._server is not None and self._options.ready is None and self._server.alive() is None

    def _choose_model(self, models: Mapping[str, Any] | None) -> str | None:
        """The name to put in requests, checked against what the server says it serves."""
        stated = self._options.served_model
        wanted = stated or (self._spec.model.name if self._spec.model else None)
        if not models or wanted in models:
            return wanted
        if wanted is None:
            if len(models) == 1:
                return next(iter(models))
            raise StartFailed(f"the server at {self._url} serves {_listed(models)}; set served_model to one of them")
        same = [name for name in models if _stem(name) == _stem(wanted)]
        if stated is None and len(same) == 1:
            return same[0]
        near = get_close_matches(wanted, models, n=3, cutoff=0.4) or list(models)[:10]
        what = f"the server at {self._url} does not serve {wanted!r}"
        raise StartFailed(f"{what}; set served_model to what is meant, such as {_listed(near)}")

    async def _version(self, session: aiohttp.ClientSession) -> str | None:
        """The server's version where it tells: vLLM on /version, llama.cpp in /props."""
        for path, key in (("/version", "version"), ("/props", "build_info")):
            content = await self._optional(session, path)
            if isinstance(content.get(key), str):
                return str(content[key])
        return None

    async def _context_tokens(
        self, session: aiohttp.ClientSession, models: Mapping[str, dict[str, Any]] | None
    ) -> int | None:
        """Context in use: vLLM's max_model_len, llama.cpp's n_ctx per slot."""
        length = (models or {}).get(self._model or "", {}).get("max_model_len")
        if not isinstance(length, int):
            settings = (await self._optional(session, "/props")).get("default_generation_settings")
            length = settings.get("n_ctx") if isinstance(settings, dict) else None
        return length if isinstance(length, int) else None

    async def _optional(self, session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
        """The JSON object of a page that a server may have; empty where it has none."""
        try:
            page = await self._get(session, self._url + path)
        except StartFailed:
            return {}
        return page.content or {} if page.status == 200 else {}

    async def _get(self, session: aiohttp.ClientSession, url: str) -> _Page:
        import aiohttp

        try:
            async with session.get(url, allow_redirects=False) as response:
                body = await response.read()
                return _Page(response.status, _is_html(response.content_type, body), _object(body))
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise StartFailed(
                f"no secure connection to {url}: {error}; trust its certificate with SSL_CERT_FILE, or write http://"
            ) from error
        except TimeoutError as error:
            raise StartFailed(
                f"{url} did not answer within {ANSWER_LIMIT_S:g} s; is the server busy or hanging?"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise StartFailed(f"no server answers at {url}: {error}; start it, or correct url") from error


def _base(url: str) -> str:
    """The address without a trailing slash and without /v1, which the dialects add."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _stem(name: str) -> str:
    return PurePosixPath(urlsplit(name).path).name.lower().removesuffix(".gguf")


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(repr(name) for name in list(names)[:10]) + (", ..." if len(names) > 10 else "")


def _is_html(content_type: str, body: bytes) -> bool:
    return content_type == "text/html" or body[:100].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
