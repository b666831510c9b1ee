"""`generate` in a thread, its tokens as text in the event loop; one request at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from engines.base import EngineError
from engines.outbox import Outbox
from engines.text import StopStrings


class TextPieces:
    """Converter of token ids to text that is certain.

    An incomplete character and the possible start of a stop string are held back.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._step = DecodeStream(skip_special_tokens=False).step
        self._text = StopStrings(stops)
        self._incomplete: list[int] = []

    @property
    def stopped(self) -> bool:
        """True once a stop string was found. Neither it nor the text behind it belongs to the reply."""
        return self._text.stopped

    def add(self, token: int) -> str:
        """Return the text that is certain after this token."""
        text: str | None = self._step(self._tokenizer, token)
        if text is None:
            self._incomplete.append(token)
            return ""
        self._incomplete.clear()
        return self._text.take(text)

    def rest(self) -> str:
        """Return the text held back at the end of the reply."""
        if self.stopped:
            return ""
        tail: str = self._tokenizer.decode(self._incomplete, skip_special_tokens=False) if self._incomplete else ""
        return self._text.rest() + tail


@dataclass(frozen=True, slots=True)
class Order:
    """Request in the form of the library."""

    tokens: Sequence[int]  # of the prompt
    most: int  # new tokens
    ends: tuple[int, ...] = ()  # ids that end the reply; with `exact` they are never chosen
    exact: bool = False
    stops: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)  # arguments of `generate`
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """End of a reply. `tokens` counts the generated ones, including the one that ended it."""

    finish_reason: str
    tokens: int


class Rest(str):
    """Text that was held back and belongs to no further token."""

    __slots__ = ()


class _Ended(Exception):
    """The reader has closed the reply, or a stop string was found."""


class _Streamer:
    """Streamer that `generate` calls in its thread."""

    def __init__(self, order: Order, pieces: TextPieces, outbox: Outbox[str | End]) -> None:
        self._ends = frozenset(order.ends)
        self._pieces = pieces
        self._outbox = outbox
        self._prompt_seen = False
        self.tokens = 0
        self.ended = False

    def put(self, value: Any) -> None:
        """Receive the prompt first, then each token."""
        if self._outbox.closed:
            raise _Ended
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        token = int(value)
        self.tokens += 1
        if token in self._ends:
            self.ended = True
            return
        self._outbox.put(self._pieces.add(token))
        if self._pieces.stopped:
            raise _Ended

    def end(self) -> None:
        pass  # `Decoder` ends the reply


class Decoder:
    """Thread that runs `model.generate`, one order after the other."""

    def __init__(self, model: Any, tokenizer: Any, arguments: Mapping[str, Any], threads: ThreadPoolExecutor) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._arguments = arguments
        self._threads = threads
        self._open: set[Outbox[str | End]] = set()

    async def reply(self, order: Order) -> AsyncIterator[str | End]:
        """Yield the text of each token ("" while it is held back), then an End."""
        outbox: Outbox[str | End] = Outbox()
        self._open.add(outbox)
        job = self._threads.submit(self._generate, order, outbox)
        try:
            while True:
                piece = await outbox.take()
                yield piece
                if isinstance(piece, End):
                    return
        finally:
            self._open.discard(outbox)
            outbox.closed = True
            job.cancel()

    def close(self) -> None:
        """End every reply with an EngineError."""
        for outbox in list(self._open):
            outbox.closed = True
            outbox.put(EngineError("the engine transformers was stopped"))

    def _generate(self, order: Order, outbox: Outbox[str | End]) -> None:
        pieces = TextPieces(self._tokenizer, order.stops)
        streamer = _Streamer(order, pieces, outbox)
        try:
            self._call(order, streamer, outbox)
        except _Ended:
            if pieces.stopped:
                outbox.put(End("stop", streamer.tokens))
            return
        except Exception as error:  # the request fails, not the thread
            outbox.put(EngineError(f"transformers failed in generating: {type(error).__name__}: {error}"))
            return
        if rest := pieces.rest():
            outbox.put(Rest(rest))
        outbox.put(End("stop" if streamer.ended else "length", streamer.tokens))

    def _call(self, order: Order, streamer: _Streamer, outbox: Outbox[str | End]) -> None:
        import torch

        if outbox.closed:
            raise _Ended
        if order.seed is not None:
            torch.manual_seed(order.seed)
        ids = torch.tensor([list(order.tokens)], device=self._model.device)
        self._model.generate(
            ids, attention_mask=torch.ones_like(ids), streamer=streamer, **generate_arguments(order), **self._arguments
        )


class _NeverEnd:
    """Logits processor that excludes the ids that would end the reply."""

    def __init__(self, ends: Sequence[int]) -> None:
        self._ends = list(ends)

    def __call__(self, ids: Any, scores: Any) -> Any:
        scores[:, self._ends] = float("-inf")
        return scores


def generate_arguments(order: Order) -> dict[str, Any]:
    """Return the arguments of `generate` for an order, without the prompt."""
    arguments: dict[str, Any] = {"max_new_tokens": order.most, **order.sampling}
    if not order.ends:
        return arguments
    arguments |= {"eos_token_id": list(order.ends), "pad_token_id": order.ends[0]}
    if order.exact:
        from transformers import LogitsProcessorList

        arguments["logits_processor"] = LogitsProcessorList([_NeverEnd(order.ends)])
    return arguments
