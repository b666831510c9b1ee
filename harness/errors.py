"""Errors that a user can meet, each with its exit code.

HarnessError
|- UsageError            2   the command line requests something impossible
|- ScenarioError         2   the scenario file is wrong; lists every problem with its place
|- RunDirectoryExists    2   results are never overwritten
|- RunUnreadable         2   a stored run cannot be read
|  |- FileUnreadable     3   one of its tables cannot; the rest is reported
|- TrialFailed           3   a trial could not be run, or ended early
|- CellSkipped           -   a cell cannot be run on this machine; its row has the reason
|- StorageFailed         3   results cannot be written (no space, no permission)
|- Interrupted         130   the user stopped the run

Violated limits (1), invalid measurements (4), regressions (5) and "cannot tell" (6) are results, not errors.
`verdict.limits.gate` decides them. If several codes apply, the first of 130, 2, 3, 4, 5, 1, 6 is returned.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from engines.secrets import masked

_LONGEST_PATH = 100
_MEMORY = "raise the limit of memory (`ulimit -v`, or the container's), or free some"
LIMITS = {
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f`)",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "close files of other programs",
    errno.ENOMEM: _MEMORY,
}
"""Actions where another file would be refused too."""
_ACTIONS = {
    **LIMITS,
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room in your quota",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`)",
    errno.EACCES: "allow access to it, or name another",
    errno.EPERM: "allow access to it, or name another",
    errno.EROFS: "name one on a disk that can be written",
    errno.ENOENT: "check that it exists, and leave it in place",
    errno.ENOTDIR: "a part of the path is a file: name another",
    errno.EISDIR: "name a file",
    errno.EEXIST: "name another",
    errno.ELOOP: "a link in the path leads to itself: mend it",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the disk",
}
"""Actions by the reason of the system."""
_NO_HOME = "Could not determine home directory"
_UNLOADABLE = ("failed to map segment", "cannot allocate memory", "out of memory", "too many open files")


class ExitCode(IntEnum):
    """Exit codes of the process, by descending precedence."""

    INTERRUPTED = 130
    USAGE = 2
    TRIAL_FAILED = 3
    INVALID = 4
    REGRESSED = 5
    LIMIT_BROKEN = 1
    CANNOT_TELL = 6
    HOLDS = 0


def first_that_applies(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the code with the highest precedence, HOLDS for no codes."""
    return min(codes, key=list(ExitCode).index, default=ExitCode.HOLDS)


def by_name(what: str, error: Exception) -> str:
    """Return `what` with the type and message of an unexpected error, at most 200 characters."""
    return masked(f"{what}: {type(error).__name__}: {error}", 200)


class HarnessError(Exception):
    """Base of all errors: one sentence for the user, and the exit code."""

    exit_code = ExitCode.USAGE


class UsageError(HarnessError):
    """Command that cannot be executed as typed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Mistake in a scenario file: its place, its key, the cause and the fix.

    Lines and columns count from 1. They are None if the problem has no place in a file (a value of --set).
    """

    message: str
    key: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ScenarioError(HarnessError):
    """Wrong scenario; `problems` lists all mistakes in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class RunDirectoryExists(HarnessError):
    """Folder for the results that exists already."""


class RunUnreadable(HarnessError):
    """Stored run that is missing, damaged, or newer than this program."""


class FileUnreadable(RunUnreadable):
    """Table of a stored run that is damaged; the other tables of the run can be read."""

    exit_code = ExitCode.TRIAL_FAILED


class TrialFailed(HarnessError):
    """Trial that could not be run, or that ended early."""

    exit_code = ExitCode.TRIAL_FAILED


class StorageFailed(HarnessError):
    """Results that cannot be written."""

    exit_code = ExitCode.TRIAL_FAILED


class CellSkipped(HarnessError):
    """Cell that cannot be run on this machine; the other cells run."""


class Interrupted(HarnessError):
    """Run that the user stopped."""

    exit_code = ExitCode.INTERRUPTED


def refusal(error: BaseException) -> str | None:
    """Return a sentence with the cause and the action for an error of the system; None for other errors."""
    if isinstance(error, MemoryError) or _is_about_memory(error):
        return f"memory ran out; {_MEMORY}"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "the system starts no more threads; raise its limits (`ulimit -u`, `ulimit -v`)"
    if isinstance(error, RuntimeError) and _NO_HOME in str(error):
        return "a path begins with `~`, and there is no such home folder; write the whole path"
    if isinstance(error, ImportError):
        why = str(error).strip().rpartition("\n")[2]
        return f"a library cannot be loaded: {why}; {_MEMORY}" if _unloadable(why) else None
    if isinstance(error, OSError) and error.errno in _ACTIONS:
        named = f"{shortened(str(error.filename))}: " if error.filename is not None else ""
        return f"{named}{error.strerror or error}; {_ACTIONS[error.errno]}"
    return None


def code_of(error: BaseException) -> ExitCode:
    """Return the exit code of a refusal: a path that cannot be is a mistake of the user."""
    too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    return ExitCode.USAGE if too_long or _NO_HOME in str(error) else ExitCode.TRIAL_FAILED


def shortened(path: str) -> str:
    """Return a path with at most _LONGEST_PATH characters; the middle of a longer one is left out."""
    if len(path) <= _LONGEST_PATH:
        return path
    half = _LONGEST_PATH // 2
    return f"{path[:half]}...{path[-half:]}"


def _unloadable(why: str) -> bool:
    return any(sign in why.lower() for sign in _UNLOADABLE)


def _is_about_memory(error: BaseException) -> bool:
    """Return whether a library hides a lack of memory in an error of its own, or of an import."""
    while error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, MemoryError)
