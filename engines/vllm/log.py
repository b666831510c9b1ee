"""Causes of failures in vLLM's log, to which its exceptions only point."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.secrets import masked

_RAISED = re.compile(r"(?:^|\s)((?:[A-Za-z_][\w.]*\.)?[A-Za-z_]\w*(?:Error|Exception|Interrupt))\s*:\s*(.+)$")
_POINTS_ELSEWHERE = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "EngineCore encountered an issue",
    "cancelled",
)
_UNSUPPORTED = re.compile(
    r"not supported|unsupported|not implemented|NotImplementedError|unknown quantization|does not support"
    r"|has no attribute|must be one of|not available",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(r"\d+ validation errors? for \w+ +(?:[\w.]+ +)?Value error, |\s*\[type=.*$")
_LONGEST = 300


def root_cause(text: str) -> str | None:
    """Return the kind and first sentence of the first error that does not point to another; None if there is none."""
    for line in text.splitlines():
        match = _RAISED.search(line)
        if match and not any(sign in match[2] for sign in _POINTS_ELSEWHERE):
            words = _PREAMBLE.sub("", match[2]).strip()
            return masked(f"{match[1].rpartition('.')[2]}: {words.partition('. ')[0].rstrip('.')}", _LONGEST)
    return None


def is_refusal(cause: str) -> bool:
    """Return True if the build can never do this, rather than having failed this time."""
    return _UNSUPPORTED.search(cause) is not None


@contextmanager
def output_to(log: Path | None) -> Iterator[None]:
    """Send the output of this process and its new children to the log, as in the child of a cell."""
    if log is None or _is_standard_error(log):
        yield
        return
    kept = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as file:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, _ in kept:
                os.dup2(file.fileno(), descriptor)
        yield
    finally:
        for descriptor, copy in kept:
            os.dup2(copy, descriptor)
            os.close(copy)


def _is_standard_error(log: Path) -> bool:
    return log.is_file() and os.path.samestat(log.stat(), os.fstat(2))
