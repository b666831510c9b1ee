"""Vocabulary of a model folder in the form of a GGUF file: byte-level BPE like GPT-2's or Llama 3's, or bytes."""

from __future__ import annotations

from engines.models.builtin.vocabulary import LLAMA3_SPLIT
from engines.models.checkpoint import Checkpoint
from engines.models.tokenizer import is_byte_tokenizer
from engines.models.types import Field

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
# llama.cpp ends a reply at each of them. Without the first it ends at token 11, which may be any token.
_ENDS = ("eos", "eot", "eom")
# The two rarest bytes merge to no token, so nothing changes.
_NO_MERGE = f"{chr(256)} {chr(257)}"


def fields(checkpoint: Checkpoint) -> tuple[Field, ...]:
    """Return the metadata fields of the vocabulary. Raises ModelError for other kinds, naming the converter to use."""
    config = checkpoint.config
    splitter = _splitter(checkpoint)
    texts, kinds = _vocabulary(checkpoint, int(config["vocab_size"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in checkpoint.tokenizer["model"]["merges"]]
    found = [
        Field("tokenizer.ggml.model", "STRING", "gpt2"),
        Field("tokenizer.ggml.pre", "STRING", splitter),
        Field("tokenizer.ggml.tokens", "ARRAY", texts, "STRING"),
        Field("tokenizer.ggml.token_type", "ARRAY", kinds, "INT32"),
        # llama.cpp loads no gpt2 vocabulary without merges.
        Field("tokenizer.ggml.merges", "ARRAY", merges or [_NO_MERGE], "STRING"),
        Field("tokenizer.ggml.add_bos_token", "BOOL", _begins(checkpoint)),
        Field("tokenizer.ggml.add_eos_token", "BOOL", False),
    ]
    begin, ends = _ids(checkpoint, "bos")[:1], _ids(checkpoint, "eos")
    checkpoint.refuse(
        {
            "no end-of-sequence token": not ends,
            "more end-of-sequence tokens than llama.cpp knows": len(ends) > len(_ENDS),
            "special tokens beyond its vocabulary": any(token >= len(texts) for token in (*begin, *ends)),
            "prompts that begin with a token it does not name": not begin and _begins(checkpoint),
        }
    )
    special = {**dict(zip(("bos",), begin, strict=False)), **dict(zip(_ENDS, ends, strict=False))}
    found += [Field(f"tokenizer.ggml.{role}_token_id", "UINT32", token) for role, token in special.items()]
    return tuple(found)


def _ids(checkpoint: Checkpoint, role: str) -> list[int]:
    """Return the ids that have a role. generation_config.json takes precedence, as in transformers."""
    name = f"{role}_token_id"
    stated = checkpoint.generation.get(name, checkpoint.config.get(name))
    return [stated] if isinstance(stated, int) else list(stated or ())


def _splitter(checkpoint: Checkpoint) -> str:
    """Return llama.cpp's name for the splitting of text before merges."""
    content = checkpoint.tokenizer
    if not content:
        checkpoint.use_converter("no tokenizer.json")
    model = content.get("model", {})
    if model.get("type") == "BPE" and not model.get("byte_fallback") and not content.get("normalizer"):
        if is_byte_tokenizer(content):
            return "gpt-2"
        splitter = content.get("pre_tokenizer") or {}
        steps = splitter.get("pretokenizers") or [splitter]
        patterns = [(step.get("pattern") or {}).get("Regex") for step in steps if step.get("type") == "Split"]
        if patterns == [LLAMA3_SPLIT] and model.get("ignore_merges"):
            return "llama-bpe"
        # GPT-2: ByteLevel alone splits by its own pattern, without a space in front.
        only, *others = steps
        plain = only.get("type") == "ByteLevel" and only.get("use_regex", True) and not only.get("add_prefix_space")
        if plain and not others and not model.get("ignore_merges"):
            return "gpt-2"
    return checkpoint.use_converter("a tokenizer that is neither bytes nor like those of GPT-2 and Llama 3")


def _begins(checkpoint: Checkpoint) -> bool:
    """Return True if prompts start with the beginning-of-sequence token."""
    processor = checkpoint.tokenizer.get("post_processor") or {}
    steps = processor.get("processors") or [processor]
    singles = [step.get("single") or [] for step in steps if step.get("type") == "TemplateProcessing"]
    return any(single and "SpecialToken" in single[0] for single in singles)


def _vocabulary(checkpoint: Checkpoint, size: int) -> tuple[list[str], list[int]]:
    """Return texts and kinds of the tokens that have weights; tokenizers may have more, such as one for padding."""
    texts = [f"<|unused {index}|>" for index in range(size)]
    kinds = [_UNUSED] * size
    for text, index in checkpoint.tokenizer["model"]["vocab"].items():
        if index < size:
            texts[index], kinds[index] = text, _NORMAL
    for token in checkpoint.tokenizer.get("added_tokens", []):
        if (index := token["id"]) < size:
            texts[index], kinds[index] = token["content"], _CONTROL if token["special"] else _USER_DEFINED
    return texts, kinds
