"""An engine, found as a plug-in: llama.cpp's server, whose later requests wait until a file exists."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engines.base import Endpoint, EngineInfo, EngineSpec, Scores
from engines.llamacpp.server import LlamaServer
from engines.llamacpp.server_scores import score_by_server
from tests.relay import Relay

PACE_S = 0.1


class Held(LlamaServer):
    """Option `hold`: {level, requests, until, head}; at other levels it is llama.cpp's server and nothing else."""

    def __init__(self, spec: EngineSpec) -> None:
        hold = dict(spec.options["hold"])
        options = {name: value for name, value in spec.options.items() if name != "hold"}
        super().__init__(replace(spec, engine="llama-server", options=options))
        self._hold = hold if hold.pop("level") == spec.level else None
        self._relay: Relay | None = None

    async def start(self) -> EngineInfo:
        """The server, then the way to it."""
        info = await super().start()
        if self._hold is not None:
            port = int(super().endpoint().url.rpartition(":")[2])
            until = Path(self._hold["until"])
            self._relay = Relay(port, self._hold["requests"], until, head=self._hold["head"], pace_s=PACE_S)
            self._relay.start()
        return info

    def endpoint(self) -> Endpoint:
        """Where the server listens, or where the way to it begins."""
        own = super().endpoint()
        return own if self._relay is None else replace(own, url=self._relay.url)

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Score by the same way as requests."""
        return await asyncio.to_thread(score_by_server, partial(answer, self.endpoint().url), tokens, first)

    async def stop(self) -> None:
        """The way first."""
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        await super().stop()


def answer(url: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the JSON that a server answers."""
    request = urllib.request.Request(url + path, None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as reply:
        found: dict[str, Any] = json.load(reply)
    return found
