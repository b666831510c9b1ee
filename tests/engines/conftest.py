"""vLLM takes half a minute to start: all tests that leave it as it was share one start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.engines.running import VLLM_OPTIONS, Running, is_idle, vllm_spec


@pytest.fixture(scope="session")
def _vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    spec = vllm_spec("vllm", options={**VLLM_OPTIONS, "scheduling_policy": "priority"})
    running = Running(replace(spec, log_path=tmp_path_factory.mktemp("vllm") / "engine.log"))
    yield running
    running.end()
    assert not running.left()


@pytest.fixture(scope="session")
def _vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(vllm_spec("vllm-server", log_path=tmp_path_factory.mktemp("vllm-server") / "engine.log"))
    yield running
    running.end()
    assert not running.left()


@pytest.fixture
def vllm(_vllm: Running) -> Iterator[Running]:
    """`tiny` in fp32 in this process."""
    yield _vllm
    assert is_idle(_vllm.engine)


@pytest.fixture
def vllm_server(_vllm_server: Running) -> Iterator[Running]:
    """`tiny` in fp32 on vLLM's server."""
    yield _vllm_server
    assert is_idle(_vllm_server.engine)
