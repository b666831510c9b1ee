"""Server of known slots and service times: `python -m benchmarks.slotted_server --slots 8 --mean-ms 400 --cv 0.8`.

It serves the streaming part of OpenAI's completions, prints one JSON line, `{"port": N}`, and exits when its standard
input ends. Requests wait in order for a slot. A service is log-normal, and as long as its tokens ask for. Its first
token comes when it begins, the others evenly over the rest of it. The capacity of such a queue is known by long runs in
virtual time (`true_rate`).
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic_ns
from typing import Any

import numpy as np

from benchmarks.command import ROOT
from harness.drivers import stub
from harness.seeding import generator

TOKENS = 16
"""Tokens of a reply whose service has the mean length."""
_CHOICE = {"index": 0, "text": " a", "finish_reason": None}
_TOKEN = stub.chunk(stub.event({"object": "text_completion", "choices": [_CHOICE]}))  # AIPerf asks for the object


@dataclass(frozen=True)
class Service:
    """What is known of a server: slots, and the mean and the coefficient of variation of its service times."""

    slots: int = 8
    mean_s: float = 0.4
    cv: float = 0.8

    @property
    def most_rps(self) -> float:
        """Requests per second that keep every slot busy."""
        return self.slots / self.mean_s

    def draws(self, rng: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Service times in seconds."""
        sigma2 = math.log(1 + self.cv**2)
        return rng.lognormal(math.log(self.mean_s) - sigma2 / 2, math.sqrt(sigma2), count)


@dataclass
class Slots:
    """First come, first served by several slots; the services are known when a request comes."""

    service: Service
    seed: int
    free_ns: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """All slots are free."""
        self.free_ns = [0] * self.service.slots
        self.rng = generator(self.seed, 1)

    def answer(self, request: stub.HttpRequest, connection: stub.Connection) -> stub.Reply:
        """Answer a request for a completion, or for the list of models."""
        if request.path == "/v1/models":
            return stub.page(connection, 200, {"object": "list", "data": [{"id": "slots", "object": "model"}]})
        if request.path != stub.COMPLETIONS_PATH:
            return stub.answer(request, connection)
        wanted = json.loads(request.body)
        return self._completion(connection, int(wanted.get("max_tokens") or TOKENS), str(wanted.get("prompt")))

    def _completion(self, connection: stub.Connection, tokens: int, prompt: str) -> Iterator[int]:
        service_ns = round(float(self.service.draws(self.rng, 1)[0]) * tokens / TOKENS * 1e9)
        begin_ns = max(monotonic_ns(), self.free_ns[0])
        heapq.heapreplace(self.free_ns, begin_ns + service_ns)
        for number in range(tokens):
            yield max(0, begin_ns + number * service_ns // tokens - monotonic_ns())
            if number == 0:
                connection.write(stub.STREAM_HEAD)
            connection.write(_TOKEN)
        yield max(0, begin_ns + service_ns - monotonic_ns())
        connection.write(stub.chunk(stub.ending(tokens, len(prompt.split()))) + stub.LAST_CHUNK)


@contextmanager
def slotted_server(service: Service, seed: int) -> Iterator[int]:
    """The port of such a server, in a process of its own for the length of the block."""
    options = (f"--slots={service.slots}", f"--mean-ms={1000 * service.mean_s:g}", f"--cv={service.cv:g}")
    command = [sys.executable, "-m", "benchmarks.slotted_server", *options, f"--seed={seed}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    with process:  # closes its pipes at the end, then waits for it
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["port"])


def true_rate(
    service: Service, slo_s: float, share: float = 0.95, *, tokens: int = TOKENS, count: int = 400_000, seed: int = 1
) -> float:
    """The largest rate at which a share of the waits is within the SLO, by bisection over long runs in virtual time.

    tokens: of each reply, which make its service as much longer or shorter.
    """
    service = replace(service, mean_s=service.mean_s * tokens / TOKENS)
    low, high = 0.5 * service.most_rps, service.most_rps
    for _ in range(10):
        rate = (low + high) / 2
        low, high = (rate, high) if attainment(service, rate, slo_s, count, seed) >= share else (low, rate)
    return (low + high) / 2


def attainment(service: Service, rate: float, slo_s: float, count: int, seed: int) -> float:
    """The share of the waits within the SLO, of Poisson arrivals and the same draws for every rate."""
    rng = generator(seed, 2)
    due = np.cumsum(rng.exponential(1 / rate, count))
    free = [0.0] * service.slots
    within = 0
    for at, length in zip(due.tolist(), service.draws(rng, count).tolist(), strict=True):
        begin = max(at, free[0])
        heapq.heapreplace(free, begin + length)
        within += begin - at <= slo_s
    return within / count


async def _serve(slots: Slots) -> None:
    closed = asyncio.Event()
    server = await stub.listen(slots.answer)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 4096) else closed.set())
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await closed.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--mean-ms", type=float, default=400.0)
    parser.add_argument("--cv", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    asyncio.run(_serve(Slots(Service(asked.slots, asked.mean_ms / 1000, asked.cv), asked.seed)))


if __name__ == "__main__":
    main()
