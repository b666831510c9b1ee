"""The engines agree: the same model, the same token ids, greedily, gives the same tokens.

With f32 weights, an f32 KV cache and no flash attention nothing is left but the order of additions. Chunks carry text,
no ids; with `tiny` that is the same, for its tokens are bytes and its text is ASCII.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import needs
import pytest

from engines.base import EngineSpec, ModelReference
from tests.engines.greedy import continuations, continued, prompts

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 40, 64, 64
_EXACT_LLAMA = {
    "n_ctx": 256,
    "cache_type_k": "f32",
    "cache_type_v": "f32",
    "flash_attn": False,
    "prefix_cache": False,
}
_SLOW_START = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),  # vLLM leaves it to the collector
]

pytestmark = [
    # torch and transformers announce at their import what they will drop one day.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@dataclass(frozen=True)
class Exact:
    """An engine set to compute in f32 throughout."""

    engine: str
    level: str
    options: Mapping[str, Any] = field(default_factory=dict)
    library: str | None = None

    def spec(self, folder: Path) -> EngineSpec:
        """Skips the test where the engine is not installed."""
        if self.library is not None:
            needs.library(self.library)
        return EngineSpec(self.engine, ModelReference("tiny"), self.level, self.options, log_path=folder / "engine.log")


REFERENCE = Exact("llama-server", "f32", {**_EXACT_LLAMA, "n_parallel": 1})
OTHERS = [
    pytest.param(Exact("llama-cpp", "f32", _EXACT_LLAMA, "llama_cpp"), marks=pytest.mark.engines, id="llama-cpp"),
    pytest.param(Exact("transformers", "fp32", library="transformers"), marks=pytest.mark.engines, id="transformers"),
]
SHARED = [
    pytest.param("vllm", marks=[pytest.mark.vllm_inside, *_SLOW_START]),
    pytest.param("vllm_server", marks=[pytest.mark.vllm, *_SLOW_START]),
]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ...]:
    """Return the reply of the embedded llama.cpp."""
    spec = REFERENCE.spec(tmp_path_factory.mktemp("reference"))
    return tuple(continuations(spec, prompts(PROMPTS, PROMPT_TOKENS), NEW_TOKENS))


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
def test_engines_agree_token_by_token(other: Exact, reference: tuple[bytes, ...], tmp_path: Path) -> None:
    """Forty prompts of held-out text are continued with the same 64 tokens by the engine and the embedded llama.cpp."""
    check_equal(continuations(other.spec(tmp_path), prompts(PROMPTS, PROMPT_TOKENS), NEW_TOKENS), reference)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_shared_engines_agree_too(name: str, reference: tuple[bytes, ...], request: pytest.FixtureRequest) -> None:
    """vLLM, in process and as a server, continues them alike."""
    running = request.getfixturevalue(name)
    check_equal(running.run(continued(running.engine, prompts(PROMPTS, PROMPT_TOKENS), NEW_TOKENS)), reference)


def check_equal(replies: list[bytes], reference: tuple[bytes, ...]) -> None:
    """Fail with the first token of each reply that differs."""
    assert [len(reply) for reply in reference] == [NEW_TOKENS] * PROMPTS
    differing = {
        number: f"at token {_first_difference(ours, theirs)}: {theirs!r} is expected, {ours!r} came"
        for number, (ours, theirs) in enumerate(zip(replies, reference, strict=True))
        if ours != theirs
    }
    assert differing == {}


def _first_difference(one: bytes, other: bytes) -> int:
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
