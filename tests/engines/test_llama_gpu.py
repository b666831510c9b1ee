"""The llama.cpp engines on a GPU: every layer there, or the sentence that the build knows none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import needs
import pytest

import engines
from engines.base import EngineInfo, EngineSpec, LevelUnsupported, ModelReference
from harness.telemetry.gpus import find_gpus


@pytest.mark.gpu
@pytest.mark.engines
@pytest.mark.parametrize("engine", ["llama-server", "llama-cpp", "llama-cpp-server"])
def test_the_model_is_loaded_onto_the_gpu_that_is_named(engine: str, tmp_path: Path) -> None:
    """The engine says so itself; a build without CUDA refuses instead of measuring the processor."""
    found, reason = find_gpus()
    if found is None:
        pytest.skip(f"needs a GPU: {reason}")
    needs.library(engines.LIBRARIES[engine].module)
    options = {"n_gpu_layers": "all", "n_ctx": 512}
    spec = EngineSpec(engine, ModelReference("tiny"), "q8_0", options, devices=("0",), log_path=tmp_path / "log")

    async def started() -> EngineInfo:
        made = engines.create(spec)
        try:
            return await made.start()
        finally:
            await made.stop()

    try:
        info = asyncio.run(started())
    except LevelUnsupported as refused:
        assert "knows none" in str(refused)  # noqa: PT017  both ends are right, by what the build can do
        pytest.skip(f"this build of llama.cpp has no CUDA: {refused}")
    assert info.device is not None
    assert info.device != "cpu"
