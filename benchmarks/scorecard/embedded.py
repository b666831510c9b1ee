"""Engine `stretched`, a plug-in: llama.cpp's embedded server behind the proxy, which is a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

from benchmarks.scorecard.play import environment
from engines.base import Endpoint, EngineInfo, EngineSpec, StartFailed
from engines.llamacpp.server import LlamaServer

STOP_LIMIT_S = 5.0


class Stretched(LlamaServer):
    """Option `stretch`: the gaps between tokens times this. All others are those of `llama-server`."""

    def __init__(self, spec: EngineSpec) -> None:
        options = dict(spec.options)
        self._stretch = float(options.pop("stretch"))
        super().__init__(replace(spec, engine="llama-server", options=options))
        self._proxy: subprocess.Popen[str] | None = None
        self._way = ""

    async def start(self) -> EngineInfo:
        """Start the server, then the proxy. Raises StartFailed if one of them does not start."""
        info = await super().start()
        port = super().endpoint().url.rpartition(":")[2]
        command = [sys.executable, "-m", "benchmarks.scorecard.proxy", port, f"{self._stretch:g}"]
        pipe = subprocess.PIPE
        self._proxy = subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True)
        assert self._proxy.stdout is not None
        self._way = (await asyncio.to_thread(self._proxy.stdout.readline)).strip()
        if not self._way:
            raise StartFailed("the proxy of the scorecard did not start; see the log")
        return replace(info, pids=(*info.pids, self._proxy.pid))

    def endpoint(self) -> Endpoint:
        """Return where the proxy listens."""
        return replace(super().endpoint(), url=self._way)

    async def stop(self) -> None:
        """End the proxy, then the server. Idempotent."""
        if self._proxy is not None:
            await asyncio.to_thread(_end, self._proxy)
            self._proxy = None
        await super().stop()


def _end(process: subprocess.Popen[str]) -> None:
    """End a process whose input it waits for."""
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=STOP_LIMIT_S)
    if process.poll() is None:
        process.kill()
        process.communicate()
