"""Quality in a comparison: faster but worse is not a pass.

Both sides are scored once, on the same text against the same reference, and their distances from it are compared
position by position. The text is the same at every start, so pairs of starts would add nothing: chunks of text are the
unit. The question is whether quality is worse by more than the margin (non-inferiority); better is no worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.stats import Measured
from harness.comparison.change import Change, unknown
from harness.metrics import SCALAR
from harness.quality.figures import Columns, difference, means
from harness.quality.summary import positions_of
from harness.scenario.margins import OF_QUALITY, Margin, Scale, default_margin
from harness.store.manifest import CellEntry, Manifest, NamedReference, QualityEntry

_COLUMN = {"kl_mean": "kl", "top1_agreement": "top1_same"}
_READ = ("chunk", "position", "token", "nll_reference", "nll", "kl", "kl_lower_bound", "top1_same")
_ONLY_BOUND = "only the likeliest tokens are known, so the divergence is known by a bound"


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a configuration against its reference.

    Attributes:
        columns: One entry for each position; none if it was not scored, for which `entry` has the reason.
    """

    entry: QualityEntry
    columns: Columns = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """Reference as people call it."""
        named = self.entry.reference or NamedReference()
        level = self.entry.reference_level or named.level
        return " ".join(filter(None, (named.model, named.engine, level))) or "its reference"

    @property
    def bounded(self) -> bool:
        """Whether only a lower bound of the divergence is known."""
        return bool(np.isnan(self.columns["kl"]).any()) if self.columns else False

    def numbers(self) -> dict[str, Measured]:
        """Return the figures with their 95 % intervals; none if it was not scored."""
        found = means(self.columns) if self.columns else {}
        return {name: Measured(one.value, one.low, one.high) for name, one in found.items()}


def scores_of(manifest: Manifest, folder: Path) -> dict[tuple[str, ...], Scored]:
    """Return what was scored of a stored run, or was to be, by model, engine, level and variant."""
    found: dict[tuple[str, ...], Scored] = {}
    for cell in manifest.cells:
        if cell.quality is not None and (cell.keys not in found or cell.quality.positions):
            found[cell.keys] = _scored(cell, cell.quality, folder)
    return found


def _scored(cell: CellEntry, entry: QualityEntry, folder: Path) -> Scored:
    columns = positions_of(folder / entry.path, entry, _READ) if entry.path else {}
    return Scored(entry, columns)


@dataclass(frozen=True, slots=True)
class QualityChange:
    """A figure of quality on both sides."""

    margin: Margin
    base: Measured
    head: Measured
    change: Change


def quality_changes(base: Scored, head: Scored, margins: Sequence[Margin] = ()) -> Iterator[QualityChange]:
    """Yield how each gating figure changed.

    Args:
        margins: Those that are asked for; none for the defaults, without a divergence of which a bound is known only.
    """
    bounded = base.bounded or head.bounded
    usual = [default_margin(name, SCALAR) for name in OF_QUALITY if not (bounded and name == "kl_mean")]
    numbers = base.numbers(), head.numbers()
    for margin in margins or usual:
        sides = [one.get(margin.metric, Measured(math.nan)) for one in numbers]
        yield QualityChange(margin, sides[0], sides[1], change_of(margin.metric, base, head))


def change_of(metric: str, base: Scored, head: Scored) -> Change:
    """Return the change of a figure, paired position by position; without a value if the sides have no text in common.

    Args:
        metric: "kl_mean" or "top1_agreement".
    """
    if why := why_not(base, head):
        return unknown(Scale.DIFFERENCE, why)
    if metric == "kl_mean" and (base.bounded or head.bounded):
        return unknown(Scale.DIFFERENCE, _ONLY_BOUND)
    found = difference(head.columns, base.columns, _COLUMN[metric])
    method = f"{len(base.columns['chunk']):,} positions in {found.chunks} chunks, paired"
    return Change(Scale.DIFFERENCE, found.value, found.error, found.error, found.chunks - 1, method=method)


def why_not(base: Scored, head: Scored) -> str:
    """Return why two sides cannot be compared; "" if they can.

    Both need the same tokens, and references that agree on them: to within the default margin of the divergence.
    """
    for side, name in ((base, "base"), (head, "head")):
        if not side.columns:
            return f"{name} was not scored: {side.entry.reason or 'it has no scores'}"
    if any(not np.array_equal(base.columns[name], head.columns[name]) for name in ("chunk", "position", "token")):
        return "not scored on the same tokens: give both the same `quality.text`, `tokens` and `chunk`"
    apart = np.abs(np.asarray(base.columns["nll_reference"]) - np.asarray(head.columns["nll_reference"]))
    distance = float(np.nanmean(apart)) if not np.isnan(apart).all() else 0.0
    if distance > default_margin("kl_mean", SCALAR).size:
        named = f"{base.reference} and {head.reference}"
        return f"not scored against the same reference: {named} differ by {distance:.2g} nats; name one in `quality`"
    return ""


def told(base: Scored, head: Scored, changes: Sequence[QualityChange], alpha: float) -> Mapping[str, Any]:
    """Return what reports say of the comparison: {reference, text, positions, chunks, tokens_needed, reason}."""
    columns = base.columns or head.columns
    return {
        "reference": base.reference,
        "text": base.entry.text or head.entry.text or "",
        "positions": len(columns["chunk"]) if columns else 0,
        "chunks": base.entry.chunks or head.entry.chunks,
        "reason": why_not(base, head),
        "tokens_needed": max(filter(None, (_tokens_needed(one, base, alpha) for one in changes)), default=None),
    }


def _tokens_needed(one: QualityChange, base: Scored, alpha: float) -> int | None:
    """Return how many tokens of text would settle an open figure, if its value stays; None if it is settled."""
    from harness.comparison.change import one_sided_factor

    change, worse = one.change, one.margin.worse
    if not change.known or change.below == 0:
        return None
    away = abs(worse - change.at)
    reach = one_sided_factor(math.inf, alpha) * change.below
    if away >= one_sided_factor(change.degrees, alpha) * change.below or away == 0:
        return None
    chunks = math.ceil((change.degrees + 1) * (reach / away) ** 2)
    length = int(np.asarray(base.columns["position"]).max()) + 1
    return max(chunks, int(change.degrees) + 2) * length
