"""Tally of one metrics page over one trial, as the manifest keeps it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Tally(BaseModel):
    """Statistics of reading one page, until the next trial begins."""

    model_config = ConfigDict(extra="allow")

    url: str = ""
    source: str | None = None
    kind: str | None = None
    scrapes: int = 0
    failures: int = 0
    ms_per_scrape: float | None = None  # from the request to the whole page
    ms_per_reading: float | None = None  # processor time of parsing a page
    reason: str | None = None  # the last failure

    def count(self, scrape_ns: int, reading_ns: int) -> None:
        """Count a page that was read, with the time of fetching and parsing it."""
        self.scrapes += 1
        fetch_ms, parse_ms = self.ms_per_scrape or 0.0, self.ms_per_reading or 0.0
        self.ms_per_scrape = fetch_ms + (scrape_ns / 1e6 - fetch_ms) / self.scrapes
        self.ms_per_reading = parse_ms + (reading_ns / 1e6 - parse_ms) / self.scrapes
