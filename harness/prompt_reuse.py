"""Prompts that an engine knew when it was asked: its prefix cache answers them sooner than others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import thresholds
from harness.columns import Columns, Flags
from harness.reasons import Level, Reason
from harness.token_truth import TEMPLATE_TOKENS

if TYPE_CHECKING:
    from harness.workload import Schedule


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


def reuse_reasons(trial: Mapping[str, Any], columns: Columns) -> Iterator[Reason]:
    """Whether the engine's cache held more of the measured prompts than the plan gave it to share."""
    share = _cached_share(columns.measured)
    cached = thresholds.CACHED_UNPLANNED.level(share)
    if trial.get("shares_prompts") is False and cached is not Level.VALID:
        sentence = f"{share:.0%} of the prompt tokens came from the server's cache, though no two prompts begin alike."
        yield Reason("cached_prompts", cached, sentence, "Restart it, or empty its cache, and measure again.")
    asked = (trial.get("prompts_asked") or {}).values()
    if not asked or share <= thresholds.CACHED_UNPLANNED.warn:
        return
    requests, again = (sum(one[key] for one in asked) for key in ("requests", "again"))
    level = thresholds.PROMPTS_AGAIN.level(again / requests if requests else 0.0)
    if level is not Level.VALID:
        sentence = f"{again} of {requests} prompts from the file had been sent to this engine before."
        advice = "A prefix cache answers them sooner: give a file with more prompts than the loads send together."
        yield Reason("prompts_again", level, sentence, advice)
    elif trial.get("salt") is not None and not trial.get("cache_reset"):
        sentence = "The server ran before this run, and may know the prompts of the file."
        advice = "A prefix cache answers them sooner: restart the server, or use made-up prompts, which differ by run."
        yield Reason("prompts_known", Level.WARN, sentence, advice)


def _cached_share(rows: Columns) -> float:
    """The share of the prompts' tokens that came from a cache, but for a template's; NaN where nobody said."""
    prompt, cached = rows.counts["prompt_tokens"], rows.counts["cached_tokens"]
    known = ~np.isnan(prompt) & ~np.isnan(cached)
    tokens = float(prompt[known].sum())
    return float(np.maximum(cached[known] - TEMPLATE_TOKENS, 0).sum()) / tokens if tokens else float("nan")
