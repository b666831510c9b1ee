"""Runs with images in prompts, against a server process that decodes each of them: every dialect that carries them."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import environment, manifest, measured, scenario
from looking_server import WORDS, cost

from engines.dialects import DIALECTS, get
from engines.process.server import ServerCommand, ServerProcess
from tests.forked import harness

PATH_OF = {
    "openai-chat": "/v1/chat/completions",
    "anthropic-messages": "/v1/messages",
    "openai-responses": "/v1/responses",
    "ollama-chat": "/api/chat",
    "ollama-generate": "/api/generate",
}
REQUESTS, EACH, WIDTH, HEIGHT = 6, 2, 131, 60
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def eyes() -> Iterator[str]:
    """The address of the server that looks."""
    program = f"{sys.executable} {Path(__file__).parent / 'looking_server.py'} {{port}}"
    server = ServerProcess(ServerCommand(program, env=environment()))
    asyncio.run(server.start())
    try:
        yield server.url
    finally:
        asyncio.run(server.stop())


def seen(eyes: str, dialect: str) -> list[dict[str, Any]]:
    """What it saw in a dialect."""
    with urllib.request.urlopen(f"{eyes}/seen") as page:
        return [one for one in json.load(page) if one["path"] == PATH_OF[dialect]]


@pytest.fixture(scope="module")
def run(eyes: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a configuration for each dialect."""
    folder = tmp_path_factory.mktemp("images")
    path = scenario(
        folder,
        model="tiny",
        engines=[{"engine": "http", "url": eyes, "dialect": dialect} for dialect in PATH_OF],
        workload={"prompt_tokens": 12, "output_tokens": 2, "images": {"count": EACH, "size": f"{WIDTH}x{HEIGHT}"}},
        load=[{"kind": "sustained", "users": 2, "requests": REQUESTS, "timeout": "60s"}],
    )
    ended = harness("run", str(path), "--out", "run", "--format", "csv", cwd=folder)
    assert ended.code in (0, 4), ended.err
    return folder / "run"


def test_every_dialect_that_carries_images_is_tried() -> None:
    """A new one is added to this file."""
    assert {name for name in DIALECTS if get(name).takes_images} == {*PATH_OF}


@pytest.mark.parametrize("dialect", PATH_OF)
def test_the_server_decodes_every_image(eyes: str, run: Path, dialect: str) -> None:
    """As many as asked for, of the size asked for, no two alike; it counts them as tokens of the prompt."""
    (trial,) = manifest(run)["cells"][[*PATH_OF].index(dialect)]["trials"]
    rows, looked = measured(run, trial), seen(eyes, dialect)
    assert {(row["status"], row["error"]) for row in rows} == {("ok", None)}
    assert {row["output_tokens"] for row in rows} == {len(WORDS)}
    assert all(row["prompt_tokens"] > EACH * cost(WIDTH, HEIGHT) for row in rows)
    assert {(one["format"], one["width"], one["height"]) for one in looked} == {("PNG", WIDTH, HEIGHT)}
    assert len({one["pixels"] for one in looked}) == len(looked) >= REQUESTS * EACH
