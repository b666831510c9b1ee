"""Output of the commands: consoles, lines, and standard streams whose readers may leave.

A run goes on without a reader, and its exit code is that of its result.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from reports.format import for_terminal

if TYPE_CHECKING:
    from rich.console import Console

WITHOUT_TERMINAL = 200  # columns
STORING = (["run"], ["quality"], ["report"])  # commands whose results are files


def table_console() -> Console:
    """Return a console on standard output: as wide as the terminal; without one, as COLUMNS says or 200 columns."""
    from rich.console import Console

    width = _columns_named()
    return Console(highlight=False, width=width if width is not None or sys.stdout.isatty() else WITHOUT_TERMINAL)


def error_console() -> Console:
    """Return a console on standard error, for progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, width=_columns_named())


def _columns_named() -> int | None:
    """Return the width in COLUMNS; None without one, and for 0, which is no width."""
    named = os.environ.get("COLUMNS", "")
    return int(named) or None if named.isascii() and named.isdecimal() and len(named) < 6 else None


def say(text: str) -> None:
    """Print lines on standard error, without the escape sequences of servers."""
    print("\n".join(map(for_terminal, text.splitlines())), file=sys.stderr)


class Outlet(io.FileIO):
    """Standard stream that accepts every write, also after its reader has left.

    Attributes:
        failure: Error that lost output, None if there was none or the reader had left.
    """

    def __init__(self, file: int) -> None:
        super().__init__(file, "wb", closefd=False)
        self.failure: OSError | None = None
        self._lost = False

    def write(self, data: object) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        if self._lost:
            return size
        try:
            while (written := super().write(data)) is None:  # type: ignore[arg-type]
                select.select([], [self], [])
        except OSError as error:
            self._lost = True
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal is closed
                self.failure = error
            return size
        return written


def open_outlets() -> list[Outlet]:
    """Replace standard output and standard error of this process by outlets; open closed ones."""
    for file in (0, 1, 2):  # else a file opened later would get the number of a standard stream
        try:
            os.fstat(file)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    outlets = []
    for name, file, stream in (("stdout", 1, sys.stdout), ("stderr", 2, sys.stderr)):
        if stream is not None and stream is not getattr(sys, f"__{name}__"):
            continue  # replaced by the caller
        outlets.append(Outlet(file))
        setattr(sys, name, _text(outlets[-1], stream, by_line=name == "stderr" or os.isatty(file)))
    return outlets


def _text(outlet: Outlet, before: TextIO | None, *, by_line: bool) -> TextIO:
    encoding, errors = (before.encoding, before.errors) if before is not None else ("utf-8", "backslashreplace")
    if errors in ("strict", "surrogateescape"):  # a letter that the output lacks must not end a run
        errors = "replace"
    return io.TextIOWrapper(io.BufferedWriter(outlet), encoding=encoding, errors=errors, line_buffering=by_line)


def lost_output(outlets: Iterable[Outlet]) -> str | None:
    """Return a sentence about data that could not be written; None if all was, or its reader had left.

    Standard error carries no data: a run whose progress is lost is none the worse.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    failure = next((one.failure for one in outlets if one.failure is not None and one.fileno() == 1), None)
    if failure is None:
        return None
    stored = "; the run's own folder is complete" if sys.argv[1:2] in STORING else ""
    return f"what was printed could not be written: {failure.strerror or failure}{stored}"
