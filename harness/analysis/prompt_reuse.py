"""Prompts that an engine has seen before: its prefix cache answers them sooner than others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.stats import Flags

if TYPE_CHECKING:
    from harness.schedule.requests import Schedule


class SentLines:
    """The lines of prompt files that were sent since an engine started."""

    def __init__(self) -> None:
        self._sent: dict[str, Flags] = {}

    def forget(self) -> None:
        """Take note that the engine has dropped its cache."""
        self._sent.clear()

    def add(self, schedule: Schedule, requests: int) -> dict[str, dict[str, int]]:
        """Add the first `requests` of a schedule, and return counts for each class that reads a file.

        requests: prompts sent.   again: those sent before, in this load or an earlier one.
        """
        found = {}
        for name, fingerprint, lines in schedule.file_lines(requests):
            size = schedule.prompt_files[name]["lines"]
            sent = self._sent.setdefault(fingerprint, np.zeros(size, dtype=np.bool_))
            once = lines[:size]
            found[name] = {"requests": len(lines), "again": int(sent[once].sum()) + len(lines) - len(once)}
            sent[once] = True
        return found
