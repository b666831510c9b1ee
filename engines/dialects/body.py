"""Request bodies: fields that the scenario adds, fields that only a dialect sets, and settings that a format lacks."""

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
    """Return a request with a JSON body, including the fields that the scenario adds."""
    headers = {"content-type": "application/json", "accept": accept}
    return WireRequest("POST", path, headers, orjson.dumps(_merged(body, added) if added else body))


def text_of(request: Request, dialect: str) -> str:
    """Return the conversation and prompt as one text. Raises ValueError for token ids."""
    transcript = request.transcript
    if not isinstance(transcript, str):
        raise ValueError(f"{dialect} cannot carry token ids: use text prompts or the dialect openai-completions")
    return transcript


def sampling_of(request: Request, names: Iterable[str], dialect: str) -> dict[str, Any]:
    """Return the sampling settings of a request. Raises ValueError for one that the dialect lacks."""
    given = {name: value for name, value in request.sampling.items() if value is not None}
    known = set(names)
    for name in given:
        if name not in known:
            raise ValueError(f"{dialect} {cannot_carry(name)}")
    return given


def check_added(added: Mapping[str, Any], own: Collection[str], dialect: str) -> None:
    """Raise ValueError if `added` contains a field that the dialect sets.

    Args:
        own: Fields of the dialect, dotted if nested.
    """
    for name in _names(added):
        if name in own:
            raise ValueError(
                f"`request` must not set `{name}`, which {dialect} sets from the scenario; leave it out there"
            )
        if any(one.startswith(f"{name}.") for one in own):
            raise ValueError(f"`{name}` in `request` must be a mapping for {dialect}, which adds fields to it")


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
