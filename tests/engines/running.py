"""Engines that run, with the loop that they belong to; those that start slowly are shared by tests (conftest.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import needs
import psutil

import engines
from engines.base import Engine, EngineError, EngineInfo, EngineSpec, ModelReference

VLLM_OPTIONS = {"enforce_eager": True, "kv_cache_space_gib": 1}


class Running:
    """An engine from its start on. Raises EngineError, once it is stopped, if it does not start."""

    def __init__(self, spec: EngineSpec) -> None:
        self.runner = asyncio.Runner()
        self.engine: Any = engines.create(spec)
        try:
            self.engine.prepare()
            self.info: EngineInfo = self.run(self.engine.start())
        except EngineError:
            self.end()
            raise

    def run(self, awaited: Awaitable[Any]) -> Any:
        """Return the result of something awaited on the engine's loop."""
        return self.runner.run(awaited)  # type: ignore[arg-type]

    def end(self) -> None:
        """Stop it twice, as users may."""
        with self.runner:
            self.run(self.engine.stop())
            self.run(self.engine.stop())

    def left(self) -> list[psutil.Process]:
        """Return the engine's processes that still work; grandchildren are init's to reap."""
        alive = [psutil.Process(pid) for pid in self.info.pids if psutil.pid_exists(pid)]
        return [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def vllm_spec(engine: str, **changes: Any) -> EngineSpec:
    """`vllm` or `vllm-server` with `tiny` in fp32; skips the test without vLLM."""
    if engine == "vllm":
        needs.library("vllm")
    python = needs.vllm_python() if engine == "vllm-server" else None
    given = {"model": ModelReference("tiny"), "level": "fp32", "options": VLLM_OPTIONS, "python": python}
    return EngineSpec(engine, **{**given, **changes})


def is_idle(engine: Engine) -> bool:
    """Return True if the last test left a vLLM engine as it was: it works on nothing, or its server runs."""
    if hasattr(engine, "alive"):
        return engine.alive() is None
    return bool(engine._llm.output_processor.get_num_unfinished_requests() == 0)  # type: ignore[attr-defined]
