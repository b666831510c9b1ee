"""Folders of random models that are small enough for a test, of the architectures that are converted here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from engines.base import ModelReference
from engines.models import safetensors_io
from engines.models.builtin import random_weights, synthetic, vocabulary
from engines.models.source import resolve
from engines.models.types import ModelSource

GPT2 = {"n_embd": 256, "n_layer": 9, "n_head": 4, "n_positions": 64, "vocab_size": 400}
LLAMA = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 400, "max_position_embeddings": 64}  # fmt: skip


def config(name: str, **changes: Any) -> dict[str, Any]:
    """The configuration of a built-in model with smaller sizes."""
    sizes = GPT2 if name.startswith("gpt2") else LLAMA
    size = {**sizes, **changes}["vocab_size"]
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1}
    return {**synthetic.MODELS[name].config, **sizes, **ends, **changes}


def write(folder: Path, name: str, **changes: Any) -> ModelSource:
    """A folder of the same architecture as the built-in model, with smaller sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    content = config(name, **changes)
    tokenizer = vocabulary.tokenizer_json(content["vocab_size"])
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    shapes = random_weights.shapes(content)
    safetensors_io.write_f16(
        folder / "model.safetensors", shapes, lambda tensor: random_weights.pieces(tensor, shapes[tensor], 1)
    )
    return resolve(ModelReference(str(folder)))


def tiny_with_beginning(folder: Path) -> ModelReference:
    """A copy of `tiny` whose tokenizer puts the token of beginning, 256, in front of a text, as Llama's do."""
    shutil.copytree(resolve(ModelReference("tiny")).path, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    first, text = {"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [256], "tokens": ["<|bos|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return ModelReference(str(folder))
