"""Bodies of requests: what the scenario adds to them, what only we may set, and what a format cannot carry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import orjson

from engines.base import Request
from engines.dialects.base import WireRequest, cannot_carry

SAMPLING = ("temperature", "top_p", "top_k", "seed", "stop")
NOTHING: Mapping[str, Any] = MappingProxyType({})


def post(path: str, body: Mapping[str, Any], added: Mapping[str, Any], accept: str) -> WireRequest:
    """A body as JSON, with what the scenario adds to every request."""
    headers = {"content-type": "application/json", "accept": accept}
    return WireRequest("POST", path, headers, orjson.dumps(_merged(body, added) if added else body))


def text_of(request: Request, dialect: str) -> str:
    """The prompt with the conversation before it. Raises ValueError for token ids, which the dialect cannot carry."""
    transcript = request.transcript
    if not isinstance(transcript, str):
        raise ValueError(f"{dialect} cannot carry token ids: use text prompts or the dialect openai-completions")
    return transcript


def sampling_of(request: Request, names: Iterable[str], dialect: str) -> dict[str, Any]:
    """The sampling settings that are given. Raises ValueError for one that the dialect has no name for."""
    given = {name: value for name, value in request.sampling.items() if value is not None}
    known = set(names)
    for name in given:
        if name not in known:
            raise ValueError(f"{dialect} {cannot_carry(name)}")
    return given


def check_added(added: Mapping[str, Any], own: Collection[str], dialect: str) -> None:
    """Raises ValueError where `added` sets what the dialect sets itself. own: those names, dotted where nested."""
    for name in _names(added):
        if name in own:
            raise ValueError(
                f"`request` must not set `{name}`, which {dialect} sets from the scenario; leave it out there"
            )
        if any(one.startswith(f"{name}.") for one in own):
            raise ValueError(f"`{name}` in `request` must be a mapping for {dialect}, for more is put into it")


def _names(added: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """The dotted names of all values that are no mappings."""
    for name, value in added.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _merged(body: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Both, mappings within each other merged; what the body has stays."""
    found = {**added, **body}
    for name in added.keys() & body.keys():
        if isinstance(added[name], Mapping) and isinstance(body[name], Mapping):
            found[name] = _merged(body[name], added[name])
    return found
