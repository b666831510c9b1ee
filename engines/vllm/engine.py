"""vLLM without a server: its `AsyncLLM` in this process, with engine core and workers in their own."""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import psutil

from engines.base import Chunk, ChunkKind, EngineError, EngineInfo, EngineSpec, Request, Scores, Usage, beginning_of
from engines.process.log import read_from, size_of
from engines.process.server import ending_of, is_working
from engines.vllm.base import VllmEngine
from engines.vllm.levels import WHILE_LOADING, level_of
from engines.vllm.log import is_refusal, output_to, root_cause
from engines.vllm.model import LORA_ID, LORA_NAME
from engines.vllm.options import DTYPES, VllmOptions
from engines.vllm.scores import check_length, columns, flat_rows, scores_of, whole_vocabulary

_END_LIMIT_S = 3.0
_SAMPLING = ("temperature", "top_p", "top_k", "seed", "stop")


class Vllm(VllmEngine):
    """Engine `vllm`; implements `engines.base.InProcessEngine`. Options: `engines.vllm.options.VllmOptions`."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self._llm: Any = None
        self._processes: list[psutil.Process] = []
        self._children: list[Any] = []
        self._numbers = itertools.count(1)
        self._active: set[str] = set()
        self._loading: asyncio.Future[None] | None = None
        self._log_start = 0

    async def start(self) -> EngineInfo:
        """Load the model, which usually takes a minute.

        Raises LevelUnsupported for a level that this build of vLLM refuses, else StartFailed.
        """
        if self._loading is not None:
            raise EngineError("vllm was started already; make a new engine for another start")
        self._loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        await asyncio.shield(self._loading)
        return self._info()

    async def stop(self) -> None:
        """End vLLM's processes and release its memory here. Replies in progress end. Idempotent."""
        if self._loading is not None and not self._loading.done():
            await asyncio.wait([self._loading])  # a cancelled start continues in its thread, and makes processes
        llm, self._llm = self._llm, None
        if llm is not None:
            await llm.abort(list(self._active))
            if llm.output_handler is not None:
                llm.output_handler.cancel()  # else it reports the end of the engine core as a failure
        await asyncio.to_thread(_end, self._processes)
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)
        del llm
        self._children = []
        gc.collect()

    async def reset_cache(self) -> bool:
        return await self._llm.reset_prefix_cache() is not False

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Yield the reply, a chunk for each token, or for several that came together.

        Raises EngineError if vLLM refuses the request or its engine core has ended.
        """
        number = str(next(self._numbers))
        stream = self._stream(request, number)
        self._active.add(number)
        prompt, output, cached, pending, finish = 0, 0, None, 0, None
        try:
            async for piece in stream:
                if piece.prompt_token_ids is not None:
                    prompt = len(piece.prompt_token_ids)
                cached = piece.num_cached_tokens if piece.num_cached_tokens is not None else cached
                text, born = piece.outputs[0].text, len(piece.outputs[0].token_ids)
                output, pending = output + born, pending + born
                finish = piece.outputs[0].finish_reason or finish
                if text:  # an incomplete character comes with its last token
                    yield Chunk(ChunkKind.CONTENT, text, tokens=pending)
                    pending = 0
        except Exception as error:
            raise EngineError(self._why_failed(error)) from error
        finally:
            self._active.discard(number)
            await stream.aclose()  # cancels it in the engine core too
        if self._llm is None:
            raise EngineError("vllm was stopped")
        yield Chunk(ChunkKind.FINISH, finish_reason=finish)
        yield Chunk(ChunkKind.USAGE, usage=Usage(prompt, output, cached_tokens=cached))

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        found = self.llm.get_tokenizer()
        tokenizer = await found if asyncio.iscoroutine(found) else found
        ids: list[int] = tokenizer.encode(text, add_special_tokens=special)
        return ids

    async def beginning(self) -> list[int]:
        return await beginning_of(self.tokenize)

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Return the distributions of tokens[first:]: of all tokens up to 2^23 values, else of the most likely.

        Raises EngineError if the sequence exceeds the context.
        """
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        llm, config = self.llm, self.llm.vllm_config.model_config
        check_length(len(tokens), first, config.max_model_len)
        vocabulary = int(config.get_vocab_size())
        wanted = columns(len(tokens), vocabulary)
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            prompt_logprobs=-1 if wanted == vocabulary else wanted,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        found = None
        prompt = TokensPrompt(prompt_token_ids=list(tokens))
        try:
            async for piece in llm.generate(prompt, params, str(next(self._numbers)), lora_request=self._adapter()):
                found = piece.prompt_logprobs
        except Exception as error:
            raise EngineError(self._why_failed(error)) from error
        if found is None:
            raise EngineError("vllm returned no log-probabilities")
        rows = await asyncio.to_thread(flat_rows, found, first)
        return whole_vocabulary(scores_of(rows, tokens[first:], first, wanted), vocabulary)

    def _stream(self, request: Request, number: str) -> Any:
        from vllm import TokensPrompt

        prompt = request.transcript
        given = prompt if isinstance(prompt, str) else TokensPrompt(prompt_token_ids=list(prompt))
        more = {"lora_request": self._adapter(), "priority": request.priority or 0}
        return self.llm.generate(given, self._sampling(request), number, **more)

    def _sampling(self, request: Request) -> Any:
        """Return vLLM's parameters. An absent setting is off, regardless of the model's generation_config.json."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = {name: request.sampling[name] for name in _SAMPLING if request.sampling.get(name) is not None}
        return SamplingParams(
            **{"temperature": 0.0, **sampling},
            max_tokens=request.max_tokens,
            min_tokens=request.max_tokens if request.exact else 0,
            ignore_eos=request.exact,
            output_kind=RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY,
        )

    def _adapter(self) -> Any:
        if self._model.lora is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest(LORA_NAME, LORA_ID, str(self._model.lora))

    @property
    def llm(self) -> Any:
        """vLLM's `AsyncLLM`, once started."""
        if self._llm is None:
            raise EngineError("vllm is not running; start it first")
        return self._llm

    def import_library(self) -> None:
        self.prepare()
        with output_to(self._spec.log_path), _environment(self._model.environment()):
            from vllm.v1.engine.async_llm import AsyncLLM  # noqa: F401

    def _load(self) -> None:
        """Load the model in a thread, because the loop must keep signalling to the parent process."""
        self.prepare()
        log, self._log_start = self._spec.log_path, size_of(self._spec.log_path)
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        known = set(multiprocessing.active_children())
        try:
            with output_to(log), _environment(self._model.environment()):
                self._llm = _make(self._model.arguments())
        except Exception as error:
            raise self._start_failure(error, root_cause(self._log())) from error
        finally:
            self._processes = [one for one in _helpers() if one.pid not in before]
            self._children = [child for child in multiprocessing.active_children() if child not in known]

    def _log(self) -> str:
        return read_from(self._spec.log_path, self._log_start)

    def _start_failure(self, error: Exception, logged: str | None) -> EngineError:
        first = root_cause(f"{type(error).__name__}: " + " ".join(str(error).split()))
        cause = first or logged or type(error).__name__
        refused = not isinstance(error, ImportError) and (is_refusal(cause) or _on_cpu(self._model.plan.level))
        return self._failed(cause, refused=refused)

    def _why_failed(self, error: Exception) -> str:
        """Return one sentence about an exception of vLLM, or the exit of its process."""
        if type(error).__name__ == "EngineDeadError":
            codes = [(child.name, child.exitcode) for child in self._children if child.exitcode is not None]
            gone = [one.pid for one in self._processes if not is_working(one)]
            how = next((f"{name} {ending_of(code)}" for name, code in codes if code), None)
            return f"vllm's engine has died: {how or f'its processes {gone} ended'}; see its log"
        return f"vllm: {' '.join(str(error).split()) or type(error).__name__}"

    def _info(self) -> EngineInfo:
        import torch
        import transformers
        import vllm

        config = self.llm.vllm_config
        model, cache = config.model_config, config.cache_config
        dtype = str(model.dtype).removeprefix("torch.")
        plain = next((level for level, name in DTYPES.items() if name == dtype), dtype)
        return EngineInfo(
            version=vllm.__version__,
            level=level_of(model.quantization) if model.quantization else plain,
            pids=tuple(process.pid for process in self._processes),
            options=_in_force(self._options, config, dtype) | {"n_threads": self._model.threads_in_force(self._log())},
            libraries={"vllm": vllm.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
            device=str(config.device_config.device_type),
            slots=getattr(config.scheduler_config, "max_num_seqs", None),
            **self._facts(model.max_model_len, (cache.num_gpu_blocks or 0) * (cache.block_size or 0)),
        )


def _in_force(options: VllmOptions, config: Any, dtype: str) -> dict[str, Any]:
    """Return the options, with vLLM's choice for those left to it."""
    cache, scheduler = config.cache_config, config.scheduler_config
    found = {
        "dtype": dtype,
        "quantization": config.model_config.quantization,
        "kv_cache_dtype": cache.cache_dtype,
        "gpu_memory_utilization": cache.gpu_memory_utilization,
        "max_model_len": config.model_config.max_model_len,
        "enable_prefix_caching": bool(cache.enable_prefix_caching),
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
    }
    if config.device_config.device_type == "cpu" and cache.kv_cache_memory_bytes:
        found["kv_cache_space_gib"] = cache.kv_cache_memory_bytes >> 30
        found["gpu_memory_utilization"] = None  # not used
    return {**asdict(options), **found}


def _make(arguments: Mapping[str, Any]) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        wanted = AsyncEngineArgs(**arguments, disable_log_stats=True)
    except TypeError as error:
        raise EngineError(f"this version of vllm has no such engine argument: {error}") from error
    return AsyncLLM.from_engine_args(wanted)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Any:
    """Set variables, and remove those that vLLM adds for its processes, which must not reach others."""
    kept = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update({**settings, **kept})


def _helpers() -> list[psutil.Process]:
    """Return the descendants of this process, except Python's tracker of shared memory, which outlives the engine."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if not any("resource_tracker" in word for word in process.cmdline()):
                found.append(process)
    return found


def _end(processes: Sequence[psutil.Process]) -> None:
    """End all processes at once: the engine core alone would wait ten seconds for its workers."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(list(processes), timeout=_END_LIMIT_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_END_LIMIT_S)
    multiprocessing.active_children()  # reaps ended children


def _on_cpu(level: str) -> bool:
    """Return True if the level is one that the CPU build lacks."""
    if level not in WHILE_LOADING:
        return False
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())
