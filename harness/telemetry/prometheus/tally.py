"""The tally of one metrics page over one trial, as the manifest keeps it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Tally(BaseModel):
    """How reading one page went. It goes on counting until the next trial begins.

    Attributes:
        ms_per_scrape: From the request to the whole page.
        ms_per_reading: Processor time for making sense of a page.
        reason: The last failure.
    """

    model_config = ConfigDict(extra="allow")

    url: str = ""
    source: str | None = None
    kind: str | None = None
    scrapes: int = 0
    failures: int = 0
    ms_per_scrape: float | None = None
    ms_per_reading: float | None = None
    reason: str | None = None

    def count(self, scrape_ns: int, reading_ns: int) -> None:
        """Count a page that was read, and what that took."""
        self.scrapes += 1
        self.ms_per_scrape = self._mean(self.ms_per_scrape, scrape_ns)
        self.ms_per_reading = self._mean(self.ms_per_reading, reading_ns)

    def _mean(self, mean_ms: float | None, took_ns: int) -> float:
        before = mean_ms or 0.0
        return before + (took_ns / 1e6 - before) / self.scrapes
