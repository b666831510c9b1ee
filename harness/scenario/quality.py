"""The `quality` section of a scenario: whether cells are scored against a reference, which, and on what text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from harness.scenario.base import AlsoAccepts, Integer, Name, StrictModel

BUILT_IN_TEXT = "builtin"
DEFAULT_TOKENS = 32_768
LONGEST_CHUNK = 512


class Reference(StrictModel):
    """What the cells are compared with. Without `engine`, each engine with its own cell of that level."""

    engine: Name | None = Field(default=None, description="An engine of the scenario.", examples=["llama-server"])
    quantization: Name | None = Field(default=None, description="The level, also one that is not measured.")
    variant: Name | None = Field(default=None, description="One of the engine's variants.")


def _reference_from_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    engine, slash, level = value.rpartition("/")
    if slash and not (engine and level):
        raise ValueError(f"{value!r} names no reference; write a level such as `f16`, or `llama-server/f16`")
    return {"engine": engine or None, "quantization": level}


def _text(value: Any) -> Any:
    return None if value == BUILT_IN_TEXT else value


class Quality(StrictModel):
    """How far each cell is from the same model in full precision, on the same text. `quality: {}` is enough."""

    reference: Annotated[Reference, BeforeValidator(_reference_from_text), AlsoAccepts({"type": "string"})] | None = (
        Field(
            default=None,
            description="A level of the same engine, `engine/level`, or both with a variant; where absent, the "
            "cell of each model in the highest precision, 16 bits or more; without one, the checkpoint as it is.",
            examples=["f16"],
        )
    )
    text: Annotated[Path | None, BeforeValidator(_text)] = Field(
        default=None,
        description="A text that the model has not learnt by heart, UTF-8; `builtin`: the one that is shipped.",
        examples=["in_domain.txt"],
    )
    tokens: Annotated[Integer, Field(ge=64)] = Field(
        default=DEFAULT_TOKENS, description="How many tokens of it, at most; the second half of each chunk is scored."
    )
    chunk: Annotated[Integer, Field(ge=16, le=LONGEST_CHUNK)] = Field(
        default=LONGEST_CHUNK, description="Tokens of a chunk; chunks do not see each other."
    )

    @property
    def first(self) -> int:
        """The first scored position of a chunk: those before it have too little context to tell."""
        return self.chunk // 2
