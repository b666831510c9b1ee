"""Request bodies: fields that the scenario adds, fields that only a dialect sets, and settings that a format lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from engines.base import Chunk, Request
from engines.dialects.answers import NOTHING
from engines.dialects.base import Pieces, WireRequest, WireResponse, cannot_carry
from engines.dialects.events import EventDecoder

SAMPLING = ("temperature", "top_p", "top_k", "seed", "stop")


class EventDialect:
    """Base of the dialects.

    Attributes:
        own: Fields that the dialect sets, dotted if nested. The scenario must not add them.
    """

    name: str
    own: frozenset[str]
    sampling: tuple[str, ...] = SAMPLING

    def __init__(self, added: Mapping[str, Any] = NOTHING) -> None:
        """Raise ValueError if `added` contains a field of `own`."""
        for name in _names(added):
            if name in self.own:
                why = f"which {self.name} sets from the scenario; leave it out there"
                raise ValueError(f"`request` must not set `{name}`, {why}")
            if any(one.startswith(f"{name}.") for one in self.own):
                raise ValueError(f"`{name}` in `request` must be a mapping for {self.name}, which adds fields to it")
        self._added = added
        self._decoder = EventDecoder(self.chunks)

    def decode(self, response: WireResponse) -> Pieces:
        return self._decoder.answer(response)

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        """Return the chunks of one event, or of a whole reply that was not streamed."""
        raise NotImplementedError

    def text_of(self, request: Request) -> str:
        """Return the conversation and prompt as one text. Raises ValueError for token ids."""
        return self._text(request.transcript)

    def messages_of(self, request: Request) -> list[dict[str, str]]:
        """Return the conversation and prompt as messages. Raises ValueError for token ids."""
        messages = []
        for turn in request.history:
            messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.reply}]
        return [*messages, {"role": "user", "content": self._text(request.prompt)}]

    def sampling_of(self, request: Request) -> dict[str, Any]:
        """Return the sampling settings of a request. Raises ValueError for one that the dialect lacks."""
        given = {name: value for name, value in request.sampling.items() if value is not None}
        for name in given:
            if name not in self.sampling:
                raise ValueError(f"{self.name} {cannot_carry(name)}")
        return given

    def _text(self, prompt: str | tuple[int, ...]) -> str:
        if not isinstance(prompt, str):
            raise ValueError(f"{self.name} cannot carry token ids: use text prompts or the dialect openai-completions")
        return prompt


def post(path: str, body: Mapping[str, Any], added: Mapping[str, Any], accept: str) -> WireRequest:
    """Return a request with a JSON body, including the fields that the scenario adds."""
    headers = {"content-type": "application/json", "accept": accept}
    return WireRequest("POST", path, headers, orjson.dumps(_merged(body, added) if added else body))


def _names(added: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Yield the dotted names of all values that are not mappings."""
    for name, value in added.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _merged(body: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings recursively. Values of `body` take precedence."""
    found = {**added, **body}
    for name in added.keys() & body.keys():
        if isinstance(added[name], Mapping) and isinstance(body[name], Mapping):
            found[name] = _merged(body[name], added[name])
    return found
