"""Model folder in the Hugging Face layout: configuration, tensors, and the converter for unsupported ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NoReturn

from engines.base import ModelError
from engines.models import safetensors_io
from engines.models.safetensors_io import StoredTensor
from engines.models.source import json_file, weight_files
from engines.models.types import ModelSource

_LEVELS = {"F32": "f32", "BF16": "bf16", "F16": "f16"}


class Checkpoint:
    """Model folder, read on demand. A missing file is {}."""

    def __init__(self, source: ModelSource) -> None:
        self.source = source

    @cached_property
    def config(self) -> dict[str, Any]:
        return self._content("config.json")

    @cached_property
    def generation(self) -> dict[str, Any]:
        return self._content("generation_config.json")

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        return self._content("tokenizer.json")

    def _content(self, file_name: str) -> dict[str, Any]:
        path = self.source.path / file_name
        return json_file(path) if path.is_file() else {}

    def tensors(self) -> dict[str, StoredTensor]:
        """Return the tensors by name, not loaded."""
        return {
            name: tensor for path in weight_files(self.source) for name, tensor in safetensors_io.read(path).items()
        }

    def natural_level(self) -> str:
        """Return the level that keeps the precision in which most of the weights are stored."""
        found = safetensors_io.commonest_type(self.tensors().values(), _LEVELS)
        return "f32" if found is None else _LEVELS[found]

    def check_names(
        self, names: Mapping[str, str], stored: Mapping[str, StoredTensor], not_needed: tuple[str, ...]
    ) -> None:
        """Raise ModelError if tensors are missing or unknown, except those that end like `not_needed`."""
        if missing := sorted(names.keys() - stored.keys()):
            raise ModelError(f"the weights of {self.source.name} lack {missing[0]}; fetch them again")
        if extra := sorted(name for name in stored.keys() - names.keys() if not name.endswith(not_needed)):
            self.use_converter(f"a tensor {extra[0]}")

    def refuse(self, found: Mapping[str, object]) -> None:
        """Raise ModelError for the first value that is present."""
        for what, is_there in found.items():
            if is_there:
                self.use_converter(what)

    def use_converter(self, what: str) -> NoReturn:
        """Raise ModelError that names the converter for the model."""
        raise ModelError(
            f"{self.source.name} has {what}, which is not converted here; convert it with llama.cpp's "
            f"`python convert_hf_to_gguf.py {self.source.path} --outfile {self.source.path.name}.gguf` "
            "and name the .gguf file"
        )
