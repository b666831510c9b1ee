"""An engine, found as a plug-in, each level of which breaks in a way of its own."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from engines.base import Chunk, ChunkKind, EngineInfo, EngineSpec, LevelUnsupported, MemoryEstimate, Request, Usage
from harness.store.streams import read_batches

SOUND_REQUESTS = 6
BLOCK_BYTES = 16 << 20
GIB = 1 << 30


class Misbehaving:
    """Answers six requests of each level as it should."""

    def __init__(self, spec: EngineSpec) -> None:
        self._level = spec.level or "sound"
        self._requests = 0

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """How it breaks, and two ways in which it does not."""
        return (
            "sound", "segfault_at_start", "segfault", "killed", "memory", "oom", "blocks_at_start", "waits_at_start",
            "blocks", "blocks_at_stop", "unsupported", "too_large", "on_gpu", "also_sound",
        )  # fmt: skip

    @classmethod
    def devices(cls, level: str) -> tuple[str, ...]:
        """One level is for GPUs alone."""
        return ("cuda",) if level == "on_gpu" else ("cpu", "cuda")

    def prepare(self) -> Sequence[Path]:
        """Nothing to build."""
        return ()

    def memory_needed(self) -> MemoryEstimate:
        """More than any machine has, of one level."""
        weights = 1 << 60 if self._level == "too_large" else 1000
        return MemoryEstimate("cpu", {"weights": weights, "kv_cache": 2 * GIB if weights > GIB else 0})

    async def start(self) -> EngineInfo:
        """What the level's name says."""
        if self._level == "segfault_at_start":
            ctypes.string_at(0)
        elif self._level == "memory":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + 8 * BLOCK_BYTES,) * 2)
            allocate()
        elif self._level == "oom":
            Path(os.environ["OOM_GROUP"], "cgroup.procs").write_text(str(os.getpid()))
            allocate()
        elif self._level == "blocks_at_start":
            time.sleep(600)
        elif self._level == "waits_at_start":
            await asyncio.sleep(600)
        elif self._level == "unsupported":
            raise LevelUnsupported("this device has no instructions for `unsupported`")
        return EngineInfo("misbehaving", level=self._level)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """A few words; from the seventh request on what the level's name says, when some of the first are stored."""
        self._requests += 1
        if self._requests > SOUND_REQUESTS:
            while self._level in ("segfault", "killed") and not something_stored():
                await asyncio.sleep(0.02)
            if self._level == "segfault":
                ctypes.string_at(0)
            elif self._level == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self._level == "blocks":
                time.sleep(600)
        for _ in range(request.max_tokens):
            await asyncio.sleep(0.01)
            yield Chunk(ChunkKind.CONTENT, "word ", tokens=1)
        yield Chunk(ChunkKind.FINISH, finish_reason="length")
        yield Chunk(ChunkKind.USAGE, usage=Usage(8, request.max_tokens))

    async def stop(self) -> None:
        """Never ends, of one level."""
        if self._level == "blocks_at_stop" and self._requests > SOUND_REQUESTS:
            await asyncio.sleep(600)


def something_stored() -> bool:
    """Whether the trial's file holds a row."""
    folder = Path(sys.argv[1]).parent  # of the cell, with what this process was told to do
    return any(batch.num_rows for found in folder.rglob("records*.arrows") for batch in read_batches(found))


def allocate() -> None:
    """Take memory until there is none."""
    blocks = []
    while True:
        blocks.append(bytearray(b"x" * BLOCK_BYTES))
