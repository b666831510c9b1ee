"""Tokenizers of model sources, for counting tokens where an engine does not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engines.base import ModelError
from engines.models.gguf_header import read_header

if TYPE_CHECKING:
    from engines.models.source import ModelSource


class Tokenizer(Protocol):
    """Text to token ids and back, no special tokens added."""

    @property
    def name(self) -> str:
        """Which tokenizer it is, for reports."""
        ...

    def encode(self, text: str) -> list[int]:
        """The token ids of the text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids."""
        ...

    def count(self, text: str) -> int:
        """How many tokens the text has."""
        ...


class ByteTokenizer:
    """One token per UTF-8 byte, token id = byte; ids from 256 up are special and decode to nothing."""

    name = "bytes"

    def encode(self, text: str) -> list[int]:
        """The bytes of the text."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; bytes that are no UTF-8 become U+FFFD."""
        return bytes(token for token in ids if token < 256).decode("utf-8", "replace")

    def count(self, text: str) -> int:
        """How many tokens the text has."""
        return len(text.encode())


class FileTokenizer:
    """A `tokenizer.json`, read by the `tokenizers` library."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Library

        try:
            self._library = Library.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
        self.name = f"tokenizer.json of {path.parent.name}"

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        text: str = self._library.decode(list(ids), skip_special_tokens=True)
        return text

    def count(self, text: str) -> int:
        """How many tokens the text has."""
        return len(self.encode(text))


def tokenizer(source: ModelSource) -> Tokenizer | None:
    """The tokenizer of a model, None where there is none to be had (`why_no_tokenizer` says why)."""
    found = _find(source)
    return None if isinstance(found, str) else found


def why_no_tokenizer(source: ModelSource) -> str | None:
    """Why `tokenizer` gives None, in one sentence; None if it does not."""
    found = _find(source)
    return found if isinstance(found, str) else None


def _find(source: ModelSource) -> Tokenizer | str:
    if source.kind == "gguf":
        tokens = read_header(source.path).get("tokenizer.ggml.tokens")
        if isinstance(tokens, list) and is_byte_vocabulary({text: index for index, text in enumerate(tokens[:256])}):
            return ByteTokenizer()
        return f"the tokenizer inside {source.path.name} cannot be used without an engine; name the model's folder"
    path = source.path / "tokenizer.json"
    if not path.is_file():
        return f"the folder of {source.name} has no tokenizer.json"
    if source.kind == "builtin" or is_byte_tokenizer(json.loads(path.read_text(encoding="utf-8"))):
        return ByteTokenizer()
    try:
        return FileTokenizer(path)
    except ImportError:
        return f"counting tokens of {source.name} needs the tokenizers library; install it: pip install tokenizers"


def is_byte_tokenizer(content: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json means: one token per byte, id = byte."""
    model = content.get("model") or {}
    plain = content.get("normalizer") is None and not model.get("merges")
    return plain and model.get("type") == "BPE" and is_byte_vocabulary(model.get("vocab") or {})


def is_byte_vocabulary(vocabulary: Mapping[str, int]) -> bool:
    """Whether ids 0 to 255 are the bytes."""
    return all(vocabulary.get(text) == byte for byte, text in enumerate(byte_alphabet()))


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE files (the table GPT-2 introduced)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
