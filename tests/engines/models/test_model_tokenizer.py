"""Tokenizers of model sources."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import ModelReference
from engines.models.builtin.vocabulary import byte_alphabet
from engines.models.source import resolve
from engines.models.tokenizer import ByteTokenizer, is_byte_tokenizer, tokenizer
from engines.models.types import ModelSource


@given(st.text())
def test_byte_tokenizer_round_trip(text: str) -> None:
    """Every text comes back whole, one token per UTF-8 byte."""
    clean = text.encode("utf-8", "ignore").decode()
    found = ByteTokenizer()
    ids = found.encode(clean)
    assert found.decode(ids) == clean
    assert len(ids) == found.count(clean) == len(clean.encode())


def test_byte_tokenizer_ignores_special_tokens_and_survives_broken_utf8() -> None:
    """Special ids decode to nothing, stray bytes to the replacement character."""
    assert ByteTokenizer().decode([256, 72, 105, 257, 0xE9]) == "Hi\ufffd"


def test_byte_alphabet_is_one_printable_character_per_byte() -> None:
    """The 256 characters differ, print, and are ASCII where the byte is printable ASCII."""
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == 256
    assert all(character.isprintable() and not character.isspace() for character in alphabet)
    assert alphabet[ord("A")] == "A"
    assert alphabet[ord(" ")] == "\u0120"


def test_tiny_has_a_byte_tokenizer_without_any_library() -> None:
    """The built-in model's tokenizer needs nothing installed, and its tokenizer.json says the same."""
    source = resolve(ModelReference("tiny"))
    assert isinstance(tokenizer(source), ByteTokenizer)
    assert is_byte_tokenizer(json.loads((source.path / "tokenizer.json").read_text()))


def test_no_tokenizer_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the library, another tokenizer than ours is unavailable."""
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    source = ModelSource("m", "folder", tmp_path)
    assert tokenizer(source) is None


class Cutting:
    """The library's tokenizer of a file that cuts texts to four tokens, and fills them up to eight."""

    def __init__(self) -> None:
        self.longest, self.shortest = 4, 8

    @classmethod
    def from_file(cls, _: str) -> Cutting:
        """Whatever the file says."""
        return cls()

    def no_truncation(self) -> None:
        """Cut no more."""
        self.longest = 1 << 20

    def no_padding(self) -> None:
        """Fill up no more."""
        self.shortest = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> SimpleNamespace:
        """One token per character."""
        assert not add_special_tokens
        ids = [*map(ord, text)][: self.longest]
        return SimpleNamespace(ids=ids + [0] * (self.shortest - len(ids)))


def test_a_file_that_cuts_texts_counts_them_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Models that were trained on texts of equal length are saved with a tokenizer that makes them so."""
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    monkeypatch.setitem(sys.modules, "tokenizers", SimpleNamespace(Tokenizer=Cutting))
    found = tokenizer(ModelSource("m", "folder", tmp_path))
    assert found is not None
    assert found.count("a longer text") == 13
    assert found.encode("a") == [97]


def test_no_tokenizer_without_its_file(tmp_path: Path) -> None:
    """A folder without tokenizer.json has no tokenizer."""
    source = ModelSource("m", "folder", tmp_path)
    assert tokenizer(source) is None


def test_tokenizer_file_of_tiny_means_bytes() -> None:
    """The `tokenizers` library reads the built-in tokenizer.json as one token per byte, nothing added."""
    library = pytest.importorskip("tokenizers")
    path = resolve(ModelReference("tiny")).path / "tokenizer.json"
    found = library.Tokenizer.from_file(str(path))
    for text in ("Plain text.\n", "  caf\u00e9 \u4f60\u597d\t", ""):
        assert found.encode(text).ids == ByteTokenizer().encode(text)
        assert found.decode(found.encode(text).ids) == text
    assert found.token_to_id("<|bos|>") == 256
    assert found.get_vocab_size() == 258
