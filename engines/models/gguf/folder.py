"""A model folder in the Hugging Face layout, as what a GGUF file holds."""

from __future__ import annotations

from dataclasses import replace

from engines.models.checkpoint import Checkpoint
from engines.models.gguf import gpt2, llama, write
from engines.models.types import ModelSource, Weights

_ARCHITECTURES = {"gpt2": gpt2.read, "llama": llama.read}


def read(source: ModelSource) -> Weights:
    """The model of a folder; nothing is loaded yet.

    Raises ModelError if it is not of a kind that is converted here, naming the converter to use.
    """
    checkpoint = Checkpoint(source)
    architecture = checkpoint.config.get("model_type")
    checkpoint.refuse(
        {
            f"architecture {architecture}": architecture not in _ARCHITECTURES,
            "quantized weights": "quantization_config" in checkpoint.config,
        }
    )
    found = _ARCHITECTURES[str(architecture)](checkpoint)
    return replace(found, fields=(*found.fields, *write.fields(checkpoint)))


def natural_level(source: ModelSource) -> str:
    """The level that keeps the weights as the folder stores them."""
    return Checkpoint(source).natural_level()
