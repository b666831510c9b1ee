"""Reports: tables in, files out; nothing here measures or judges.

`write` makes the files of a report, `export` a file for another program, `write_site` the pages of a nightly history,
`writers.terminal.show` the summary at the end of a run. `sections.py` lists the tables, `board.py` describes a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports.board import Board
from reports.data import ReportData
from reports.files import folder_in, replace

FORMATS = ("html", "md", "csv", "parquet", "json", "junit", "plots")
EXPORTS = ("prometheus", "benchmark-report")


def write(data: ReportData, folder: Path, formats: Sequence[str] | None = None) -> list[Path]:
    """Write the report in each of the formats into a folder, over earlier ones; return the files written.

    Nothing is written through a link in the folder: a file that is one is replaced. The folder itself may be one.

    Args:
        formats: Some of FORMATS. None: all of them, with pictures of as many trials only as a page shows.

    Raises ValueError for an unknown format, OSError if the folder cannot be written to.
    """
    unknown = sorted(set(formats or ()) - set(FORMATS))
    if unknown:
        raise ValueError(f"there is no report format {unknown[0]!r}; known are {', '.join(FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name in FORMATS if formats is None else formats:
        written += _write_one(data, folder, name, every=formats is not None)
    return written


def _write_one(data: ReportData, folder: Path, name: str, *, every: bool) -> list[Path]:
    from reports import plots
    from reports.writers import html, junit, markdown, summaries

    if name == "plots":
        return plots.save(data, folder_in(folder, "plots"), every=every)
    if name == "parquet":
        return [summaries.write(data, folder / "summary.parquet")]
    renderers = {
        "html": {"report.html": html.render},
        "md": {"report.md": markdown.render},
        "junit": {"junit.xml": junit.render},
        "json": {"summary.json": summaries.as_json},
        "csv": {"summary.csv": summaries.as_csv}
        | ({"decision.csv": summaries.decision_as_csv} if data.decisions else {}),
    }
    for file, render in renderers[name].items():
        replace(folder / file, render(data))
    return [folder / file for file in renderers[name]]


def export(data: ReportData, kind: str, file: Path) -> list[Path]:
    """Write the summary for another program; return the files written. `kind` is one of EXPORTS.

    Raises ValueError for an unknown kind, OSError if the file cannot be written.
    """
    if kind not in EXPORTS:
        raise ValueError(f"there is no export {kind!r}; known are {', '.join(EXPORTS)}")
    from reports.writers import benchmark_report, prometheus

    if kind == "benchmark-report":
        return benchmark_report.write(data, file)
    prometheus.write(data, file)
    return [file]


def write_site(board: Board, folder: Path) -> None:
    """Write the site of a nightly history into a folder, over an earlier one: a board, a page a series, a feed.

    Raises OSError if the folder cannot be written to.
    """
    from reports.writers import site

    site.write(board, folder)


__all__ = ["EXPORTS", "FORMATS", "ReportData", "export", "write", "write_site"]
