"""Night: the numbers of one run as the history keeps them, with the facts that may explain a change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

Facts = Mapping[str, str]
"""Facts by name, as text. An absent one is unknown."""


class What(NamedTuple):
    """Number of a configuration under a load. The scenario and the machine are the night's."""

    load: str
    class_name: str
    metric: str
    statistic: str
    model: str
    engine: str
    level: str
    variant: str


class Setup(NamedTuple):
    """How a number was measured, and of what; "" where it is unknown.

    Attributes:
        plan: Hash of the plan of each repetition: `1:ab12 2:cd34`.
        slo: What makes a request good, as JSON; "" for numbers that do not depend on it.
        clock: What stamped the arrivals.
        driver: What sent the load.
        weights: Hash of the model's weights.
        version: Version of the engine.
        options: Options of the engine, as JSON.
    """

    plan: str = ""
    slo: str = ""
    clock: str = ""
    driver: str = ""
    weights: str = ""
    version: str = ""
    options: str = ""


class Row(NamedTuple):
    """One number of a night. Attributes are as in `Point`; n: observations behind it."""

    what: What
    value: float
    low: float
    high: float
    n: int
    starts: int
    doubt: str
    setup: Setup


@dataclass(frozen=True, slots=True)
class Night:
    """Numbers of one run.

    Attributes:
        at: Begin of the run, UTC.
        run: Name of the stored run.
        identity: Hash of what makes it this run and no other, wherever it is stored.
        sessions: Sessions of the run; a resumed one has more than before.
        machine: Identity of the hardware.
        state: Facts of the machine that can change on the same hardware: driver, clocks, governor.
        tool: Load generator of another project; "" for ours.
        added_utc: When it was added, in ISO 8601; not part of its content.
    """

    at: datetime
    run: str
    identity: str
    scenario: str
    machine: str
    method: int
    rows: tuple[Row, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    state: Facts = field(default_factory=dict)
    sessions: int = 1
    tool: str = ""
    harness_version: str = ""
    added_utc: str = ""

    @property
    def name(self) -> str:
        """Name of its file: the same content has the same name."""
        return f"{self.at:%Y%m%dT%H%M%SZ}-{self.identity[:12]}-{self._digest()[:10]}"

    @property
    def rank(self) -> tuple[int, int, int, str, str]:
        """Order among additions of the same run; the greatest counts."""
        return self.method, self.sessions, len(self.rows), self.added_utc, self.name

    def _digest(self) -> str:
        facts = [dict(self.labels), dict(self.state)]
        about = [self.at.isoformat(), self.run, self.identity, self.scenario, self.machine, self.method, self.sessions]
        rows = [[*map(str, row.what), *map(repr, row[1:-1]), *row.setup] for row in sorted(self.rows)]
        return digest([about, facts, self.tool, rows])


def clean(text: object) -> str:
    """Return a text that every file can hold: halves of letters, as broken input has them, become question marks."""
    return str(text).encode("utf-8", "replace").decode()


def digest(content: object) -> str:
    """Return the SHA-256 of plain data, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def newest(nights: Sequence[Night]) -> list[Night]:
    """Return one night for each run, oldest first: of several additions of a run the one of the greatest rank."""
    best: dict[str, Night] = {}
    for night in nights:
        before = best.get(night.identity)
        if before is None or night.rank > before.rank:
            best[night.identity] = night
    return sorted(best.values(), key=lambda one: (one.at, one.identity))
