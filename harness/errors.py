"""Errors that a user can meet, each with its exit code.

HarnessError
|- UsageError            2   the command line requests something impossible
|- ScenarioError         2   the scenario file is wrong; lists every problem with its place
|- RunDirectoryExists    2   results are never overwritten
|- RunUnreadable         2   a stored run cannot be read
|- TrialFailed           3   a trial could not be run, or ended early
|- CellSkipped           -   a cell cannot be run on this machine; its row has the reason
|- StorageFailed         3   results cannot be written (no space, no permission)
|- Interrupted         130   the user stopped the run

Violated limits (1), invalid measurements (4), regressions (5) and "cannot tell" (6) are results, not errors.
`verdict.limits.gate` decides them. If several codes apply, the first of 130, 2, 3, 4, 5, 1, 6 is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from engines.secrets import masked


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
