"""What running an engine through the harness costs against calling its library in a bare loop: less than 2 %.

Each engine is skipped where its library is missing; `make bench` runs this file once in each environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import needs
import pytest

import engines
from benchmarks.engine_overhead import LIMIT, Overhead, overhead
from engines.base import EngineSpec, ModelReference
from harness.processes import event_loop_runner

MODEL = "gpt2-small"
pytestmark = [
    # torch and transformers announce at their import what they will drop one day.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),  # vLLM leaves it to the collector
]


def check(name: str, found: Overhead) -> None:
    """The figure is printed and held against the limit."""
    print(f"\n{name}, {MODEL}: {found}")
    assert found.share < LIMIT, f"{name}: {found}"


@pytest.mark.engines
@pytest.mark.slow
def test_transformers_loses_little_in_the_driver() -> None:
    """`model.generate` of the same loaded model with the same arguments, in a loop, its tokens taken by a streamer."""
    needs.library("transformers")

    async def main() -> Overhead:
        engine: Any = engines.create(EngineSpec("transformers", ModelReference(MODEL), "fp32", {"n_threads": 1}))
        try:
            await engine.start()
            return await overhead(engine, bare_transformers(engine), pairs=30)
        finally:
            await engine.stop()

    check("transformers", event_loop_runner()(main()))


def bare_transformers(engine: Any) -> Any:
    """The bare loop: `generate` called from a thread that does nothing else."""
    import torch

    model = engine.model

    class Kept:
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: Any) -> None:
            self.tokens.append(value)

        def end(self) -> None:
            return

    def bare(prompt: Sequence[int], tokens: int) -> None:
        ids = torch.tensor([list(prompt)])
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            streamer=Kept(),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
        )

    return bare


@pytest.mark.engines
@pytest.mark.slow
def test_llama_cpp_loses_little_in_the_driver() -> None:
    """llama.cpp's own functions on the same loaded model and context: evaluate, draw, evaluate."""
    needs.library("llama_cpp")

    async def main() -> Overhead:
        options = {"n_threads": 1, "prefix_cache": False}
        engine: Any = engines.create(EngineSpec("llama-cpp", ModelReference(MODEL), "q8_0", options))
        try:
            await engine.start()
            return await overhead(engine, bare_llama_cpp(engine), pairs=30)
        finally:
            await engine.stop()

    check("llama-cpp", event_loop_runner()(main()))


def bare_llama_cpp(engine: Any) -> Any:
    """The bare loop: two calls a token, the prompt in one."""
    native = engine.native
    c, context = native.bindings, native.context

    def bare(prompt: Sequence[int], tokens: int) -> None:
        native.clear()
        chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_greedy())
        ids = (c.llama_token * len(prompt))(*prompt)  # the batch only points to them
        assert c.llama_decode(context, c.llama_batch_get_one(ids, len(prompt))) == 0
        one = (c.llama_token * 1)()
        batch = c.llama_batch_get_one(one, 1)
        drawn = []
        for _ in range(tokens - 1):
            drawn.append(c.llama_sampler_sample(chain, context, -1))
            one[0] = drawn[-1]
            assert c.llama_decode(context, batch) == 0
        drawn.append(c.llama_sampler_sample(chain, context, -1))
        c.llama_sampler_free(chain)

    return bare


@pytest.mark.vllm_inside
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_vllm_loses_little_in_the_driver() -> None:
    """`AsyncLLM.generate` of the same started engine with the same parameters, its pieces taken and dropped."""
    needs.library("vllm")

    async def main() -> Overhead:
        options = {"enforce_eager": True, "kv_cache_space_gib": 1, "max_model_len": 512}
        engine: Any = engines.create(EngineSpec("vllm", ModelReference(MODEL), "fp32", options))
        try:
            await engine.start()
            return await overhead(engine, bare_vllm(engine), pairs=30)
        finally:
            await engine.stop()

    check("vllm", event_loop_runner()(main()))


def bare_vllm(engine: Any) -> Any:
    """The bare loop: vLLM's generator, a piece for each token."""
    from itertools import count

    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    numbers = count()

    async def bare(prompt: Sequence[int], tokens: int) -> None:
        params = SamplingParams(
            temperature=0.0,
            max_tokens=tokens,
            min_tokens=tokens,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
        )
        stream = engine.llm.generate(TokensPrompt(prompt_token_ids=list(prompt)), params, f"bare {next(numbers)}")
        async for _ in stream:
            pass

    return bare
