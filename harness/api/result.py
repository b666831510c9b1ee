"""Stored run as data frames."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.scenario.base import near
from harness.store.catalog import catalog
from harness.store.run import RUNS, find_run

if TYPE_CHECKING:
    import pandas as pd

    from reports.data import ReportData


def load(run: str | Path = "latest") -> RunResult:
    """Return a stored run: its folder, its name, or "latest".

    Raises UsageError if there is none or several fit, RunUnreadable if it is damaged or of a newer version.
    """
    return RunResult(find_run(str(run)))


def runs(folder: str | Path = RUNS, *, label: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return the stored runs in a folder, the newest last: name, created (UTC), status, labels and path.

    Runs whose manifest cannot be read are left out.

    Args:
        label: Only runs with these labels.
    """
    import pandas as pd

    wanted = dict(label or {})
    kept = [one for one in catalog(Path(folder))[0] if wanted.items() <= one.labels.items()]
    rows = [(one.name, one.created_utc, one.status, one.labels, one.path) for one in reversed(kept)]
    found = pd.DataFrame(rows, columns=["name", "created", "status", "labels", "path"])
    return found.sort_values("created", kind="stable", ignore_index=True)


class RunResult:
    """Stored run and its results, derived from the records when they are first used.

    Attributes:
        path: Folder of the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def verdict(self) -> str:
        """Verdict of the limits: "pass", "fail", "poor data", "cannot tell"; "" if there are none."""
        from reports.answer import verdict

        return verdict(self._data)[0].lower()

    @property
    def data_quality(self) -> str:
        """Rating of the data: "good", "usable" or "poor"; "" if nothing was measured."""
        from reports.caveats import quality

        return quality(self._data)

    @property
    def exit_code(self) -> int:
        """Exit code of the run, as docs/ci.md lists them."""
        return int(self._data.exit_code or 0)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row for each configuration and load, repetitions together.

        Columns: model, engine, quantization, variant, load; `data`, its rating; then the numbers of the results table
        under the names of docs/metrics.md, with the ends of their 95 % intervals: `ttft_ms_p95`, `ttft_ms_p95_low`,
        `ttft_ms_p95_high`, `goodput_rps`. Columns that are empty in every row are left out.
        """
        from harness.api.frames import wide

        return wide(self._data)

    @property
    def metrics(self) -> pd.DataFrame:
        """All numbers in the tidy form of `summary.csv`: a row for each statistic, class and repetition."""
        return self._data.summary

    @cached_property
    def limits(self) -> pd.DataFrame:
        """One row for each limit and load: limit, load, outcome, certainty, value, low, high, sentence."""
        from harness.api.frames import limits

        return limits(self._data)

    @cached_property
    def caveats(self) -> pd.DataFrame:
        """One row for each caveat: code, level, finding, advice, and where it is."""
        from harness.api.frames import caveats

        return caveats(self._data)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row for each request, also of warm-up and cooldown (`phase`). Times are in milliseconds; NaN: unknown."""
        from harness.api.frames import requests

        return requests(self.path)

    @property
    def plots(self) -> dict[str, Picture]:
        """Plots of the whole run by name, as in `report.html`."""
        from reports import plots

        drawn = [*plots.of_loads(self._data), *plots.of_distributions(self._data)]
        drawn += [one for some in plots.of_decisions(self._data).values() for one in some]
        return {one.name: Picture(one.standalone(), one.reading) for one in drawn}

    def plot(self, name: str) -> Picture:
        """Return the first plot whose name contains a text. Raises UsageError if there is none."""
        found = next((picture for key, picture in self.plots.items() if name in key), None)
        if found is None:
            raise UsageError(
                f"there is no plot {name!r}; {near(name, self.plots) if self.plots else 'this run has none'}"
            )
        return found

    def report(self, folder: str | Path | None = None, formats: Sequence[str] | None = None) -> list[Path]:
        """Write the reports into a folder, that of the run by default; return the files. Raises StorageFailed."""
        from harness.cli.commands.report import write

        return [*write(self.path, formats, out=None if folder is None else Path(folder)).files]

    def __repr__(self) -> str:
        return self._text(100)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self._text(140))}</pre>"

    def _text(self, width: int) -> str:
        """Return the first screen."""
        from rich.console import Console

        from reports.writers import terminal

        page, out = self.path / "report.html", io.StringIO()
        terminal.show(self._data, Console(file=out, width=width, highlight=False), str(page) if page.exists() else "")
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    @cached_property
    def _data(self) -> ReportData:
        from harness.cli.commands.report import read

        return read(self.path)[0]


class Picture:
    """Plot as SVG, which notebooks show.

    Attributes:
        svg: The picture.
        reading: How to read it, in one sentence.
    """

    def __init__(self, svg: str, reading: str) -> None:
        self.svg, self.reading = svg, reading

    def save(self, file: str | Path) -> None:
        """Write the picture to a file."""
        Path(file).write_text(self.svg, encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"Picture: {self.reading}"
