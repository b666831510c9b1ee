"""Probe of a server: how a search sends its steps, in real or virtual time."""

from __future__ import annotations

from typing import Protocol

from harness.saturation.requests import Requests
from harness.saturation.search import Search, Step


class Probe(Protocol):
    """Server under a load that goes on from step to step."""

    def run(self, step: Step) -> tuple[Requests, float]:
        """Send a step; return everything known at its end, and that moment."""


def searched(search: Search, probe: Probe, requests: Requests, now_s: float = 0.0) -> Search:
    """Run a search to its end; return it."""
    while (step := search.next(requests, now_s)) is not None:
        requests, now_s = probe.run(step)
    search.conclude(requests)
    return search
