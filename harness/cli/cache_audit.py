"""Running the cache audit: before the pairs of a gate, or before a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.output import say
from harness.errors import Interrupted

if TYPE_CHECKING:
    from harness.comparison.cache_audit import Audit
    from harness.run.job import Job


def audit_sides(jobs: Mapping[str, Job], folder: Path, *, quiet: bool) -> None:
    """Audit both sides of a gate into its folder, unless that is done. Raises Interrupted if the user stops.

    Args:
        jobs: What each side runs at its first start.
    """
    from harness.comparison.cache_audit import FOLDER

    for side, job in jobs.items():
        found = audit(job, folder / FOLDER / side)
        if not quiet:
            for one in found:
                say(f"cache audit: {side}: {one.sentence}")


def audited(job: Job, *, quiet: bool) -> Job:
    """Audit what a run is about to measure; return its job with what was found as remarks of its report.

    The audit is stored beside the run. Raises Interrupted if the user stops.
    """
    folder = job.folder.with_name(f"{job.folder.name}-cache-audit")
    found = audit(job, folder)
    notes = [f"{one.configuration}: {one.sentence}" if len(found) > 1 else one.sentence for one in found]
    if not quiet:
        for note in notes:
            say(f"cache audit: {note}")
    return replace(job, notes=(*job.notes, *notes))


def audit(job: Job, folder: Path) -> tuple[Audit, ...]:
    """Make the audit of a job's configurations in a folder, unless one is there; return what it found."""
    from harness.cli.asked import command_line
    from harness.cli.progress import SilentWatcher
    from harness.comparison.cache_audit import audit_scenario, audits_of
    from harness.run.run import execute
    from harness.schedule.matrix import expand
    from harness.store.run import MANIFEST, Run, put_aside

    if not (folder / MANIFEST).exists() or Run.open(folder).manifest.status not in ("complete", "failed"):
        if folder.exists():
            put_aside(folder)
        scenario = audit_scenario(job.scenario)
        ids = {(one.engine, one.level, one.variant, one.model) for one in job.planned}
        planned = [one for one in expand(scenario) if (one.engine, one.level, one.variant, one.model) in ids]
        writer = execute(scenario, planned, folder, SilentWatcher(), command=command_line())
        if writer.manifest.status == "interrupted":
            raise Interrupted("interrupted")
    return audits_of(folder)
