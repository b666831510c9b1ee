"""`harness report`: derive the results of a stored run, and hand plain tables to `reports`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import AsJson, Columns, Exports, Formats, check_exports, check_formats, parse_columns
from harness.cli.output import say, table_console
from harness.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from harness.results import Results
    from reports.data import ReportData

_RUN = "Folder or name of a run, or latest; or the folder of a tuning."


def report(
    run: Annotated[str, typer.Argument(help=_RUN, show_default=False)],
    formats: Formats = [],  # noqa: B006
    exports: Exports = [],  # noqa: B006
    columns: Columns = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the reports. [default: the run's folder]")] = None,
) -> None:
    """Make the reports of a stored run or tuning again."""
    from harness.cli.tune import report_again, tuning_folder
    from harness.store.run import find_run

    if (folder := tuning_folder(run)) is not None:
        raise typer.Exit(
            report_again(folder, [*formats, *exports, *([columns] if columns else [])], out, as_json=as_json)
        )
    files = check_exports(exports)
    made = write(find_run(run), check_formats(formats), out=out, columns=parse_columns(columns))
    made.export(files)
    show(made, as_json=as_json, quiet=False)
    raise typer.Exit(made.exit_code)


@dataclass(frozen=True, slots=True)
class Report:
    """Data of a report, and the files written, in the order of the formats."""

    data: ReportData
    exit_code: ExitCode
    files: tuple[Path, ...]

    def export(self, files: Sequence[tuple[str, Path]]) -> None:
        """Write the summary for other programs, as (kind, file). Raises StorageFailed if one cannot be written."""
        from harness.store.streams import storage_errors
        from reports import export

        for kind, file in files:
            with storage_errors(file):
                written = export(self.data, kind, file)
            if not written:
                say(f"{file} is not written: nothing was measured")
            elif written != [file]:
                say(f"wrote {written[0]} to {written[-1].name}, a file for each load")


def show(made: Report, *, as_json: bool, quiet: bool) -> None:
    """Print the data on standard output, and the files of the report on standard error."""
    if as_json:
        from reports.writers.summaries import as_json as json_text

        print(json_text(made.data), end="")
    else:
        from reports.writers import terminal

        pages = {path.name: str(path) for path in made.files}
        terminal.show(made.data, table_console(), pages.get("report.html") or pages.get("report.md") or "")


def write(
    run: Path, formats: Sequence[str] | None, *, out: Path | None = None, columns: Sequence[str] | None = None
) -> Report:
    """Derive a stored run's results and write its reports, into the run's folder or `out`.

    Args:
        formats: None for all.
        columns: Columns of the results table, instead of the scenario's.

    Raises RunUnreadable if `run` is none, StorageFailed if the reports cannot be written, UsageError without `out` for
    a baseline.
    """
    from harness.store.baselines import is_kept
    from harness.store.streams import storage_errors
    from reports import write as write_files

    if out is None and is_kept(run):
        raise UsageError(f"{run} is a baseline, which stays as it is: name a folder for the reports with --out")
    data, exit_code = read(run, columns, keeps=out is None)
    folder = out or run
    with storage_errors(folder):
        files = write_files(data, folder, formats)
    return Report(data, exit_code, tuple(files))


def read(run: Path, columns: Sequence[str] | None = None, *, keeps: bool = False) -> tuple[ReportData, ExitCode]:
    """Derive a stored run's results. Raises RunUnreadable if `run` is none.

    Args:
        keeps: Write what later comparisons need beside the run, and nothing else.
    """
    from harness.comparison.sides import keep
    from harness.results import derive
    from harness.store.run import RUNS, Run

    stored = Run.open(run)
    if columns is not None:
        stored.manifest.scenario = {**stored.manifest.scenario, "columns": [*columns]}
    results = derive(stored.manifest, stored.trials(), run)
    if keeps:
        keep(stored, results)
    return report_data(results, run.name if run.parent == RUNS else str(run)), results.exit_code


def report_data(results: Results, run: str = "") -> ReportData:
    """Return the results as the plain tables that reports take. run: name or folder of the stored run."""
    from harness.capacity.hardware import gpus_under_test
    from harness.fits.sweeps import fits_of, users_of
    from harness.verdict.calibration import sentence
    from harness.verdict.thresholds import LATE_READINGS
    from reports.data import ReportData

    poor = {key: [metrics for _, metrics in one.poor] for key, one in results.validity.items()}
    return ReportData(
        title=results.manifest.name,
        manifest=results.manifest,
        summary=results.summary,
        validity=[{"cell": cell, "trial": trial, **one.as_dict()} for (cell, trial), one in results.validity.items()],
        facts=list(results.facts.values()),
        verdicts=[verdict.as_dict() for verdict in results.verdicts],
        definitions=results.definitions,
        decisions=results.decisions,
        series=results.series,
        pooled=results.pooled,
        fits=fits_of(results.manifest, results.summary, poor, results.series),
        users=users_of(results.manifest, results.summary, poor),
        gpus=gpus_under_test(results.manifest),
        exit_code=int(results.exit_code),
        calibration=sentence(results.manifest.provenance.calibration),
        late_readings_above=LATE_READINGS.value,
        run=run,
    )
