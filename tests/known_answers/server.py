"""The stub server with known times and known memory, run as `python server.py PORT --log FILE`; it logs what it did.

Each reply has 10 tokens in 5 chunks, at the times of SCRIPT after the request was read. Lines of the log are JSON:
{"reply": moments of the clock at which the request was read and each piece was written, from and until}, or
{"beat": the clock, "cpu_s": processor time so far, "major_faults": so far}. All by `time.monotonic_ns`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, Connection, HttpRequest, Reply, chunk, event, listen, page

MIB = 1 << 20
PAGE = mmap.PAGESIZE
BEAT_S = 0.05
LOADING_S = 0.6  # several readings long
TOKENS, PROMPT_TOKENS, CACHED_TOKENS = 10, 50, 20
SCRIPT = (  # milliseconds, name of the piece, what its event adds to the delta, tokens so far
    (40, "role", {"role": "assistant"}, 0),
    (60, "first", {"reasoning_content": "well then"}, 2),
    (80, "answer", {"content": " so it"}, 4),
    (100, "third", {"content": " is as"}, 6),
    (120, "fourth", {"content": " it was"}, 8),
    (160, "last", {"content": " before all"}, 10),
)
HEAD_MS, CLOSE_MS = 20, 180


def chat_event(delta: dict[str, str] | None, tokens: int, finish: str | None = None) -> bytes:
    """An event of a chat; without a delta the counts alone."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    counts: dict[str, Any] = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens}
    counts |= {"prompt_tokens_details": {"cached_tokens": CACHED_TOKENS}}
    return event({"choices": choices, "usage": counts})


class Server:
    """The replies, the memory and the log; `pages` has text by path."""

    def __init__(self, options: argparse.Namespace, pages: dict[str, Callable[[], str]]) -> None:
        self._options = options
        self._pages = pages
        self._log = open(options.log, "a", buffering=1)  # noqa: SIM115 - as long as the process
        self._held: list[mmap.mmap] = []
        self.begun_ns = time.monotonic_ns()
        self.asked = self.answered = 0

    def answer(self, request: HttpRequest, connection: Connection) -> Reply:
        """The reply to a request, or a page."""
        if request.method == "POST":
            return self._reply(connection)
        found = self._pages.get(request.path)
        return page(connection, 200 if found else 404, found() if found else "none", "text/plain")

    def _reply(self, connection: Connection) -> Reply:
        read_ns = time.monotonic_ns()
        self.asked += 1
        number, told = self.asked, {"read": [read_ns, read_ns]}
        if number == 2:
            self.hold(self._options.grown_mib * MIB)
        if number == self._options.fault_at:
            told["faulted"] = [fault(self._options.faults)] * 2
        pieces = [(HEAD_MS, "head", STREAM_HEAD)]
        for at_ms, name, delta, tokens in SCRIPT:
            pieces.append((at_ms, name, chunk(chat_event(delta, tokens, "length" if name == "last" else None))))
        pieces.append((CLOSE_MS, "close", chunk(chat_event(None, TOKENS)) + chunk(event(b"[DONE]")) + LAST_CHUNK))
        now_ms = 0
        for at_ms, name, data in pieces:
            yield (at_ms - now_ms) * 1_000_000
            now_ms = at_ms
            before_ns = time.monotonic_ns()
            connection.write(data)
            told[name] = [before_ns, time.monotonic_ns()]
        self.answered += 1
        self._note(reply=told)

    def hold(self, size: int, shared: bool = False) -> None:
        """Take memory, every page of it."""
        if size:
            kind = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
            self._held.append(mmap.mmap(-1, size, flags=kind | mmap.MAP_ANONYMOUS))
            touch(self._held[-1])

    def share_with_a_child(self, size: int) -> None:
        """Memory that a child process has, too; it ends with this one."""
        self.hold(size, shared=True)
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(writing)
            for held in self._held[-1:] if size else ():
                touch(held)
            os.read(reading, 1)
            os._exit(0)
        os.close(reading)

    async def beat(self) -> None:
        """Use processor time, and tell how much."""
        while True:
            until_s = time.process_time() + self._options.burn_ms / 1e3
            while time.process_time() < until_s:
                pass
            used = resource.getrusage(resource.RUSAGE_SELF)
            self._note(beat=time.monotonic_ns(), cpu_s=time.process_time(), major_faults=used.ru_majflt)
            await asyncio.sleep(BEAT_S)

    def _note(self, **what: Any) -> None:
        self._log.write(json.dumps(what) + "\n")


def touch(held: mmap.mmap) -> None:
    """Write to every page."""
    for offset in range(0, len(held), PAGE):
        held[offset] = 1


def fault(pages: int) -> int:
    """Read so many pages of a file that no memory holds; how often the kernel says that it waited for the disk."""
    with tempfile.NamedTemporaryFile(dir=".") as file:
        file.write(os.urandom(pages * PAGE))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(file.fileno(), pages * PAGE, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_RANDOM)  # nothing is read ahead
            before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
            for page in range(pages):
                mapped[page * PAGE]
            return resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before


def pages_of(server: Server) -> dict[str, Callable[[], str]]:
    """Its own page, and that of the exporter of its machine; every request it has answered waited 120 ms, found 40 of
    100 tokens in a cache, and was put back twice.
    """

    def own() -> str:
        n, half = server.answered, server.asked <= server._options.half
        told = {
            "num_requests_running": 4 if half else 2,
            "num_requests_waiting": 1 if half else 5,
            "kv_cache_usage_perc": 0.25 if half else 0.75,
            "num_preemptions_total": 2 * n,
            "prefix_cache_queries_total": 100 * n,
            "prefix_cache_hits_total": 40 * n,
            "request_queue_time_seconds_sum": 0.12 * n,
            "request_queue_time_seconds_count": n,
        }
        return "".join(f"vllm:{name} {value}\n" for name, value in told.items())

    def machine() -> str:
        at_ns = time.monotonic_ns()
        seconds = (at_ns - server.begun_ns) / 1e9
        available = 16 if server.asked <= server._options.half else 8
        told = {
            "node_memory_MemTotal_bytes": 64 << 30,
            "node_memory_MemAvailable_bytes": available << 30,
            "node_vmstat_pswpin": 256 * seconds,
            "node_vmstat_pswpout": 512 * seconds,
        }
        return "".join(f"{name} {value}\n" for name, value in told.items())

    return {"/metrics": own, "/node": machine} if server._options.pages else {}


async def main(options: argparse.Namespace) -> None:
    """Serve until the end."""
    pages: dict[str, Callable[[], str]] = {}
    server = Server(options, pages)
    pages |= pages_of(server)
    with mmap.mmap(-1, max(1, options.loading_mib * MIB)) as loading:  # and given back before it is ready
        touch(loading)
        await asyncio.sleep(LOADING_S)
    server.share_with_a_child(options.shared_mib * MIB)
    server.hold(options.private_mib * MIB)  # after the child was made, which would have it, too
    listening = await listen(server.answer, "0.0.0.0" if options.pages else "127.0.0.1", options.port)
    print(listening.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await asyncio.gather(listening.serve_forever(), server.beat())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--log")
    parser.add_argument("--pages", action="store_true")
    for name in ("loading-mib", "private-mib", "shared-mib", "grown-mib", "burn-ms", "faults", "fault-at", "half"):
        parser.add_argument(f"--{name}", type=int, default=0)
    asyncio.run(main(parser.parse_args()))
