"""An engine, found as a plug-in, whose every reply is written down beforehand: what comes, and when."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from engines.base import Chunk, ChunkKind, EngineInfo, EngineSpec, Request, Usage

Step = tuple[float, str, Mapping[str, Any]]


class KnownTimes:
    """Options. replies: lists of [ms after the request came, kind, what the chunk has beside it]; they go round.
    first: the reply to the first request after the start, in place of the first of them.
    weights: {path, bytes}, a file to be loaded.   start_s: how long that takes.   shared_bytes: memory that a child
    process has, too.   log: a file of the moments of the clock at which it was prepared, began to start, had started
    and was asked, a JSON list a line, the third number being what is this process' own memory alone by then.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self._options = dict(spec.options)
        self._replies = cycle(self._options["replies"])
        self._first: list[Step] | None = self._options.get("first")
        self._child: subprocess.Popen[bytes] | None = None

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """The only one."""
        return ("none",)

    def prepare(self) -> Sequence[Path]:
        """The file of weights, if any."""
        weights = self._options.get("weights")
        if weights is None:
            return ()
        path = Path(weights["path"])
        path.write_bytes(bytes(weights["bytes"]))
        self._note("prepared")
        return (path,)

    async def start(self) -> EngineInfo:
        """Takes as long as it is told to."""
        self._note("start")
        await asyncio.sleep(self._options.get("start_s", 0.0))
        self._share(self._options.get("shared_bytes", 0))
        self._note("started")
        weights = self._options.get("weights") or {}
        return EngineInfo("known", level="none", weight_bytes=weights.get("bytes"))

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """The next reply."""
        self._note("asked")
        steps, self._first = self._first or next(self._replies), None
        before_ms = 0.0
        for at_ms, kind, fields in steps:
            await asyncio.sleep((at_ms - before_ms) / 1000)
            before_ms = at_ms
            yield chunk(kind, fields)

    async def stop(self) -> None:
        """Its child ends."""
        if self._child is not None:
            self._child.communicate()
            self._child = None

    def _share(self, size: int) -> None:
        if size:
            file = os.memfd_create("shared")
            os.ftruncate(file, size)
            self._held = touched(file, size)
            command = [sys.executable, "-S", "-c", CHILD, str(file), str(size)]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[file])
            assert self._child.stdout is not None
            self._child.stdout.readline()  # it has touched it
            os.close(file)

    def _note(self, what: str) -> None:
        if "log" in self._options:
            with Path(self._options["log"]).open("a") as file:
                file.write(json.dumps([what, time.monotonic_ns(), own_bytes()]) + "\n")


CHILD = """
import mmap, sys
held = mmap.mmap(int(sys.argv[1]), int(sys.argv[2]))
sum(held[offset] for offset in range(0, len(held), mmap.PAGESIZE))
print("touched", flush=True)
sys.stdin.read()
"""


def touched(file: int, size: int) -> mmap.mmap:
    """Memory of a file, every page of it."""
    held = mmap.mmap(file, size)
    for offset in range(0, size, mmap.PAGESIZE):
        held[offset] = 1
    return held


def own_bytes() -> int:
    """The pages that nobody shares with this process, by the kernel's count."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def chunk(kind: str, fields: Mapping[str, Any]) -> Chunk:
    """A step's chunk; a token where nothing else is said of one that bears some."""
    if kind in (ChunkKind.CONTENT, ChunkKind.REASONING):
        fields = {"text": "word ", "tokens": 1} | dict(fields)
    usage = {"usage": Usage(**fields["usage"])} if "usage" in fields else {}
    return Chunk(ChunkKind(kind), **{**fields, **usage})
