"""`python -m benchmarks.scorecard.served --port N --stretch F`: a server that a command starts, behind the proxy.

llama.cpp's server is a process of its own, the proxy is this one. The port opens when the model is loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import signal

from benchmarks.scorecard.arms import LEVEL, MODEL, OPTIONS
from benchmarks.scorecard.proxy import Proxy, wake_exactly
from engines.base import EngineSpec, ModelReference
from engines.llamacpp.server import LlamaServer


async def serve(port: int, stretch: float) -> None:
    """Serve until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    engine = LlamaServer(EngineSpec("llama-server", ModelReference(MODEL), LEVEL, OPTIONS))
    try:
        await engine.start()
        proxy = Proxy(int(engine.endpoint().url.rpartition(":")[2]), stretch, port)
        proxy.start()
        await ended.wait()
        proxy.close()
    finally:
        await engine.stop()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorecard.served", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stretch", type=float, required=True)
    options = parser.parse_args()
    wake_exactly()
    asyncio.run(serve(options.port, options.stretch))


if __name__ == "__main__":
    main()
