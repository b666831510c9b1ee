"""Fields that a scenario adds to the bodies of requests, leaves out of them, or calls by another name."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson


class Sends(NamedTuple):
    """Fields that a dialect sends, dotted if nested.

    Attributes:
        own: Those that it sets from the scenario.
        default: Those that the scenario may set otherwise.
        needed: Those of `own` without which there is no request.
    """

    own: frozenset[str]
    default: frozenset[str]
    needed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Additions:
    """Changes of a body.

    Attributes:
        added: Fields to add; within a field that the dialect leaves open, they take precedence.
        unsaid: Fields to add where neither the request nor `added` has them.
        left_out: Paths of the dialect's own fields that are not sent.
        renamed: Names of the body's fields, if the server's differ.
    """

    added: Mapping[str, Any] = field(default_factory=dict)
    unsaid: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[tuple[str, ...], ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any], sends: Sends, dialect: str) -> Additions:
        """Return the additions of a `request`, in which a null leaves one of the dialect's fields out.

        Raises ValueError for a field that the dialect sets from the scenario, and for leaving out one that it needs.
        """
        own, left_out = sends.own, []
        for path, value in _leaves(given):
            name = ".".join(path)
            above = [one for one in (".".join(path[:n]) for n in range(1, len(path) + 1)) if one in own]
            inside = [one for one in own if one.startswith(f"{name}.")]
            if value is None and (above == [name] or inside or name in sends.default):
                if name in sends.needed:
                    raise ValueError(f"`request` must not leave `{name}` out, which {dialect} needs")
                left_out.append(path)
            elif above:
                why = f"which {dialect} sets from the scenario; leave it out there, or write null to send none"
                raise ValueError(f"`request` must not set `{above[0]}`, {why}")
            elif inside:
                raise ValueError(f"`{name}` in `request` must be a mapping for {dialect}, which adds fields to it")
            if (why_not := _no_json(value)) is not None:
                raise ValueError(f"`{name}` in `request` cannot be sent as JSON: {why_not}")
        return cls(_without(given, left_out), left_out=tuple(left_out))

    def applied_to(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the body as it is sent."""
        found = {**self.unsaid, **body} if self.unsaid else body
        found = _merged(found, self.added) if self.added else found
        found = _without(found, self.left_out) if self.left_out else found
        return {self.renamed.get(name, name): value for name, value in found.items()} if self.renamed else found


def _leaves(given: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the value of all that are no mappings, or empty ones."""
    for name, value in given.items():
        if not isinstance(name, str):
            raise ValueError(f"`request` has the key {name!r}, which is no text; write it in quotes")
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*before, name))
        else:
            yield (*before, name), value


def _no_json(value: Any) -> str | None:
    """Return why JSON has no such value."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"it has no {value}"
    try:
        orjson.dumps(value)
    except TypeError as error:
        return str(error)
    return None


def _without(values: Mapping[str, Any], paths: Collection[tuple[str, ...]]) -> dict[str, Any]:
    """Return the values without those at some paths."""
    found = {}
    for name, value in values.items():
        inside = [path[1:] for path in paths if path[0] == name]
        if () in inside:
            continue
        found[name] = _without(value, inside) if inside and isinstance(value, Mapping) else value
    return found


def _merged(body: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings recursively; values of `added` take precedence."""
    found = {**body, **added}
    for name in added.keys() & body.keys():
        if isinstance(added[name], Mapping) and isinstance(body[name], Mapping):
            found[name] = _merged(body[name], added[name])
    return found
