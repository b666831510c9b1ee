"""Tokenizers of models, to count tokens that an engine does not count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engines.base import ModelError
from engines.models.builtin.vocabulary import LLAMA3_SPLIT, byte_alphabet, pieces
from engines.models.gguf.header import read_header
from engines.models.source import json_file

if TYPE_CHECKING:
    from engines.models.types import ModelSource


class Tokenizer(Protocol):
    """Text to token ids and back, without special tokens. `name` is for reports."""

    name: str

    def encode(self, text: str) -> list[int]:
        """Return the token ids of the text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the ids. Invalid UTF-8 becomes U+FFFD."""

    def count(self, text: str) -> int:
        """Return the number of tokens of the text."""
        return len(self.encode(text))


class ByteTokenizer(Tokenizer):
    """Tokenizer of UTF-8 bytes, token id = byte. Ids from 256 up are special and decode to nothing."""

    name = "bytes"

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if token < 256).decode("utf-8", "replace")

    def count(self, text: str) -> int:
        return len(text.encode())


class PieceTokenizer(Tokenizer):
    """Tokenizer without merges: a part of the text is one token, or one token per byte.

    Bytes without a token are left out. The ids of `control` decode to nothing.
    """

    def __init__(self, vocabulary: Mapping[str, int], control: frozenset[int], name: str) -> None:
        self.name = name
        self._ids = dict(vocabulary)
        self._texts = {index: text for text, index in vocabulary.items() if index not in control}
        self._alphabet = byte_alphabet()
        self._bytes = {character: byte for byte, character in enumerate(self._alphabet)}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in pieces(text):
            written = "".join(self._alphabet[byte] for byte in piece.encode("utf-8", "surrogatepass"))
            whole = self._ids.get(written)
            ids += [whole] if whole is not None else [self._ids[one] for one in written if one in self._ids]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        written = "".join(self._texts.get(index, "") for index in ids)
        return bytes(self._bytes[character] for character in written).decode("utf-8", "replace")


class FileTokenizer(Tokenizer):
    """A `tokenizer.json`, read by the `tokenizers` library."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Library

        try:
            self._library = Library.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
        self._library.no_truncation()  # some files cut each text, or fill it up, as in training
        self._library.no_padding()
        self.name = f"tokenizer.json of {path.parent.name}"

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._library.decode(list(ids), skip_special_tokens=True)
        return text


def tokenizer(source: ModelSource) -> Tokenizer | None:
    """Return the tokenizer of a model, None if it is unavailable."""
    return _in_gguf(source) if source.kind == "gguf" else _in_folder(source)


def _in_gguf(source: ModelSource) -> Tokenizer | None:
    header = read_header(source.path)
    tokens = header.get("tokenizer.ggml.tokens")
    vocabulary = {text: index for index, text in enumerate(tokens)} if isinstance(tokens, list) else {}
    merges, kinds = header.get("tokenizer.ggml.merges") or [], header.get("tokenizer.ggml.token_type") or []
    # Files without merges have one that never applies: llama.cpp loads none without.
    if len(merges) <= 1 and header.get("tokenizer.ggml.model") == "gpt2":
        if is_byte_vocabulary(vocabulary):
            return ByteTokenizer()
        if header.get("tokenizer.ggml.pre") == "llama-bpe":
            control = frozenset(index for index, kind in enumerate(kinds) if kind != 1)
            texts = {text: index for text, index in vocabulary.items() if index not in control}
            return PieceTokenizer(texts, control, f"tokenizer of {source.path.name}")
    return None


def _in_folder(source: ModelSource) -> Tokenizer | None:
    path = source.path / "tokenizer.json"
    if not path.is_file():
        return None
    content = json_file(path)
    if is_byte_tokenizer(content):
        return ByteTokenizer()
    if is_piece_tokenizer(content):
        control = frozenset(token["id"] for token in content.get("added_tokens", []))
        return PieceTokenizer(content["model"]["vocab"], control, f"tokenizer.json of {source.name}")
    try:
        return FileTokenizer(path)
    except ImportError:
        return None


def is_byte_tokenizer(content: Mapping[str, Any]) -> bool:
    """Return True if a tokenizer.json means one token per byte, id = byte."""
    model = content.get("model") or {}
    plain = content.get("normalizer") is None and not model.get("merges")
    return plain and model.get("type") == "BPE" and is_byte_vocabulary(model.get("vocab") or {})


def is_piece_tokenizer(content: Mapping[str, Any]) -> bool:
    """Return True if a tokenizer.json splits like Llama 3 and has no merges, as `PieceTokenizer` requires."""
    model, splitter = content.get("model") or {}, content.get("pre_tokenizer") or {}
    steps = splitter.get("pretokenizers") or [{}]
    splits = [(step.get("pattern") or {}).get("Regex") for step in steps if step.get("type") == "Split"]
    plain = content.get("normalizer") is None and model.get("ignore_merges") and not model.get("merges")
    return bool(plain) and model.get("type") == "BPE" and splits == [LLAMA3_SPLIT]


def is_byte_vocabulary(vocabulary: Mapping[str, int]) -> bool:
    """Return True if ids 0 to 255 are the bytes."""
    return all(vocabulary.get(text) == byte for byte, text in enumerate(byte_alphabet()))
