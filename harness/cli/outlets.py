"""Standard output and standard error whose readers may leave: a run goes on, and its exit code says what it found."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterable
from typing import TextIO


class Outlet(io.FileIO):
    """Takes what is written whether or not anybody can read it.

    failure: why it was lost, unless the reader had left.
    """

    def __init__(self, file: int) -> None:
        super().__init__(file, "wb", closefd=False)
        self.failure: OSError | None = None
        self._lost = False

    def write(self, data: object) -> int:
        """Write, or lose, all of it."""
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
    """Put such ones in the place of this process's standard streams, and open those that it was started without."""
    occupy_standard_files()
    outlets = []
    for name, file, stream in (("stdout", 1, sys.stdout), ("stderr", 2, sys.stderr)):
        if stream is not None and stream is not getattr(sys, f"__{name}__"):
            continue  # somebody has put another one there
        outlets.append(Outlet(file))
        setattr(sys, name, _text(outlets[-1], stream, by_line=name == "stderr" or os.isatty(file)))
    return outlets


def occupy_standard_files() -> None:
    """A file that is opened must not get the number of a standard stream."""
    for file in (0, 1, 2):
        try:
            os.fstat(file)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def lost_output(outlets: Iterable[Outlet]) -> str | None:
    """Why what was printed is not where it should be, as a sentence; None where it is, or its reader had left."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    failure = next((outlet.failure for outlet in outlets if outlet.failure is not None), None)
    if failure is None:
        return None
    return f"what was printed could not be written: {failure.strerror or failure}; the run's own folder is complete"


def _text(outlet: Outlet, before: TextIO | None, *, by_line: bool) -> TextIO:
    encoding, errors = (before.encoding, before.errors) if before is not None else ("utf-8", "backslashreplace")
    return io.TextIOWrapper(io.BufferedWriter(outlet), encoding=encoding, errors=errors, line_buffering=by_line)
