"""Request bodies: fields that the scenario adds, fields that only a dialect sets, and settings that a format lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from engines.base import Chunk, Request
from engines.dialects.additions import Additions, Sends
from engines.dialects.answers import NOTHING
from engines.dialects.base import Pieces, WireRequest, WireResponse, cannot_carry
from engines.dialects.events import EventDecoder

SAMPLING = ("temperature", "top_p", "top_k", "seed", "stop")


class EventDialect:
    """Base of the dialects.

    Attributes:
        own: Fields that the dialect sets, dotted if nested. The scenario must not set them.
        default: Fields that it sends unless the scenario sets them.
        needed: Those of `own` that the scenario cannot leave out.
        headers, generates, takes_images: See `Dialect`.
    """

    name: str
    own: frozenset[str]
    default: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset({"prompt", "messages", "input", "inputs", "query", "documents", "stream"})
    sampling: tuple[str, ...] = SAMPLING
    headers: Mapping[str, str] = NOTHING
    generates = True
    takes_images = False

    def __init__(self, added: Mapping[str, Any] = NOTHING) -> None:
        """Raise ValueError if `added` sets a field of `own`, or leaves out one that is needed."""
        self._added = Additions.of(added, Sends(self.own, self.default, self.needed), self.name)
        self._decoder = EventDecoder(self.chunks)

    def rename(self, names: Mapping[str, str]) -> None:
        """Send fields of the body by other names. Raises ValueError for a name that the dialect does not send."""
        sent = {one.partition(".")[0] for one in self.own | self.default}
        for name, other in names.items():
            if name not in sent:
                raise ValueError(f"`rename` names `{name}`, which {self.name} does not send; leave it out")
            if other in sent | self._added.added.keys() or [*names.values()].count(other) > 1:
                raise ValueError(f"`rename` gives `{name}` the name of another key, `{other}`; choose another")
        self._added = replace(self._added, renamed=names)

    def decode(self, response: WireResponse) -> Pieces:
        return self._decoder.answer(response)

    def key_headers(self, key: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        """Return the chunks of one event, or of a whole reply that was not streamed."""
        raise NotImplementedError

    def text_of(self, request: Request) -> str:
        """Return the conversation and prompt as one text. Raises ValueError for token ids."""
        return self._text(request.transcript)

    def messages_of(self, request: Request) -> list[dict[str, Any]]:
        """Return the conversation and prompt as messages. Raises ValueError for token ids."""
        messages: list[dict[str, Any]] = [{"role": message.role, "content": message.text} for message in request.before]
        for turn in request.history:
            messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.reply}]
        messages.append({"role": "user", "content": self._text(request.prompt)})
        if request.images:
            first = next(message for message in messages if message["role"] == "user")
            first |= self.illustrated(first["content"], request.images)
        return messages

    def illustrated(self, text: str, images: Sequence[str]) -> dict[str, Any]:
        """Return the content of a message with images. Raises ValueError if the format has none."""
        raise ValueError(f"{self.name} carries no images")

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


def as_data_url(image: str) -> str:
    """Return a PNG image in base64 as a URL (RFC 2397)."""
    return f"data:image/png;base64,{image}"


def post(path: str, body: Mapping[str, Any], added: Additions, accept: str) -> WireRequest:
    """Return a request with a JSON body, with the changes of the scenario."""
    headers = {"content-type": "application/json", "accept": accept}
    return WireRequest("POST", path, headers, orjson.dumps(added.applied_to(body)))
