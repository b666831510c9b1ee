"""The `quality` section of a scenario: the reference and the text on which cells are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from harness.scenario.base import AlsoAccepts, Integer, Name, StrictModel

LONGEST_CHUNK = 512


class Reference(StrictModel):
    """Reference of the cells. Without `engine`, each engine is compared with its own cell of that level."""

    engine: Name | None = Field(default=None, description="Engine of the scenario.", examples=["llama-server"])
    quantization: Name | None = Field(default=None, description="Quantization level; it need not be measured.")
    variant: Name | None = Field(default=None, description="Variant of the engine.")


def _reference_from_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    engine, slash, level = value.rpartition("/")
    if slash and not (engine and level):
        raise ValueError(f"{value!r} is not a reference; write a level such as `f16`, or `llama-server/f16`")
    return {"engine": engine or None, "quantization": level}


def _text(value: Any) -> Any:
    return None if value == "builtin" else value


class Quality(StrictModel):
    """Comparison of each cell with the same model in full precision, on the same text. `quality: {}` is enough."""

    reference: Annotated[Reference, BeforeValidator(_reference_from_text), AlsoAccepts({"type": "string"})] | None = (
        Field(
            default=None,
            description="Level of the same engine, or `engine/level`, or a mapping with a variant. Default: the "
            "configuration of each model with the highest precision of at least 16 bits, or else the unquantized "
            "checkpoint.",
            examples=["f16"],
        )
    )
    text: Annotated[Path | None, BeforeValidator(_text)] = Field(
        default=None,
        description="UTF-8 text that was not in the model's training data. `builtin`: the shipped text.",
        examples=["in_domain.txt"],
    )
    tokens: Annotated[Integer, Field(ge=64)] = Field(
        default=32_768, description="Most tokens of the text. The second half of each chunk is scored."
    )
    chunk: Annotated[Integer, Field(ge=16, le=LONGEST_CHUNK)] = Field(
        default=LONGEST_CHUNK, description="Tokens of a chunk. Chunks are scored independently."
    )

    @property
    def first(self) -> int:
        """First scored position of a chunk; earlier positions have too little context."""
        return self.chunk // 2
