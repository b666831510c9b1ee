"""The vocabulary of the models with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import needs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import ModelReference
from engines.models.builtin.synthetic import MODELS
from engines.models.builtin.vocabulary import CHARACTERS, tokenizer_json, tokens
from engines.models.source import resolve
from engines.models.tokenizer import PieceTokenizer, is_piece_tokenizer, tokenizer
from engines.models.types import ModelSource

SIZE = 2000
VOCABULARY = tokenizer_json(SIZE)
TOKENIZER = PieceTokenizer(VOCABULARY["model"]["vocab"], frozenset({SIZE - 2, SIZE - 1}), "test")


@pytest.mark.parametrize("size", sorted({int(model.config["vocab_size"]) for model in MODELS.values()}))
def test_every_id_has_a_printable_text_of_its_own(size: int) -> None:
    """All ids have different texts, and generated text is valid UTF-8."""
    texts = tokens(size)
    assert len(set(texts)) == len(texts) == size
    assert all(text.isascii() and (text.isprintable() or text in "\t\n") for text in texts)
    assert {len(text) for text in texts[len(CHARACTERS) : -2]} == {5}


@pytest.mark.parametrize("size", [50, 200_000])
def test_other_sizes_are_refused(size: int) -> None:
    """There are only so many words."""
    with pytest.raises(ValueError, match=f"a vocabulary of {size} tokens; it has 99 to 130420"):
        tokens(size)


@given(st.lists(st.integers(len(CHARACTERS), SIZE - 3)))
def test_generated_words_are_read_back_as_the_same_tokens(ids: list[int]) -> None:
    """Generated text has the same number of tokens as a prompt."""
    assert TOKENIZER.encode(TOKENIZER.decode(ids)) == ids


@given(st.text(st.sampled_from(CHARACTERS)))
def test_ascii_comes_back_whole(text: str) -> None:
    """All printable characters survive."""
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert TOKENIZER.count(text) <= len(text)


def test_english_has_one_token_a_character_and_other_alphabets_none() -> None:
    """English words are no tokens, so lengths add up; control tokens are no text."""
    text = "It is a truth universally acknowledged."
    assert TOKENIZER.count(text) == len(text)
    assert TOKENIZER.encode("caf\u00e9 \u4f60") == TOKENIZER.encode("caf ")
    assert TOKENIZER.decode([SIZE - 2, SIZE - 1]) == ""


def test_built_in_models_need_no_library_to_count(tmp_path: Path) -> None:
    """Configuration and tokenizer are there at once, without the weights."""
    source = resolve(ModelReference("llama-160m"))
    found = tokenizer(source)
    assert isinstance(found, PieceTokenizer)
    assert found.count(found.decode(range(97, 1097))) == 1000


def test_other_splitters_are_not_taken_for_ours() -> None:
    """A vocabulary that is split or merged in another way is for the library."""
    assert is_piece_tokenizer(VOCABULARY)
    for change in ({"ignore_merges": False}, {"merges": [["a", "b"]]}, {"type": "WordPiece"}):
        assert not is_piece_tokenizer({**VOCABULARY, "model": {**VOCABULARY["model"], **change}})
    assert not is_piece_tokenizer({**VOCABULARY, "pre_tokenizer": {"type": "Whitespace"}})


@pytest.mark.engines
@given(text=st.text(), words=st.lists(st.integers(0, SIZE - 3), max_size=20))
def test_the_library_reads_the_file_as_we_do(text: str, words: list[int]) -> None:
    """Ids and texts are those of `tokenizers`, which transformers and vLLM use."""
    needs.library("tokenizers")
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_str(json.dumps(VOCABULARY))
    clean = text.encode("utf-8", "ignore").decode() + TOKENIZER.decode(words)
    assert theirs.encode(clean).ids == TOKENIZER.encode(clean)
    assert theirs.decode(words) == TOKENIZER.decode(words)


def test_a_tokenizer_in_a_gguf_file_is_read_too(tmp_path: Path) -> None:
    """A user who names the .gguf file of such a model gets the same counts."""
    from models_made_small import write

    from engines.models.gguf.file import gguf_file

    source = write(tmp_path / "model", "gpt2-small")
    of_file = tokenizer(ModelSource("own", "gguf", gguf_file(source, "q8_0")))
    of_folder = tokenizer(source)
    assert of_file is not None
    assert of_folder is not None
    text = of_folder.decode(range(397)) + "<|bos|>"
    assert of_file.encode(text) == of_folder.encode(text)
    assert of_file.decode(range(400)) == of_folder.decode(range(400))
