"""The seam between the measuring client and a wire format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple, Protocol, overload

from engines.base import Chunk, ChunkKind, Request

_KIND = attrgetter("kind")


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One HTTP request, without the host; `headers` are those the dialect needs, lower-case names."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class WireResponse:
    """One HTTP response as it came in.

    status: HTTP status.   headers: names in lower case.
    reads: body bytes of each read from the socket, transfer encoding removed; b"" where a read brought none.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    reads: Sequence[bytes] = ()


class ReadChunk(NamedTuple):
    """A chunk and the index of the read that brought its last byte."""

    read: int
    chunk: Chunk


class Pieces(Sequence[ReadChunk]):
    """The pieces of a reply in order, as columns that run in parallel: a million tokens need no million pairs.

    reads, chunks: as in ReadChunk.   kinds: of the chunks.   joined: the places of those that came in one event with
    the piece before them.
    """

    __slots__ = ("chunks", "joined", "kinds", "reads")

    def __init__(
        self,
        reads: Sequence[int],
        chunks: list[Chunk],
        kinds: list[ChunkKind] | None = None,
        joined: Sequence[int] = (),
    ) -> None:
        self.reads = reads
        self.chunks = chunks
        self.kinds = list(map(_KIND, chunks)) if kinds is None else kinds
        self.joined = joined

    @classmethod
    def of(cls, pieces: Iterable[ReadChunk]) -> Pieces:
        """From pairs."""
        if isinstance(pieces, Pieces):
            return pieces
        listed = list(pieces)
        return cls([read for read, _ in listed], [chunk for _, chunk in listed])

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[ReadChunk]:
        return map(ReadChunk, self.reads, self.chunks)

    @overload
    def __getitem__(self, index: int) -> ReadChunk: ...

    @overload
    def __getitem__(self, index: slice) -> Pieces: ...

    def __getitem__(self, index: int | slice) -> ReadChunk | Pieces:
        if isinstance(index, slice):
            places = range(len(self.chunks))[index]
            joined = [at for at, place in enumerate(places) if place in self.joined]
            return Pieces(self.reads[index], self.chunks[index], self.kinds[index], joined)
        return ReadChunk(self.reads[index], self.chunks[index])


class Dialect(Protocol):
    """A wire format.

    encode(): the request for a server; `model` is the name the server knows, None leaves it out.
    decode(): every piece of the reply in order. Never raises on malformed input: it yields an ERROR chunk.
    The end of a complete reply is a FINISH chunk, so that a reply which was cut off can be told from a whole one.
    """

    name: str

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """The request on the wire."""
        ...

    def decode(self, response: WireResponse) -> Pieces:
        """The pieces of the reply."""
        ...


def cannot_carry(name: str) -> str:
    """What is said of a dialect that has no word for a sampling setting, behind the dialect's name."""
    return (
        f"has no `{name}`: leave it out of `sampling`, or write it under `request` if the server knows it all the same"
    )
