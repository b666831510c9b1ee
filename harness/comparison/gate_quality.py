"""What is measured once of a gate's sides, and not in pairs: scores, and the cache audit.

`quality/base` and `quality/head` in its folder are runs that send no load, `cache-audit/base` and `cache-audit/head`
runs of one user.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.comparison.cache_audit import FOLDER as AUDIT_FOLDER
from harness.comparison.cache_audit import audits_of
from harness.comparison.quality import scores_of
from harness.comparison.rounds import BASE, HEAD
from harness.comparison.sides import Side
from harness.store.run import MANIFEST, Run

FOLDER = "quality"


def scores_folder(gate: Path, side: str) -> Path:
    """Return the folder of the run that scored a side."""
    return gate / FOLDER / side


def is_scored(gate: Path, side: str) -> bool:
    """Return whether a side was scored to the end, with figures or a reason."""
    run = scores_folder(gate, side)
    return (run / MANIFEST).exists() and Run.open(run).manifest.status in ("complete", "failed")


def with_scores(gate: Path, base: Side, head: Side) -> tuple[Side, Side]:
    """Return both sides with their scores and cache audits, if any. Raises RunUnreadable for damaged ones."""
    found_of = [audits_of(gate / AUDIT_FOLDER / side) for side in (BASE, HEAD)]
    base, head = replace(base, audits=found_of[0]), replace(head, audits=found_of[1])
    if not all(is_scored(gate, side) for side in (BASE, HEAD)):
        return base, head
    runs = [Run.open(scores_folder(gate, side)) for side in (BASE, HEAD)]
    found = [scores_of(run.manifest, run.path) for run in runs]
    return replace(base, quality=found[0]), replace(head, quality=found[1])
