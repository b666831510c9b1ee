"""Gauges: the readings of a cell, those that concern a trial, and those that are the engine's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.columns import NS_PER_S, Columns
from harness.analysis.reading import Reading, StoredTrial
from harness.analysis.stats import Flags, Floats, Ints
from harness.errors import FileUnreadable
from harness.records import sample_schema
from harness.store.categories import frame_of, one_of
from harness.store.manifest import CellEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd

AROUND_NS = 60_000_000_000
SERVER = "server"
CPU = "cpu"
NO_GPU = "no GPU of the machine under test was read"
NOT_ON_A_GPU = "the engine computes on the processor: the GPUs of its machine are not its own"


class CellSamples:
    """The samples of one cell, read once for all of its trials; request trials of the same cell consecutively.

    A cell may have hundreds of trials. Searching all its readings for each would take the square of their number.
    """

    def __init__(self) -> None:
        self.damage: list[str] = []  # a sentence for each file that cannot be read
        self._cell: str | None = None
        self._samples: pd.DataFrame
        self._gauges: list[Ints]

    def around(self, stored: StoredTrial, reading: Reading) -> pd.DataFrame:
        """Return the cell's samples from AROUND_NS before a trial's T0 until as long after its last event.

        Of each gauge the last reading before and the first after are among them. The order is that of the file.
        """
        if self._cell != stored.cell.id:
            self._cell, self._samples = stored.cell.id, self._readable(stored)
            self._gauges = list(_rows_by_gauge(self._samples))
        t0_ns = stored.trial.t0_ns
        ended = reading.columns.ended
        if t0_ns is None or not np.isfinite(ended).any():
            return self._samples
        at_ns = self._samples["at_ns"].to_numpy()
        begin_ns, end_ns = t0_ns - AROUND_NS, t0_ns + int(np.nanmax(ended)) + AROUND_NS
        parts = [np.empty(0, np.int64)]
        for rows in self._gauges:
            first = int(np.searchsorted(at_ns[rows], begin_ns))
            last = int(np.searchsorted(at_ns[rows], end_ns, side="right"))
            parts.append(rows[max(0, first - 1) : last + 1])
        chosen = np.concatenate(parts)
        return self._samples if len(chosen) == len(self._samples) else self._samples.take(np.sort(chosen))

    def _readable(self, stored: StoredTrial) -> pd.DataFrame:
        """Return a cell's samples; none if their file is damaged, which its entry then says."""
        try:
            return stored.samples()
        except FileUnreadable as error:
            self.damage.append(str(error))
            stored.cell.unread = [*stored.cell.unread, str(error)]
            return frame_of(sample_schema().empty_table())


def _rows_by_gauge(samples: pd.DataFrame) -> Iterator[Ints]:
    """Yield the rows of each source, name and scope, in the order of time."""
    gauge = samples.groupby(["source", "name", "scope"], sort=False, observed=True).ngroup().to_numpy()
    order = np.lexsort((samples["at_ns"].to_numpy(), gauge))
    ends = np.searchsorted(gauge[order], np.arange(gauge.max(initial=-1) + 2))
    return (order[begin:end] for begin, end in pairwise(ends))


@dataclass(frozen=True, slots=True)
class Gauge:
    """Readings of one gauge in the order of time: at_ns of the monotonic clock, shape (n,); values, shape (n,)."""

    at_ns: Ints
    values: Floats


def gauges(samples: pd.DataFrame, kind: str, name: str, scope: str = SERVER) -> dict[str, Gauge]:
    """Return a gauge of every source of a kind ("gpu": "gpu0", "gpu1", ...) that was read."""
    chosen = one_of(samples["name"], [name]) & one_of(samples["scope"], [scope])
    found: dict[str, Gauge] = {}
    if not chosen.any():
        return found
    at_ns, values = samples["at_ns"].to_numpy()[chosen], samples["value"].to_numpy(dtype=np.float64)[chosen]
    sources = samples["source"].array[chosen]
    for source in map(str, sources.unique()):
        if source.rstrip("0123456789") == kind:
            own = one_of(sources, [source])
            order = np.argsort(at_ns[own], kind="stable")
            found[source] = Gauge(at_ns[own][order], values[own][order])
    return found


def span_ns(trial: TrialEntry, columns: Columns) -> tuple[float, float] | None:
    """Return when a trial began and its last request ended (NaN: later than everything); None if nothing was sent."""
    if trial.t0_ns is None or not len(columns):
        return None
    return float(trial.t0_ns), float(trial.t0_ns) + float(columns.ended.max())


def during(samples: pd.DataFrame, trial: TrialEntry, columns: Columns) -> tuple[Flags, Floats]:
    """Return which samples are the server's, from the last before T0 to the last event; and all times from T0 in s."""
    if trial.t0_ns is None or not len(samples) or not len(columns):
        return np.zeros(len(samples), dtype=np.bool_), np.zeros(len(samples))
    own = one_of(samples["scope"], [SERVER])
    at_s = (samples["at_ns"].to_numpy() - trial.t0_ns) / NS_PER_S
    begin_s = float(at_s[own & (at_s <= 0)].max(initial=-np.inf))
    end_s = float(columns.ended.max()) / NS_PER_S
    return own & (at_s >= (begin_s if np.isfinite(begin_s) else 0.0)) & ~(at_s > end_s), at_s


def on_processor(cell: CellEntry) -> bool:
    """Return whether the engine, or else its scenario, states that it computes on the processor."""
    device = cell.engine_info.device
    return device.startswith(CPU) if device else cell.devices == [CPU]


def no_gpu_because(cell: CellEntry) -> str:
    """Return why a trial has no reading of a GPU, if it has none."""
    return NOT_ON_A_GPU if on_processor(cell) else NO_GPU


def without_others_gpus(cell: CellEntry, samples: pd.DataFrame) -> pd.DataFrame:
    """Return the samples without those of GPUs that are not the engine's.

    Its own are those in the scenario's `devices`, else those on which the driver saw its memory. If the driver does not
    report memory by process, they are all that were read, and none if the engine computes on the processor.
    """
    given = [f"gpu{number}" for number in cell.devices if number != CPU]
    named = [source for source in map(str, samples["source"].unique()) if re.fullmatch(r"gpu\d+", source)]
    if not named:
        return samples
    if on_processor(cell) or not given:
        given = engines_gpus(samples)
    if not given and not on_processor(cell):
        return samples
    own: pd.DataFrame = samples[~one_of(samples["source"], named) | one_of(samples["source"], given)]
    return own


def engines_gpus(samples: pd.DataFrame) -> list[str]:
    """Return the GPUs on which the driver saw memory of the engine's processes."""
    held = (samples["name"] == "engine_memory_bytes") & (samples["value"] > 0)
    found: list[str] = samples.loc[held, "source"].astype(str).unique().tolist()
    return found
