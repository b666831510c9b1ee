"""Another llama-server than the embedded one, named by the option `binary`."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import needs
import pytest

from engines import dialects
from engines.base import EngineError, EngineInfo, EngineSpec, ModelReference, Request, StartFailed
from engines.llamacpp.base import unused_instructions
from engines.llamacpp.options import LlamaServerOptions
from engines.llamacpp.server import LlamaServer
from engines.llamacpp.server_binary import Program, program

SCRIPT = Path(__file__).parents[1].joinpath("llama_server_program.py")
WHOLE = frozenset({"--cache-ram", "--load-mode", "--no-webui", "--offline"})


def executable(folder: Path, body: str, name: str = "llama-server") -> Path:
    """A shell script that can be run."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def real(folder: Path) -> Path:
    """A program that serves."""
    return executable(folder, f'exec "{sys.executable}" -P "{SCRIPT}" "$@"')


def spec_of(folder: Path, **options: Any) -> EngineSpec:
    """The built-in model behind it."""
    given = {"n_ctx": 256, "n_parallel": 2, "n_threads": 1, **options}
    return EngineSpec("llama-server", ModelReference("tiny"), "q8_0", given, log_path=folder / "log.txt")


@pytest.mark.slow
def test_it_is_started_in_place_of_the_embedded_one(tmp_path: Path) -> None:
    """The other server answers, reports version and path, and ends with the engine."""
    needs.library("xllamacpp")

    async def main() -> tuple[EngineInfo, dict[str, Any], str | None]:
        engine = LlamaServer(spec_of(tmp_path, binary=str(real(tmp_path))))
        try:
            info = await engine.start()
            endpoint = engine.endpoint()
            wire = dialects.of(endpoint).encode(Request("It is", 5, exact=True, stream=False), endpoint.model)
            connection = http.client.HTTPConnection(endpoint.url.removeprefix("http://"), timeout=30)
            connection.request(wire.method, wire.path, wire.body)
            answer = json.loads(connection.getresponse().read())
            connection.close()
            return info, answer, engine.alive()
        finally:
            await engine.stop()
            assert engine.alive() == "llama-server was stopped"

    info, answer, alive = asyncio.run(main())
    assert alive is None
    assert answer["usage"]["completion_tokens"] == 5
    assert (info.version, info.context_tokens, info.slots) == ("4321 (abc1234)", 256, 2)
    assert info.libraries == {"llama-server": "4321 (abc1234)", "ggml": "CPU : SSE3 = 1 | AVX2 = 1 |"}
    assert info.options["binary"] == str(tmp_path / "llama-server")
    assert info.pids


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (None, "which does not exist; name llama.cpp's llama-server"),
        ("echo hello", "which does not report its version; name"),
        ("exit 3", "which does not report its version; name"),
        ("echo version: 1", "which has no option --model; name"),
    ],
)
def test_a_program_that_is_no_llama_server_is_refused(tmp_path: Path, body: str | None, sentence: str) -> None:
    """Before anything is measured, in one sentence."""
    path = tmp_path / "program" if body is None else executable(tmp_path, body, "program")
    with pytest.raises(StartFailed, match=sentence) as caught:
        program(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_executable_is_refused(tmp_path: Path) -> None:
    """A file that is no program is refused."""
    (tmp_path / "text").write_text("hello")
    with pytest.raises(StartFailed, match="which is not executable"):
        program(str(tmp_path / "text"))


def test_the_option_is_a_text(tmp_path: Path) -> None:
    """A number or nothing is refused with what to write."""
    for value in (3, "", True):
        with pytest.raises(EngineError, match=r"option binary of llama-server is .*the path or the name of a program"):
            LlamaServer(spec_of(tmp_path, binary=value))


def test_every_option_is_passed_on_by_the_program_s_own_names() -> None:
    """Context for all slots; switches only where they differ from its defaults, under old and new names."""
    given = LlamaServerOptions(
        n_threads=3, n_parallel=5, mmap=False, mlock=True, flash_attn=True, prefix_cache=False, cont_batching=False,
        n_gpu_layers="all", grammar="root ::= [a-z]+",
    )  # fmt: skip
    found = Program("/p", "1", WHOLE, "").arguments(given, Path("m.gguf"), "m", 100)
    pairs = dict(itertools.pairwise(found))
    told = {name: pairs[name] for name in ("--ctx-size", "--parallel", "--threads", "--flash-attn", "--load-mode")}
    assert told == {
        "--ctx-size": "500", "--parallel": "5", "--threads": "3", "--flash-attn": "on", "--load-mode": "mlock"
    }  # fmt: skip
    assert (pairs["--cache-ram"], pairs["--n-gpu-layers"], pairs["--grammar"]) == ("0", "999", "root ::= [a-z]+")
    assert {"--metrics", "--no-webui", "--offline", "--no-cont-batching"} <= set(found)
    older = Program("/p", "1", frozenset(), "").arguments(given, Path("m.gguf"), "m", 100)
    assert {"--no-mmap", "--mlock"} <= set(older)
    assert not {"--cache-ram", "--load-mode", "--no-webui", "--offline"} & set(older)
    plain = Program("/p", "1", WHOLE, "").arguments(LlamaServerOptions(), Path("m.gguf"), "m", 100)
    assert not {"--load-mode", "--no-cont-batching", "--cache-ram", "--n-gpu-layers", "--grammar", "--lora"} & set(
        plain
    )


def test_unused_instructions_come_from_the_build_s_report(tmp_path: Path) -> None:
    """Against the flags of the processor; nothing is claimed where either is silent."""
    processors = tmp_path / "cpuinfo"
    processors.write_text("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni\n")
    system = "CPU : SSE3 = 1 | AVX2 = 1 | AVX_VNNI = 1 | FMA = 1 | REPACK = 1 | "
    assert unused_instructions(system, processors) == ("AVX512", "AVX512_VNNI")
    whole = f"{system}AVX512 = 1 | AVX512_VNNI = 1 | "
    assert unused_instructions(whole, processors) == ()
    assert unused_instructions("", processors) == ()
    assert unused_instructions(system, tmp_path / "none") == ()
