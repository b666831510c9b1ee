"""Every error a user can meet, and the exit code it leads to.

HarnessError
|- UsageError            2   the command line asks for something that cannot be done
|- ScenarioError         2   the scenario file is wrong; carries every problem found, each with its place
|- RunDirectoryExists    2   results are never overwritten
|- RunUnreadable         2   a stored run cannot be read
|- TrialFailed           3   a trial could not be run, or broke off
|- CellSkipped           -   a cell cannot be run on this machine: its row says why
|- StorageFailed         3   what was measured cannot be written (no space, no permission)
|- Interrupted         130   the user stopped the run

Limits that are broken (1), invalid measurements (4), regressions (5) and "cannot tell" (6) are results, not errors:
`gate` decides them. Several at once: the first that applies of 130, 2, 3, 4, 5, 1, 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

_SENTENCE = 200


class ExitCode(IntEnum):
    """What the process tells its caller."""

    HOLDS = 0
    LIMIT_BROKEN = 1
    USAGE = 2
    TRIAL_FAILED = 3
    INVALID = 4
    REGRESSED = 5
    CANNOT_TELL = 6
    INTERRUPTED = 130


PRECEDENCE = (
    ExitCode.INTERRUPTED,
    ExitCode.USAGE,
    ExitCode.TRIAL_FAILED,
    ExitCode.INVALID,
    ExitCode.REGRESSED,
    ExitCode.LIMIT_BROKEN,
    ExitCode.CANNOT_TELL,
)


def first_that_applies(codes: Iterable[ExitCode]) -> ExitCode:
    """The exit code of a run to which several apply; HOLDS for none."""
    present = set(codes)
    return next((code for code in PRECEDENCE if code in present), ExitCode.HOLDS)


def by_name(what: str, error: Exception) -> str:
    """What went wrong, and the kind and words of an error that nobody expected; 200 characters at most."""
    return f"{what}: {type(error).__name__}: {error}"[:_SENTENCE]


class HarnessError(Exception):
    """The base: one sentence for the user, and the exit code."""

    exit_code = ExitCode.USAGE


class UsageError(HarnessError):
    """The command cannot be carried out as it was typed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a scenario file: where, which key, what, and what to write instead.

    line and column count from 1; None where the problem has no place of its own (a value given by --set).
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
    """The scenario is wrong; `problems` lists everything found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class RunDirectoryExists(HarnessError):
    """The folder that should hold the results is there already."""


class RunUnreadable(HarnessError):
    """A stored run is missing, damaged, or of a format newer than this program."""


class TrialFailed(HarnessError):
    """A trial could not be run or broke off."""

    exit_code = ExitCode.TRIAL_FAILED


class StorageFailed(HarnessError):
    """Results cannot be written."""

    exit_code = ExitCode.TRIAL_FAILED


class CellSkipped(HarnessError):
    """A cell cannot be run on this machine; the others are."""


class Interrupted(HarnessError):
    """The user stopped the run."""

    exit_code = ExitCode.INTERRUPTED
