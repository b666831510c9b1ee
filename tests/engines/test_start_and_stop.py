"""What belongs to a start and what does not, without the libraries that real starts need."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import engines
from engines.base import EngineError, EngineSpec, ModelReference
from engines.llamacpp.server import LlamaServer
from engines.models import cache
from engines.models.gguf.file import gguf_file
from engines.models.source import resolve
from engines.process.server import ServerCommand, ServerProcess
from engines.vllm import engine as vllm_engine
from engines.vllm.engine import Vllm

ENGINES = ("llama-cpp", "llama-cpp-server", "llama-server", "transformers", "vllm", "vllm-server")


@pytest.mark.parametrize("name", ENGINES)
def test_weights_are_hashed_before_a_start_is_timed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """prepare() reads them all; start() finds the digest, or the first load would be longer than any later one."""
    tiny = resolve(ModelReference("tiny"))
    model = tmp_path / "model"
    if name.startswith("llama"):
        model = Path(shutil.copy(gguf_file(tiny, "q8_0"), model.with_suffix(".gguf")))
    else:
        shutil.copytree(tiny.path, model)
    hashed: list[Path] = []
    monkeypatch.setattr(cache, "digest", lambda paths: hashed.extend(paths) or "digest")
    engine = engines.create(EngineSpec(name, ModelReference(str(model))))
    files = engine.prepare()
    assert set(files) <= set(hashed)


class _Loaded:
    """Stand-in for vLLM's engine that records `shutdown`."""

    output_handler = None

    def __init__(self) -> None:
        self.vllm_config = self.model_config = self
        self.ended = False

    def get_diff_sampling_param(self) -> dict[str, Any]:
        return {}

    async def abort(self, requests: list[str]) -> None:
        assert requests == []

    def shutdown(self) -> None:
        self.ended = True


def test_vllm_that_is_stopped_while_it_loads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that was given up goes on in its thread; stop() waits for what it makes and ends that."""
    began, go_on, loaded = threading.Event(), threading.Event(), _Loaded()

    def make(_: Any) -> _Loaded:
        began.set()
        go_on.wait()
        return loaded

    monkeypatch.setattr(vllm_engine, "_make", make)

    async def main() -> None:
        engine = Vllm(EngineSpec("vllm", ModelReference("tiny")))
        starting = asyncio.create_task(engine.start())
        await asyncio.to_thread(began.wait)
        starting.cancel()
        stopping = asyncio.create_task(engine.stop())
        await asyncio.wait([starting])
        go_on.set()
        await stopping
        with pytest.raises(EngineError, match="not running"):
            _ = engine.llm

    asyncio.run(main())
    assert loaded.ended


def test_llama_server_has_time_to_score_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a chunk is evaluated before the first answer: minutes on a small processor."""
    patience: list[float] = []

    class Unreachable(http.client.HTTPConnection):
        """Notes how long it would wait."""

        def request(self, *_: Any) -> None:  # type: ignore[override]
            assert self.timeout is not None
            patience.append(self.timeout)
            raise ConnectionRefusedError

    monkeypatch.setattr(http.client, "HTTPConnection", Unreachable)
    engine = LlamaServer(EngineSpec("llama-server", ModelReference("tiny")))
    engine._context = 8
    asyncio.run(engine._server.start(_Started()))
    with pytest.raises(EngineError, match="does not answer"):
        asyncio.run(engine.score([1, 2], 1))
    assert patience == [300]


class _Started(ServerProcess):
    """A server that is said to run."""

    def __init__(self) -> None:
        super().__init__(ServerCommand("none"))

    async def start(self) -> None:
        """Start nothing."""
