"""Writing a model as GGUF at a level.

A GGUF file in full precision as the start for other levels.

The vocabulary of a model folder, as a GGUF file holds it: byte-level BPE, as of GPT-2 or Llama 3, or bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engines.base import LevelUnsupported
from engines.models.builtin.vocabulary import LLAMA3_SPLIT
from engines.models.checkpoint import Checkpoint
from engines.models.gguf.quantize import quantize, stored_bytes, tensor_type
from engines.models.tokenizer import is_byte_tokenizer
from engines.models.types import Field, FloatArray, Layout, ModelSource, Tensor, Weights

_ALIGNMENT_BYTES = 32
_QUANTIZATION_VERSION = 2
# Rows are quantized one by one, so that parts give the bytes of the whole.
_PART_VALUES = 1 << 23


def write(weights: Weights, level: str, path: Path) -> None:
    """Write the model; tensors are read, quantized and written one at a time, large ones in parts.

    Raises OSError if the file cannot be written.
    """
    types = [tensor_type(level, tensor.name, tensor.shape, weights.layout) for tensor in weights.tensors]
    _write_header(weights, level, types, path)
    with path.open("ab") as file:
        file.write(_padding(file.tell()))
        for tensor, type_name in zip(weights.tensors, types, strict=True):
            for values in tensor.parts(_PART_VALUES):
                file.write(quantize(values, type_name).data)
            file.write(_padding(stored_bytes(tensor.shape, type_name)))


def file_type(level: str) -> int:
    """llama.cpp's number of a level (general.file_type)."""
    from gguf import LlamaFileType

    return int(LlamaFileType["ALL_F32" if level == "f32" else f"MOSTLY_{level.upper()}"])


def level_of(number: int) -> str | None:
    """The level of llama.cpp's number, None if it is not known."""
    from gguf import LlamaFileType

    names = {int(member): member.name for member in LlamaFileType}
    found = names.get(number)
    return None if found in (None, "GUESSED") else found.removeprefix("ALL_").removeprefix("MOSTLY_").lower()


def _write_header(weights: Weights, level: str, types: list[str], path: Path) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

    writer = GGUFWriter(path, weights.architecture)
    try:
        for field in weights.fields:
            item_kind = GGUFValueType[field.item_kind] if field.item_kind else None
            if field.key != "general.architecture":  # the writer has put it first
                writer.add_key_value(field.key, field.value, GGUFValueType[field.kind], item_kind)
        writer.add_file_type(file_type(level))
        writer.add_quantization_version(_QUANTIZATION_VERSION)
        for tensor, type_name in zip(weights.tensors, types, strict=True):
            size = stored_bytes(tensor.shape, type_name)
            kind = GGMLQuantizationType[type_name]
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % _ALIGNMENT_BYTES)


# Dense decoders whose tensors all follow the rules in `quantize`.
_ARCHITECTURES = ("gpt2", "llama", "qwen2", "qwen3")
_NOT_COPIED = ("GGUF.", "general.file_type", "general.quantization_version", "general.alignment", "split.")


def read(source: ModelSource) -> Weights:
    """The model of a GGUF file in f32, f16 or bf16; nothing is loaded yet.

    Raises LevelUnsupported if levels cannot be derived from it here.
    """
    from gguf import GGUFReader

    reader = GGUFReader(str(source.path))
    values = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
    architecture = str(values.get("general.architecture"))
    has_experts, is_split = values.get(f"{architecture}.expert_count"), values.get("split.count", 1) > 1
    if architecture not in _ARCHITECTURES or has_experts or is_split:
        raise LevelUnsupported(
            f"levels of {source.path.name} ({architecture}) are not made here; "
            "make the file with llama.cpp's llama-quantize and name it"
        )
    heads = int(values[f"{architecture}.attention.head_count"])
    layout = Layout(
        layers=int(values[f"{architecture}.block_count"]),
        heads=heads,
        kv_heads=int(values.get(f"{architecture}.attention.head_count_kv", heads)),
        tied_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )
    fields = tuple(_field(field) for key, field in reader.fields.items() if not key.startswith(_NOT_COPIED))
    return Weights(architecture, layout, fields, tuple(_tensor(tensor) for tensor in reader.tensors))


def _field(field: Any) -> Field:
    kinds = [kind.name for kind in field.types]
    return Field(field.name, kinds[0], field.contents(), kinds[-1] if len(kinds) > 1 else None)


def _tensor(tensor: Any) -> Tensor:
    shape = tuple(int(size) for size in reversed(tensor.shape))

    def load_rows(start: int, stop: int) -> FloatArray:
        from gguf import dequantize

        values: FloatArray = np.asarray(dequantize(tensor.data[start:stop], tensor.tensor_type), dtype=np.float32)
        return values

    return Tensor(tensor.name, shape, lambda: load_rows(0, shape[0]).reshape(shape), load_rows)


_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
# llama.cpp ends a reply at each of them. Without the first it takes token 11 for the end, whatever that is.
_ENDS = ("eos", "eot", "eom")
# The two rarest bytes merge to no token, so nothing changes.
_NO_MERGE = f"{chr(256)} {chr(257)}"


def fields(checkpoint: Checkpoint) -> tuple[Field, ...]:
    """The metadata fields of the vocabulary.

    Raises ModelError if it is of another kind, naming the converter to use.
    """
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
    """The ids that have a role; what generation_config.json says comes first, as in transformers."""
    name = f"{role}_token_id"
    said = checkpoint.generation.get(name, checkpoint.config.get(name))
    return [said] if isinstance(said, int) else list(said or ())


def _splitter(checkpoint: Checkpoint) -> str:
    """llama.cpp's name for the way in which text is split before it is merged."""
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
        if not patterns and _is_gpt2(steps) and not model.get("ignore_merges"):
            return "gpt-2"
    return checkpoint.use_converter("a tokenizer that is neither bytes nor like those of GPT-2 and Llama 3")


def _is_gpt2(steps: list[dict[str, Any]]) -> bool:
    """ByteLevel alone, splitting by its own pattern, with no space put in front."""
    byte_level = [step for step in steps if step.get("type") == "ByteLevel"]
    own_pattern = all(step.get("use_regex", True) and not step.get("add_prefix_space") for step in byte_level)
    return len(steps) == len(byte_level) == 1 and own_pattern


def _begins(checkpoint: Checkpoint) -> bool:
    """Whether a prompt is given the token of beginning."""
    processor = checkpoint.tokenizer.get("post_processor") or {}
    steps = processor.get("processors") or [processor]
    singles = [step.get("single") or [] for step in steps if step.get("type") == "TemplateProcessing"]
    return any(single and "SpecialToken" in single[0] for single in singles)


def _vocabulary(checkpoint: Checkpoint, size: int) -> tuple[list[str], list[int]]:
    texts = [f"<|unused {index}|>" for index in range(size)]
    kinds = [_UNUSED] * size
    for text, index in checkpoint.tokenizer["model"]["vocab"].items():
        texts[index], kinds[index] = text, _NORMAL
    for token in checkpoint.tokenizer.get("added_tokens", []):
        texts[token["id"]], kinds[token["id"]] = token["content"], _CONTROL if token["special"] else _USER_DEFINED
    return texts, kinds
