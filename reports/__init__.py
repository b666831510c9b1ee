"""Reports: tables in, files out. Nothing here measures, judges or knows the harness.

`write(data, folder, formats)` writes files, `export(data, kind, file)` one for another program;
`reports.writers.terminal.show(data, console)` is the summary at the end of a run. Heavy libraries are loaded by the
formats that need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports.data import ReportData

FORMATS = ("html", "md", "junit", "csv", "parquet", "json", "plots")
EXPORTS = ("prometheus",)


def write(data: ReportData, folder: Path, formats: Sequence[str] | None = None) -> list[Path]:
    """Write the report in each of the formats into a folder, over earlier ones; returns the files written.

    formats: None for all of them, but with pictures of so many trials only as a page shows.

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
    if name == "plots":
        from reports.plots import save

        return save(data, folder / "plots", every=every)
    if name == "parquet":
        from reports.writers.summaries import write as write_parquet

        return [write_parquet(data, folder / "summary.parquet")]
    file = folder / {"csv": "summary.csv", "json": "summary.json", "junit": "junit.xml"}.get(name, f"report.{name}")
    file.write_text(_text(data, name), encoding="utf-8", newline="\n")
    return [file, *_decision(data, folder)] if name == "csv" else [file]


def export(data: ReportData, kind: str, file: Path) -> None:
    """Write the summary for a program that keeps history; `kind` is one of EXPORTS.

    Raises ValueError for an unknown kind, OSError if the file cannot be written.
    """
    if kind not in EXPORTS:
        raise ValueError(f"there is no export {kind!r}; known are {', '.join(EXPORTS)}")
    from reports.writers import prometheus

    prometheus.write(data, file)


def _decision(data: ReportData, folder: Path) -> list[Path]:
    """decision.csv, beside summary.csv; none where nothing was planned."""
    from reports.writers import summaries

    if not data.decisions:
        return []
    file = folder / "decision.csv"
    file.write_text(summaries.decision_as_csv(data), encoding="utf-8", newline="\n")
    return [file]


def _text(data: ReportData, name: str) -> str:
    if name == "html":
        from reports.writers.html import render

        return render(data)
    if name == "md":
        from reports.writers.markdown import render as markdown

        return markdown(data)
    if name == "junit":
        from reports.writers.junit import render as junit

        return junit(data)
    from reports.writers import summaries

    return summaries.as_csv(data) if name == "csv" else summaries.as_json(data)


__all__ = ["EXPORTS", "FORMATS", "ReportData", "export", "write"]
