"""Continuous batching by the library: many requests in one forward pass, each with its own stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from engines.base import EngineError
from engines.huggingface.options import PAGE_TOKENS, Options
from engines.huggingface.streaming import End, Order, Rest, TextPieces
from engines.outbox import Outbox

_LEAST_BATCH_TOKENS = 512
_NO_END = -1
_PAGED = "paged|"
_STOP_TIMEOUT_S = 30.0


class Batcher:
    """Owner of the library's manager: starts it, sends it orders, and separates its tokens by request."""

    def __init__(self, model: Any, tokenizer: Any, options: Options, context_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._open: set[Outbox[str | End]] = set()
        self._taken = 0
        self.cache_tokens = options.pages(context_tokens) * PAGE_TOKENS
        self._manager = _manager(model, options, context_tokens)

    def start(self) -> None:
        """Allocate the cache and run. On a GPU its graphs are recorded first. Blocking."""
        if self._manager.model.device.type == "cuda":
            self._manager.warmup()
        self._manager.start()

    async def reply(self, order: Order) -> AsyncIterator[str | End]:
        """Yield the text of each token ("" while it is held back), then an End.

        Raises EngineError for a sampled request: the manager has no seed per request.
        """
        if order.sampling.get("do_sample"):
            raise EngineError("continuous batching of transformers generates greedily; write temperature: 0")
        outbox: Outbox[str | End] = Outbox()
        reader = _Reader(outbox, order, TextPieces(self._tokenizer, order.stops))
        self._taken += 1
        name = f"request-{self._taken}"
        self._manager.register_result_handler(name, reader.read)
        self._open.add(outbox)
        ended = False
        try:
            ends = [_NO_END] if order.exact or not order.ends else list(order.ends)
            added = self._manager.add_request(
                list(order.tokens), request_id=name, max_new_tokens=order.most, streaming=True, eos_token_id=ends
            )
            if added is None:
                raise EngineError("the continuous batching of transformers has ended; see the log for why")
            while not ended:
                piece = await outbox.take()
                ended = isinstance(piece, End) and not reader.cut
                yield piece
                if isinstance(piece, End):
                    return
        finally:
            self._open.discard(outbox)
            outbox.closed = True
            if not ended:
                self._manager.cancel_request(name)

    def close(self) -> None:
        """End every reply with an EngineError. Call it from the event loop."""
        for outbox in list(self._open):
            outbox.put(EngineError("the engine transformers was stopped"))

    def stop(self) -> None:
        """End the manager's thread and release its cache. Blocking."""
        self._manager.stop(block=True, timeout=_STOP_TIMEOUT_S, hard_stop=True)
        self._manager.destroy()
        self._manager = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Pause the manager, and let the model attend as without it."""
        model = self._manager.model
        attention = model.config._attn_implementation
        with self._manager.pause():
            model.set_attn_implementation(attention.removeprefix(_PAGED))
            try:
                yield
            finally:
                model.set_attn_implementation(attention)


class _Reader:
    """Reader of the growing outputs of the manager."""

    def __init__(self, outbox: Outbox[str | End], order: Order, pieces: TextPieces) -> None:
        self._outbox = outbox
        self._ends = () if order.exact else order.ends
        self._pieces = pieces
        self._seen = 0
        self.cut = False

    def read(self, output: Any) -> None:
        """Send what is new in an output. Called in the event loop for every step."""
        if self.cut or self._outbox.closed:
            return
        if output.error is not None:
            self._outbox.put(EngineError(f"transformers failed in generating: {output.error}"))
            return
        for token in output.generated_tokens[self._seen :]:
            self._seen += 1
            if token in self._ends:
                break
            self._outbox.put(self._pieces.add(token))
            if self._pieces.stopped:
                self.cut = True
                self._outbox.put(End("stop", self._seen))
                return
        if output.is_finished():
            if rest := self._pieces.rest():
                self._outbox.put(Rest(rest))
            last = output.generated_tokens[-1] if output.generated_tokens else None
            self._outbox.put(End("stop" if last in self._ends else "length", self._seen))


def _manager(model: Any, options: Options, context_tokens: int) -> Any:
    from transformers import ContinuousBatchingConfig

    settings = deepcopy(model.generation_config)
    settings.do_sample = False
    settings.temperature = settings.top_p = settings.top_k = None
    settings.repetition_penalty = None
    if settings.eos_token_id is None:
        settings.eos_token_id = _NO_END
    batching = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=options.pages(context_tokens),
        max_batch_tokens=max(_LEAST_BATCH_TOKENS, options.max_batch),
        max_requests_per_batch=options.max_batch,
        allow_block_sharing=options.prefix_cache,
        auto_switch_to_flash=False,
    )
    return model.init_continuous_batching(generation_config=settings, continuous_batching_config=batching)
