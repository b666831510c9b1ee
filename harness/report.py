"""A stored run turned into reports: derive the results, hand plain tables to `reports`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ExitCode
from harness.results import Results, derive
from harness.store import Run
from harness.streams import storage_errors
from reports import ReportData, export
from reports import write as write_files

HEADLINES = ("report.html", "report.md")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found out and written. files: in the order of the formats."""

    data: ReportData
    exit_code: ExitCode
    files: tuple[Path, ...]

    def headline_files(self) -> list[Path]:
        """The files a person wants to open."""
        return [path for path in self.files if path.name in HEADLINES]

    def export(self, files: Sequence[tuple[str, Path]]) -> None:
        """Write the summary for other programs: (kind, file) of each. Raises StorageFailed if one cannot be written."""
        for kind, file in files:
            with storage_errors(file):
                export(self.data, kind, file)


def write(run: Path, formats: Sequence[str] | None, *, out: Path | None = None) -> Report:
    """Derive a stored run's results and write its reports, into the run's folder or `out`. formats: None for all.

    Raises RunUnreadable if `run` is none, StorageFailed if the reports cannot be written.
    """
    stored = Run.open(run)
    results = derive(stored.manifest, stored.trials(), run)
    data = report_data(results)
    folder = out or run
    with storage_errors(folder):
        files = write_files(data, folder, formats)
    return Report(data, results.exit_code, tuple(files))


def report_data(results: Results) -> ReportData:
    """The results as the plain tables that reports take."""
    return ReportData(
        title=results.manifest["name"],
        manifest=results.manifest,
        summary=results.summary,
        validity=[{"cell": cell, "trial": trial, **one.as_dict()} for (cell, trial), one in results.validity.items()],
        facts=list(results.facts.values()),
        verdicts=[verdict.as_dict() for verdict in results.verdicts],
        definitions=results.definitions,
        decisions=results.decisions,
        series=results.series,
        exit_code=int(results.exit_code),
    )
