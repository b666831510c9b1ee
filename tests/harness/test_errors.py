"""Errors of the system become sentences; others are ours, and stay errors."""

from __future__ import annotations

import errno

import pytest

from harness.cli.limits import too_low
from harness.errors import ExitCode, code_of, refusal, shortened


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files; raise the limit of open files"),
        (OSError(errno.ENOSPC, "No space left", "/a"), "/a: No space left; make room on that disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "/a: Permission denied; allow access"),
        (BlockingIOError(errno.EAGAIN, "Resource unavailable"), "raise the limit of processes (`ulimit -u`)"),
        (MemoryError(), "memory ran out; raise the limit of memory"),
        (RuntimeError("can't start new thread"), "the system starts no more threads"),
        (ImportError("numpy\n\nlibblas.so: failed to map segment from shared object"), "libblas.so: failed to map"),
        (RuntimeError("Could not determine home directory."), "there is no such home folder"),
    ],
)
def test_a_refusal_of_the_system_is_a_sentence(error: Exception, sentence: str) -> None:
    """Cause and action, whichever way Python reports it."""
    found = refusal(error)
    assert found is not None
    assert sentence in found


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("x"), ImportError("no module x"), KeyError("x"), OSError("x")]
)
def test_other_errors_are_ours(error: Exception) -> None:
    """They stay defects, which are to be reported."""
    assert refusal(error) is None


def test_the_cause_counts() -> None:
    """A library's own error over a lack of memory is that lack."""
    error = ImportError("numpy")
    error.__cause__ = MemoryError()
    assert "memory ran out" in str(refusal(error))


def test_exit_codes() -> None:
    """A path that cannot be is a mistake of the user, everything else is the machine's."""
    assert code_of(OSError(errno.ENAMETOOLONG, "too long")) is ExitCode.USAGE
    assert code_of(OSError(errno.EMFILE, "too many")) is ExitCode.TRIAL_FAILED


def test_long_paths_keep_their_ends() -> None:
    """Short ones stay as they are."""
    assert shortened("a/b") == "a/b"
    assert shortened("a" * 200 + "b" * 200) == "a" * 50 + "..." + "b" * 50


def test_more_threads_need_more_address_space() -> None:
    """OpenBLAS reserves it for each core, or for as many threads as its variable says."""
    limits = {"-v": 3 << 30}
    assert too_low(limits, 2, {}) is None
    assert "`ulimit -v` allows 3 GiB" in str(too_low(limits, 64, {}))
    assert too_low(limits, 64, {"OPENBLAS_NUM_THREADS": "2"}) is None
    assert too_low({}, 64, {}) is None
