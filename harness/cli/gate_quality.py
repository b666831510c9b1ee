"""Scoring of a gate's sides: each once, before the pairs, against the same reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.output import say
from harness.errors import Interrupted

if TYPE_CHECKING:
    from harness.run.job import Job
    from harness.run.references import Scoring


def score_sides(jobs: Mapping[str, Job], folder: Path, head_variant: str | None, *, quiet: bool) -> None:
    """Score both sides of a gate into its folder, unless that is done; both against the reference of the base.

    Raises Interrupted if the user stops.

    Args:
        jobs: What each side runs at its first start.
        head_variant: Variant of the head, which is never the reference; None if the sides are no variants.
    """
    from harness.comparison.gate_quality import is_scored, scores_folder
    from harness.run.references import Scoring, delete_scores, kept_references
    from harness.store.run import Run

    base, head = (scores_folder(folder, side) for side in ("base", "head"))
    if jobs["head"].scenario.quality is None or is_scored(folder, "head"):
        return
    if not is_scored(folder, "base") or not kept_references(base, Run.open(base).manifest):
        _score(jobs["base"], base, Scoring(keeps=True, never=head_variant), quiet=quiet)
    references = kept_references(base, Run.open(base).manifest)
    _score(jobs["head"], head, Scoring(given=references), quiet=quiet)
    delete_scores(base)


def _score(job: Job, folder: Path, scoring: Scoring, *, quiet: bool) -> None:
    """Make the run of scores of a side, in the place of one that was ended or whose reference is gone."""
    from harness.cli.asked import command_line
    from harness.cli.progress import SilentWatcher
    from harness.run.run import execute
    from harness.schedule.cells import without_loads
    from harness.store.run import put_aside

    if folder.exists():
        put_aside(folder)
    if not quiet:
        say(f"quality: {folder.name}")
    planned = without_loads(job.planned)
    writer = execute(job.scenario, planned, folder, SilentWatcher(), command=command_line(), scoring=scoring)
    if writer.manifest.status == "interrupted":
        raise Interrupted("interrupted")
