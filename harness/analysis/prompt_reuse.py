"""Prompts that an engine knew when it was asked: its prefix cache answers them sooner than others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.columns import Flags

if TYPE_CHECKING:
    from harness.schedule.requests import Schedule


class AskedLines:
    """The lines of files of prompts that one start of an engine has been asked."""

    def __init__(self) -> None:
        self._asked: dict[str, Flags] = {}

    def forget(self) -> None:
        """The engine has dropped its cache."""
        self._asked.clear()

    def add(self, schedule: Schedule, requests: int) -> dict[str, dict[str, int]]:
        """The first so many requests of a plan were sent: of each class that reads a file, how many `requests` it had,
        and how many of them asked `again` what had been asked before, in this load or an earlier one.
        """
        found = {}
        for name, fingerprint, lines in schedule.file_lines(requests):
            size = schedule.prompt_files[name]["lines"]
            asked = self._asked.setdefault(fingerprint, np.zeros(size, dtype=np.bool_))
            once = lines[:size]
            found[name] = {"requests": len(lines), "again": int(asked[once].sum()) + len(lines) - len(once)}
            asked[once] = True
        return found
