"""Interface between the load generator and a wire format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, overload

from engines.base import Chunk, ChunkKind, Request


@dataclass(frozen=True, slots=True)
class WireRequest:
    """HTTP request without the host. `headers` are those that the dialect needs, in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class WireResponse:
    """HTTP response as it arrived.

    Attributes:
        headers: Names in lower case.
        reads: Body bytes of each read from the socket without the transfer encoding; b"" for a read without any.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    reads: Sequence[bytes] = ()


class ReadChunk(NamedTuple):
    """Chunk and the index of the read that brought its last byte."""

    read: int
    chunk: Chunk


class Pieces(Sequence[ReadChunk]):
    """Chunks of a reply in order, as parallel columns: a million tokens need no million pairs.

    Attributes:
        joined: Positions of chunks that came in one event with the chunk before.
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
        self.kinds = [chunk.kind for chunk in chunks] if kinds is None else kinds
        self.joined = joined

    @classmethod
    def of(cls, pieces: Iterable[ReadChunk]) -> Pieces:
        """Return the columns of some pairs."""
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
    def __getitem__(self, index: slice) -> list[ReadChunk]: ...

    def __getitem__(self, index: int | slice) -> ReadChunk | list[ReadChunk]:
        if isinstance(index, slice):
            return list(self)[index]
        return ReadChunk(self.reads[index], self.chunks[index])


class Dialect(Protocol):
    """Wire format. A complete reply ends with a FINISH chunk, so that a truncated reply can be recognised.

    Attributes:
        headers: Headers of every request, those for pages such as the list of models included.
        generates: False if replies hold a result without tokens, such as an embedding.
        takes_images: True if prompts may have images.
    """

    name: str
    headers: Mapping[str, str]
    generates: bool
    takes_images: bool

    def key_headers(self, key: str) -> Mapping[str, str]:
        """Return the headers that carry an API key."""

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request for a server. `model` is its name on the server, None leaves it out."""

    def decode(self, response: WireResponse) -> Pieces:
        """Return all chunks of the reply in order. Malformed input becomes an ERROR chunk and never raises."""


def cannot_carry(name: str) -> str:
    """Return the end of the message for a sampling setting that a dialect lacks. The dialect's name precedes it."""
    return f"has no `{name}`: leave it out of `sampling`, or write it under `request` if the server supports it"
