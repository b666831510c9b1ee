"""The engines agree: the same model, the same token ids, greedily, gives the same tokens.

With f32 weights, an f32 KV cache and no flash attention nothing is left but the order of additions. Chunks carry text,
no ids; with `tiny` that is the same, for its tokens are bytes and its text is ASCII.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import needs
import pytest

from engines.base import EngineSpec, ModelReference
from tests.engines.greedy import continuations, prompts

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 40, 64, 64
_EXACT_LLAMA = {
    "n_ctx": 256,
    "cache_type_k": "f32",
    "cache_type_v": "f32",
    "flash_attn": False,
    "prefix_cache": False,
}
_EXACT_VLLM = {"enforce_eager": True, "kv_cache_space_gib": 1}
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
    """An engine set to compute in f32 throughout.

    python: gives the interpreter that has it, or skips; None: it runs in this one.
    """

    engine: str
    level: str
    options: Mapping[str, Any] = field(default_factory=dict)
    library: str | None = None
    python: Callable[[], str] | None = None

    def spec(self, folder: Path) -> EngineSpec:
        """Skips the test where the engine is not installed."""
        if self.library is not None:
            needs.library(self.library)
        python = None if self.python is None else self.python()
        return EngineSpec(
            self.engine, ModelReference("tiny"), self.level, self.options, python, log_path=folder / "engine.log"
        )


REFERENCE = Exact("llama-server", "f32", {**_EXACT_LLAMA, "n_parallel": 1})
OTHERS = [
    pytest.param(Exact("llama-cpp", "f32", _EXACT_LLAMA, "llama_cpp"), marks=pytest.mark.engines, id="llama-cpp"),
    pytest.param(Exact("transformers", "fp32", library="transformers"), marks=pytest.mark.engines, id="transformers"),
    pytest.param(Exact("vllm", "fp32", _EXACT_VLLM, "vllm"), marks=[pytest.mark.vllm_inside, *_SLOW_START], id="vllm"),
    pytest.param(
        Exact("vllm-server", "fp32", _EXACT_VLLM, python=needs.vllm_python),
        marks=[pytest.mark.vllm, *_SLOW_START],
        id="vllm-server",
    ),
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
    spec = other.spec(tmp_path)
    replies = continuations(spec, prompts(PROMPTS, PROMPT_TOKENS), NEW_TOKENS)
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
