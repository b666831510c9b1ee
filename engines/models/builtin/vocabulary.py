"""Vocabulary of the models with random weights. All generated text is printable and encodes to the same tokens.

A token is one character of ASCII, or a space and a word of four consonants. Text is split like Llama 3's tokenizer
does. A part that is a word is one token; any other part is one token per character. So n generated words are n tokens
again, and no part of English text is a word. Characters outside ASCII have no token and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# Llama 3's pattern, as in tokenizer files; llama.cpp names it `llama-bpe`.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The pattern for Python's `re`, which has no Unicode classes: letters are word characters but digits and "_".
_PIECES = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:[^\r\n\w]|_)?[^\W\d_]+|\d{1,3}"
    r"| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHARACTERS = "\t\n" + "".join(map(chr, range(32, 127)))
_LETTERS = "bcdfghjklmnpqrstvwx"
_WORD_LENGTH = 4
_WORDS = len(_LETTERS) ** _WORD_LENGTH
# Makes the words of neighbouring ids unlike. It has no common factor with _WORDS, so that every word occurs once.
_STEP, _SHIFT = 80_021, 41_000


def pieces(text: str) -> Iterator[str]:
    """Yield the parts that a text is split into before the lookup."""
    return (match[0] for match in _PIECES.finditer(text))


def byte_alphabet() -> list[str]:
    """Return the printable character for each byte in byte-level BPE files (the table GPT-2 introduced)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def tokens(size: int) -> list[str]:
    """Return the text of each id. The last two are control tokens, beginning and end."""
    count = size - len(CHARACTERS) - 2
    if not 0 <= count <= _WORDS:
        fewest = len(CHARACTERS) + 2
        raise ValueError(f"a vocabulary of {size} tokens; it has {fewest} to {fewest + _WORDS}")
    return [*CHARACTERS, *(" " + _word(index) for index in range(count)), "<|bos|>", "<|endoftext|>"]


def tokenizer_config(context_tokens: int) -> dict[str, Any]:
    """Return a tokenizer_config.json; the built-in models differ in their context only."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|endoftext|>",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_tokens,
    }


def tokenizer_json(size: int) -> dict[str, Any]:
    """Return a tokenizer.json with this number of tokens."""
    texts, alphabet = tokens(size), byte_alphabet()
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    written = ["".join(alphabet[ord(character)] for character in text) for text in texts[:-2]]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": at, "content": texts[at], **plain, "special": True} for at in (size - 2, size - 1)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {text: index for index, text in enumerate(written)},
            "merges": [],
        },
    }


def _word(index: int) -> str:
    number = (index * _STEP + _SHIFT) % _WORDS
    letters = []
    for _ in range(_WORD_LENGTH):
        number, letter = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "".join(letters)
