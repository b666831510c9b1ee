"""The `compare` section of a scenario: the baseline of a gate, its margins, and its numbers of pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from harness.scenario.base import AlsoAccepts, Name, StrictModel
from harness.scenario.margins import Margin, margin_of
from harness.units import PositiveSeconds

ALPHA = 0.05
"""Chance of a false word in a comparison."""
LEAST_PAIRS = 4
"""Fewer pairs give no Student's interval of use: its factor is 2.9 for three pairs and 6.3 for two."""
LOOK_EVERY, MOST_PAIRS = 2, 64
_SHAPE = re.compile(r"(?P<least>[0-9]+)(?:\.\.(?P<most>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Least and greatest number of pairs."""

    least: int
    most: int

    @property
    def looks(self) -> list[int]:
        """Numbers of pairs after which the result is judged."""
        return sorted({*range(self.least, self.most, LOOK_EVERY), self.most})

    @property
    def alpha(self) -> float:
        """Chance of a false word at each look."""
        return ALPHA / len(self.looks)


def parse_pairs(text: str) -> Pairs:
    """Return the numbers of pairs of `6` or `4..8`. Raises ValueError, with the fix."""
    match = _SHAPE.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ValueError(f"{text!r} is no number of pairs; write 6, or 4..8")
    least = int(match["least"])
    most = int(match["most"] or least)
    if least < LEAST_PAIRS:
        raise ValueError(f"{least} pairs are too few for an interval; write {LEAST_PAIRS} or more")
    if not least <= most <= MOST_PAIRS:
        raise ValueError(f"{text!r}: write the smaller number first, and at most {MOST_PAIRS} pairs")
    return Pairs(least, most)


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _checked_pairs(text: str) -> str:
    parse_pairs(text)
    return text


def _checked_margins(margins: Mapping[str, str]) -> Mapping[str, str]:
    for number, size in margins.items():
        margin_of(number, size)
    return margins


def _decimal(value: Any) -> Any:
    """Return a number as text without an exponent."""
    return f"{value:.12f}".rstrip("0") if isinstance(value, int | float) and not isinstance(value, bool) else value


def _of(number: str) -> Callable[[str], str]:
    """Return a check that a text is a margin of this number."""

    def checked(size: str) -> str:
        margin_of(number, size)
        return size

    return checked


PairsText = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_checked_pairs),
    AlsoAccepts({"type": "integer", "minimum": LEAST_PAIRS}),
]
KlMargin = Annotated[str, BeforeValidator(_decimal), AfterValidator(_of("kl")), AlsoAccepts({"type": "number"})]
Top1Margin = Annotated[str, AfterValidator(_of("top1"))]
Margins = Annotated[dict[str, str], AfterValidator(_checked_margins)]


class QualityMargins(StrictModel):
    """Loss of quality that is still accepted, against the same reference (docs/compare.md)."""

    kl: KlMargin | None = Field(default=None, description="Rise of the mean divergence, in nats.", examples=["+0.01"])
    top1: Top1Margin | None = Field(
        default=None, description="Fall of the top-1 agreement, in percentage points.", examples=["-0.5pp"]
    )

    @property
    def margins(self) -> list[Margin]:
        """Those that are stated."""
        stated = {"kl": self.kl, "top1": self.top1}
        return [margin_of(name, size) for name, size in stated.items() if size is not None]


class Compare(StrictModel):
    """Gate: `harness run` starts the scenario and its baseline in turns, and compares the pairs (docs/compare.md)."""

    baseline: Name = Field(description="Variant that the other variant is compared with.", examples=["base"])
    margins: Margins = Field(
        default={},
        description="Numbers that gate, each with the worsening that is still accepted. Default: TTFT and TPOT p50, "
        "errors, and in closed loops the mean end-to-end time, with their usual margins.",
        examples=[{"ttft p95": "10%", "error_rate": "0.5pp"}],
    )
    quality: QualityMargins | None = Field(
        default=None,
        description="With `quality` in the scenario: loss that is still accepted. Default: both, as much as a "
        "near-lossless step loses.",
        examples=[{"top1": "-0.5pp"}],
    )
    cache_audit: bool = Field(
        default=False,
        strict=True,
        description="Send prompts twice beforehand, to find a server that answers repeats from a result cache.",
    )
    pairs: PairsText = Field(default="4..8", description="Pairs of starts, least and greatest.", examples=[6])
    budget_s: PositiveSeconds | None = Field(
        default=None, alias="budget", description="Time after which no further pair begins.", examples=["20m"]
    )
    alternate: bool = Field(
        default=False,
        strict=True,
        description="Keep both sides up, and send short blocks of requests to them in turns.",
        examples=[True],
    )
    inconclusive: Literal["fail", "warn"] = Field(
        default="fail", description='What "cannot tell" means: exit code 6, or 0.', examples=["warn"]
    )

    @property
    def gating(self) -> list[Margin]:
        """Margins of the numbers that gate; none for the defaults."""
        of_quality = [] if self.quality is None else self.quality.margins
        return [*(margin_of(number, size) for number, size in self.margins.items()), *of_quality]
