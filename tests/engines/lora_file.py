"""A LoRA adapter for `tiny` as a GGUF file, for tests: large enough to change what the model says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter


def write_adapter(path: Path, *, width: int = 256, rank: int = 4, scale: float = 1.0, layers: int = 4) -> Path:
    """Seeded random factors over the attention's output of every layer; `scale` 0 changes nothing."""
    drawn = np.random.default_rng(1)
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for layer in range(layers):
        name = f"blk.{layer}.attn_output.weight"
        writer.add_tensor(f"{name}.lora_a", drawn.normal(size=(rank, width)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", (scale * drawn.normal(size=(width, rank))).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
