"""Compressed replies: what they hold, read by read, and no more of it than is wanted."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.drivers.http.response import decoded

MOST = 1 << 20
MIB_OF_ZEROS = bytes(1 << 20)


def packed(kind: str, body: bytes) -> bytes:
    """The body so encoded."""
    if kind == "gzip":
        return gzip.compress(body)
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS if kind == "deflate" else -zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def in_reads(body: bytes, size: int) -> Sequence[bytes]:
    """The body in pieces."""
    return [body[start : start + size] for start in range(0, len(body), size)]


@given(st.sampled_from(["gzip", "deflate"]), st.lists(st.binary(max_size=9_000), max_size=6), st.integers(1, 5000))
def test_members_in_any_reads(kind: str, members: list[bytes], size: int) -> None:
    """Several compressed members one after the other are one body, however they are cut."""
    reads = in_reads(b"".join(packed(kind, member) for member in members), size)
    found, complete = decoded(kind, reads, MOST)
    assert b"".join(found) == b"".join(members)
    assert len(found) == len(reads)
    assert complete


@given(st.binary(max_size=9_000), st.integers(1, 5000))
def test_deflate_without_its_frame(body: bytes, size: int) -> None:
    """Some servers send it so."""
    found, complete = decoded("deflate", in_reads(packed("raw", body), size), MOST)
    assert b"".join(found) == body
    assert complete


@pytest.mark.parametrize("kind", ["gzip", "deflate", "raw"])
@pytest.mark.parametrize("size", [1, 700, 65_536])
def test_a_bomb_is_inflated_no_further_than_wanted(kind: str, size: int) -> None:
    """64 MiB of zeros in some KiB: one byte more than wanted is made of it, the reads keep their number."""
    reads = in_reads(packed(kind, MIB_OF_ZEROS * 64), size)
    found, complete = decoded("gzip" if kind == "gzip" else "deflate", reads, MOST)
    assert not complete
    assert sum(map(len, found)) == MOST + 1
    assert len(found) == len(reads)


def test_a_bomb_in_many_members() -> None:
    """Each is small, all together are too much."""
    found, complete = decoded("gzip", [gzip.compress(MIB_OF_ZEROS[:1000]) * 5000], MOST)
    assert not complete
    assert sum(map(len, found)) == MOST + 1


def test_exactly_as_much_as_wanted() -> None:
    """The body is complete."""
    found, complete = decoded("gzip", [gzip.compress(MIB_OF_ZEROS)], MOST)
    assert complete
    assert sum(map(len, found)) == MOST


@pytest.mark.parametrize("kind", ["br", "zstd", "gzip, gzip", "compress"])
def test_another_encoding_is_a_sentence(kind: str) -> None:
    """Nobody asked for it."""
    with pytest.raises(ValueError, match=f"encoded its answer as {kind}"):
        decoded(kind, [b"x"], MOST)
