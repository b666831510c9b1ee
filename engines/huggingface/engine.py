"""Engine `transformers`: torch in this process.

The engine measures `model.generate` as users call it, with a streamer that passes each token on at once: one request at
a time, the others wait. With `batching: continuous` the library's own manager computes many requests in one pass.
Either runs in its own thread, and the event loop only receives tokens.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engines.base import (
    NO_USAGE_REPORTS,
    Chunk,
    ChunkKind,
    EngineError,
    EngineInfo,
    EngineSpec,
    MemoryEstimate,
    ModelError,
    Request,
    Scores,
    Usage,
    beginning_of,
    check_first,
)
from engines.huggingface import levels, loading
from engines.huggingface.batching import Batcher
from engines.huggingface.options import (
    ENGINE,
    PAGE_TOKENS,
    cache_arguments,
    new_tokens,
    parse_options,
    sampling_arguments,
)
from engines.huggingface.streaming import Decoder, End, Order, Rest
from engines.models import source as models
from engines.models.shape import shape_of
from engines.models.types import ModelSource
from engines.process.memory import free_memory
from engines.text import stop_strings

if TYPE_CHECKING:
    from engines.models.shape import ModelShape

# Lower bound of the process' memory without weights, once torch and transformers are loaded; measured on the CPU.
_RUNTIME_BYTES = 250 << 20
_LIBRARIES = (
    *("torch", "transformers", "tokenizers", "accelerate", "bitsandbytes", "torchao", "compressed-tensors", "peft"),
)


class _Found(NamedTuple):
    """Result of prepare(). The hash is computed there because start() is timed."""

    source: ModelSource
    files: tuple[Path, ...]
    adapter: Path | None
    model_hash: str


class Transformers:
    """Engine `transformers`; implements `engines.base.InProcessEngine`. Options: `engines.huggingface.options`."""

    def __init__(self, spec: EngineSpec) -> None:
        if spec.model is None:
            raise EngineError("transformers needs a model; name one, for example model: tiny")
        self._spec = spec
        self._options = parse_options(spec.options)
        self._threads: ThreadPoolExecutor | None = None
        self._tokenizer: Any = None
        self._loaded: loading.Loaded | None = None
        self._replies: Decoder | Batcher | None = None
        self._context_tokens = 0
        self._ends: tuple[int, ...] = ()

    @property
    def model(self) -> Any:
        """Loaded model of the library; None while the engine does not run."""
        return self._loaded.model if self._loaded else None

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        return levels.LEVELS

    @classmethod
    def devices(cls, level: str) -> tuple[str, ...]:
        return levels.places(level)

    def prepare(self) -> Sequence[Path]:
        """Find or fetch model and adapter. Raises LevelUnsupported if the checkpoint does not allow the level."""
        return self._found.files

    @cached_property
    def _found(self) -> _Found:
        reference = self._spec.model
        assert reference is not None
        source = models.resolve(reference)
        if source.kind == "gguf":
            raise ModelError(f"transformers cannot load the GGUF file {source.path.name}; name a model folder")
        levels.level_to_load(self._spec.level, source.path, source.name)
        files = tuple(models.weight_files(source))
        adapter = None if reference.lora is None else loading.adapter_folder(reference.lora)
        if adapter is not None:
            files += (adapter / "adapter_model.safetensors",)
        return _Found(source, files, adapter, models.content_hash(source))

    def import_library(self) -> None:
        """Import torch, transformers, its code for this model, and the library of the level. Raises ImportError."""
        import torch  # noqa: F401
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        config = AutoConfig.from_pretrained(self._found.source.path, local_files_only=True)
        with suppress(KeyError):  # not a text model: start() will report it
            MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        if self._spec.level in levels.BITSANDBYTES:
            import bitsandbytes  # noqa: F401

    def memory_needed(self) -> MemoryEstimate | None:
        """Return a lower bound: weights at the level, the cache of continuous batching, and torch itself.

        None with `max_memory`, which divides the weights among the memories of GPUs and host.
        """
        if self._options.max_memory is not None:
            return None
        source = self._found.source
        shape = shape_of(source.path)
        level = levels.level_to_load(self._spec.level, source.path, source.name)
        weights = sum(path.stat().st_size for path in self._found.files)
        if level is not None and shape is not None and shape.parameters is not None:
            weights = int(shape.parameters * levels.bytes_per_weight(level))
        parts = {"weights": weights}
        if self._options.continuous and shape is not None:
            pages = self._options.pages(self._options.context(shape.context_tokens))
            parts["kv_cache"] = int(pages * PAGE_TOKENS * shape.kv_bytes_per_token(4.0 if level == "fp32" else 2.0))
        if loading.choose_device(self._options, self._spec.devices) != "cpu":
            return MemoryEstimate("cuda", parts)
        return MemoryEstimate("cpu", {**parts, "runtime": _RUNTIME_BYTES})

    async def start(self) -> EngineInfo:
        """Load the model. Raises LevelUnsupported or StartFailed with the library's reason."""
        if self._threads is not None:
            raise EngineError("transformers was started already; make a new engine for another start")
        threads = self._threads = ThreadPoolExecutor(1, thread_name_prefix=ENGINE)
        return await asyncio.get_running_loop().run_in_executor(threads, self._load, threads)

    async def stop(self) -> None:
        """End all generation and release the model. Its memory returns to the system; torch stays loaded."""
        await self._end_replies()
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)
        await self._end_replies()  # those of a model that was still being loaded
        self._loaded = self._tokenizer = None
        await asyncio.to_thread(_free_memory)

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Yield the reply token by token, then the finish reason and the counts."""
        tokens = self._replies
        if tokens is None:
            raise EngineError("the engine transformers is not running; call start() first")
        order = self._order(request)
        replies = tokens.reply(order)
        whole: list[str] = []
        pending = 0
        try:
            async for part in replies:
                if isinstance(part, End):
                    if whole:
                        yield Chunk(ChunkKind.CONTENT, "".join(whole), tokens=part.tokens)
                    yield Chunk(ChunkKind.FINISH, finish_reason=part.finish_reason)
                    yield Chunk(ChunkKind.USAGE, usage=Usage(len(order.tokens), part.tokens))
                    return
                pending += not isinstance(part, Rest)
                if not request.stream:
                    whole.append(part)
                elif part:  # a token without text comes with the text that it is part of
                    yield Chunk(ChunkKind.CONTENT, part, tokens=pending)
                    pending = 0
        finally:
            await replies.aclose()  # type: ignore[attr-defined]

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Return all log-probabilities of tokens[first:] from one forward pass, natural logarithms in float32.

        Raises EngineError if the tokens exceed the context.
        """
        if self._threads is None or self._loaded is None:
            raise EngineError("the engine transformers is not running; call start() first")
        check_first(first, len(tokens))
        if len(tokens) > self._context_tokens:
            raise EngineError(f"{len(tokens)} tokens do not fit the context of {self._context_tokens}; raise n_ctx")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._score, tuple(tokens), first)

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return self._ids(text, special=special)

    async def beginning(self) -> list[int]:
        return await beginning_of(self.tokenize)

    async def _end_replies(self) -> None:
        replies, self._replies = self._replies, None
        if replies is not None:
            replies.close()
        if isinstance(replies, Batcher):
            await asyncio.to_thread(replies.stop)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        if self._tokenizer is None:
            raise EngineError("the engine transformers is not running; call start() first")
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def _order(self, request: Request) -> Order:
        prompt = request.transcript
        # The tokenizer adds the tokens that the model expects in front, as in the other engines.
        ids = self._ids(prompt, special=True) if isinstance(prompt, str) else prompt
        if not ids:
            raise EngineError("the prompt has no tokens; transformers needs at least one")
        return Order(
            tokens=ids,
            most=new_tokens(request, len(ids), self._context_tokens),
            ends=self._ends,
            exact=request.exact,
            stops=stop_strings(request),
            sampling=sampling_arguments(request.sampling),
            seed=request.sampling.get("seed"),
        )

    def _load(self, threads: ThreadPoolExecutor) -> EngineInfo:
        for name, value in NO_USAGE_REPORTS.items():
            os.environ.setdefault(name, value)
        source = self._found.source
        import torch

        torch.set_num_threads(self._options.threads)
        shape = shape_of(source.path)
        self._context_tokens = self._options.context(shape.context_tokens if shape else None)
        self._tokenizer = _tokenizer(source)
        loaded = loading.load(source.path, source.name, self._spec, self._options, self._found.adapter)
        model, self._loaded = loaded.model, loaded
        self._ends = _ends(model)
        if self._options.continuous:
            batcher = Batcher(model, self._tokenizer, self._options, self._context_tokens)
            batcher.start()
            self._replies = batcher
        else:
            arguments = cache_arguments(self._options, loaded.device)
            self._replies = Decoder(model, self._tokenizer, arguments, threads)
        return self._info(loaded, shape)

    def _info(self, loaded: loading.Loaded, shape: ModelShape | None) -> EngineInfo:
        import torch
        import transformers

        attention = str(loaded.model.config._attn_implementation)
        per_token = self._kv_bytes_per_token(loaded.model, shape)
        memory = {} if loaded.weight_bytes is None else {"weights": loaded.weight_bytes}
        if isinstance(self._replies, Batcher) and per_token is not None:
            memory["kv_cache"] = int(self._replies.cache_tokens * per_token)
        if loaded.device != "cpu":
            memory["device_peak"] = torch.cuda.max_memory_allocated()
        return EngineInfo(
            name=ENGINE,
            version=transformers.__version__,
            model=self._found.source.name,
            model_hash=self._found.model_hash,
            level=loaded.level,
            weight_bytes=sum(path.stat().st_size for path in self._found.files),
            context_tokens=self._context_tokens,
            options=self._options.in_force(self._context_tokens, loaded.device, attention),
            libraries=_versions(),
            device=loaded.device,
            parameters=shape.parameters if shape else None,
            kv_bytes_per_token=per_token,
            memory=memory,
            slots=self._options.max_batch if self._options.continuous else 1,
        )

    def _kv_bytes_per_token(self, model: Any, shape: ModelShape | None) -> float | None:
        """Return the size of a token in the KV cache; None if the cache's format decides or the shape is unknown."""
        if self._options.cache == "none":
            return 0.0
        if shape is None or self._options.cache == "quantized":
            return None
        return shape.kv_bytes_per_token(float(model.dtype.itemsize))

    def _score(self, tokens: Sequence[int], first: int) -> Scores:
        import torch

        assert self._loaded is not None
        model = self._loaded.model
        alone = self._replies.alone() if isinstance(self._replies, Batcher) else nullcontext()
        with alone, torch.inference_mode():
            ids = torch.tensor([list(tokens)], device=model.device)
            logits = model(ids[:, :-1], use_cache=False).logits[0, first - 1 :]
            logprobs = torch.log_softmax(logits.float(), dim=-1)
            true = logprobs.gather(1, ids[0, first:, None].to(logprobs.device))[:, 0]
        return Scores(first, logprobs.cpu().numpy(), None, true.cpu().numpy())


def _tokenizer(source: ModelSource) -> Any:
    """Return the model's tokenizer without truncation and padding."""
    from tokenizers import Tokenizer

    path = source.path / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"the folder of {source.name} has no tokenizer.json; save its tokenizer with transformers")
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
    found.no_truncation()
    found.no_padding()
    return found


def _ends(model: Any) -> tuple[int, ...]:
    """Return the ids that end a reply."""
    stated = model.generation_config.eos_token_id
    if stated is None:
        return ()
    return (stated,) if isinstance(stated, int) else tuple(stated)


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):  # not every level needs it
            found[name] = version(name)
    return found


def _free_memory() -> None:
    """Return the memory that Python, torch and the C library keep to the system and the GPU."""
    free_memory()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
