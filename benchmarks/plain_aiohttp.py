"""The usual way to measure a stream: aiohttp, a stamp when a line is seen, JSON decoded at once. What several of the
tools people use today are built on, without anything around it; it runs in a process of its own and prints its CPU.

    python -m benchmarks.plain_aiohttp PORT STREAMS ROUNDS TOKENS
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import uvloop

ROOT = Path(__file__).parent.parent


async def user(session: aiohttp.ClientSession, url: str, rounds: int, tokens: int) -> int:
    """One closed-loop user; the number of tokens it saw."""
    seen = 0
    body = {"model": "stub", "prompt": "word " * 16, "max_tokens": tokens, "stream": True}
    for _ in range(rounds):
        async with session.post(url, json=body) as response:
            async for line in response.content:
                stamp = time.perf_counter()
                text = line.strip()
                if text.startswith(b"data: ") and text != b"data: [DONE]" and stamp:
                    choices = json.loads(text[6:])["choices"]
                    seen += bool(choices and choices[0].get("text"))
    return seen


async def main(port: int, streams: int, rounds: int, tokens: int) -> None:
    """All users at once."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120)) as session:
        url = f"http://127.0.0.1:{port}/v1/completions"
        seen = sum(await asyncio.gather(*(user(session, url, rounds, tokens) for _ in range(streams))))
    assert seen == streams * rounds * tokens, seen
    print(time.process_time())


def aiohttp_cpu_s(program: Path, streams: int, rounds: int, tokens: int, first_us: int, gap_us: int) -> float:
    """CPU seconds, start-up included, of that client against a fresh server."""
    from benchmarks.truth import stub_server  # not in the child, whose CPU counts

    with stub_server(program, first_us, gap_us, tokens, program.with_name("log-aiohttp")) as port:
        arguments = [str(number) for number in (port, streams, rounds, tokens)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.plain_aiohttp", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
        )
    return float(done.stdout)


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
