"""Comparison of two runs as data frames."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.result import RunResult

if TYPE_CHECKING:
    import pandas as pd

    from harness.cli.commands.compare import Told

FailOn = Mapping[str, str] | Sequence[str]
_STATISTIC = re.compile(r"_(p[0-9][0-9.]*|mean|max|min)$")


def compare(
    base: str | Path | RunResult,
    head: str | Path | RunResult,
    *,
    fail_on: FailOn = (),
    across: Iterable[str] = (),
) -> ComparisonResult:
    """Compare a run with a baseline, as `harness compare` does.

    Args:
        base: A run from `load` or `benchmark`, or its folder or name; `head` alike.
        fail_on: Numbers that gate with their margins: {"ttft p95": "+10%"} or ["ttft p95 +10%"]. Default: see
            docs/compare.md.
        across: Kinds of differences that are meant, such as "hardware".

    Raises UsageError if the runs cannot be compared, RunUnreadable if one is damaged.
    """
    from harness.cli.commands.compare import check_across, compared, parse_margins

    texts = [f"{_named(name)} {size}" for name, size in fail_on.items()] if isinstance(fail_on, Mapping) else fail_on
    first, second = (str(one.path) if isinstance(one, RunResult) else str(one) for one in (base, head))
    return ComparisonResult(compared(first, second, parse_margins([*texts]), check_across([*across]), fails=True))


def _named(number: str) -> str:
    """Return "ttft p95" of "ttft_p95"."""
    return _STATISTIC.sub(r" \1", number)


class ComparisonResult:
    """Two runs and what became of each number."""

    def __init__(self, told: Told) -> None:
        self._told = told

    @property
    def verdict(self) -> str:
        """Word of the whole: "regressed", "improved", "unchanged", "no worse" or "cannot tell"."""
        return str(self._told.data["word"])

    @property
    def exit_code(self) -> int:
        """Exit code of `harness compare`, as docs/ci.md lists them."""
        return int(self._told.data["exit_code"])

    @property
    def table(self) -> pd.DataFrame:
        """One row for each number.

        Columns: load, metric, statistic, base_value, head_value, `change` (ratio, or difference of a share), `low` and
        `high` (ends that each hold with 95 %), margin, least_seen, gates, word, doubt, and the names of the
        configuration.
        """
        import pandas as pd

        from reports.writers.comparison import as_csv

        return pd.read_csv(io.StringIO(as_csv(self._told.data)))

    @property
    def differs(self) -> pd.DataFrame:
        """One row for each fact that differs: kind, what, base, head, load."""
        import pandas as pd

        return pd.DataFrame(self._told.data["differs"], columns=["kind", "what", "base", "head", "load"])

    def report(self, folder: str | Path, formats: Sequence[str] = ("html", "md", "json", "csv", "junit")) -> list[Path]:
        """Write the files of the comparison into a folder; return them. Raises StorageFailed."""
        from harness.cli.commands.compare import store

        return [*store(self._told, formats, Path(folder)).values()]

    def __repr__(self) -> str:
        return self._text(110)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self._text(140))}</pre>"

    def _text(self, width: int) -> str:
        """Return what the command prints."""
        from rich.console import Console

        from reports.writers import comparison

        out = io.StringIO()
        comparison.show(self._told.data, Console(file=out, width=width, highlight=False))
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
