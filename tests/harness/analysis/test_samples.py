"""Of a cell's readings, what each of its trials can need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from cProfile import Profile
from pathlib import Path
from pstats import Stats
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import results
from harness.analysis.reading import read
from harness.analysis.samples.gauges import AROUND_NS, CellSamples
from harness.records import Sample
from harness.store.manifest import Manifest
from harness.store.run import Run, RunWriter, record_writer
from tests.fabricated import MS, FabricatedTrial, S, cell_entry, streamed, trial_entry

GAUGES = (("engine", "rss_bytes", "server"), ("client", "cpu_share", "client"), ("server0", "prompt_tokens", "server"))


class Counted(FabricatedTrial):
    """A trial that counts how often its samples are read."""

    read = 0

    def samples(self) -> Any:
        """As ever."""
        type(self).read += 1
        return super().samples()


@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(GAUGES)), max_size=60),
    st.integers(0, 400),
)
def test_everything_near_a_trial_and_a_neighbour_of_each_gauge(
    readings: list[tuple[int, tuple[str, str, str]]], t0_s: int
) -> None:
    """Nothing is lost within a minute of the trial, nor the last reading before it and the first after it."""
    told = [Sample(at_s * S, source, name, 1.0, scope) for at_s, (source, name, scope) in readings]
    made = FabricatedTrial(cell_entry(), trial_entry(t0_ns=t0_s * S), [streamed(0, 0.0)], told)
    found = CellSamples().around(made, read(made))
    ended = max(record.done_ns or 0 for record in made.made)
    begin, end = t0_s * S - AROUND_NS, t0_s * S + ended + AROUND_NS
    whole = made.samples()
    near = whole[whole["at_ns"].between(begin, end)]
    assert set(near.index) <= set(found.index)
    assert found.equals(whole.loc[sorted(found.index)])
    for _, own in whole.groupby(["source", "name"]):
        before, after = own.loc[own["at_ns"] < begin, "at_ns"], own.loc[own["at_ns"] > end, "at_ns"]
        kept = found.loc[found.index.intersection(own.index), "at_ns"]
        assert kept[kept < begin].tolist() == before.sort_values().tolist()[-1:]
        assert kept[kept > end].tolist() == after.sort_values().tolist()[:1]


def test_a_cell_is_read_once() -> None:
    """However many trials it has."""
    made = [
        Counted(cell_entry(id=cell), trial_entry(t0_ns=S), [streamed(0, 0.0)], [Sample(S, "engine", "rss_bytes", 1.0)])
        for cell in ("000", "000", "000", "001")
    ]
    cells, Counted.read = CellSamples(), 0
    assert [len(cells.around(one, read(one))) for one in made] == [1] * 4
    assert Counted.read == 2


@contextmanager
def calls(found: list[int]) -> Iterator[None]:
    """Count the calls of all functions, those of libraries too: a measure of work that a busy machine leaves alone."""
    profile = Profile()
    with profile:
        yield
    found.append(Stats(profile).total_calls)


def stored(path: Path, trials: int) -> Run:
    """A run of one cell whose trials follow each other closely, with readings from its begin to its end."""
    entries = [
        trial_entry(id=f"{n:03d}", load=f"l{n}", path=f"cells/000/{n:03d}", t0_ns=n * S, end_s=1.0)
        for n in range(trials)
    ]
    cell = cell_entry(trials=entries, path="cells/000")
    writer = RunWriter(path, Manifest(name="many", status="complete", cells=[cell]))
    for entry in entries:
        with record_writer(writer.folder(entry.path)) as stream:
            for n in range(10):
                stream.add(streamed(n, n * 100.0))
        writer.finish_records(path / entry.path)
    with writer.samples(path / "cells/000") as stream:
        for tick in range(trials * 10):
            for source, name, scope in GAUGES:
                stream.add(Sample(tick * 100 * MS, source, name, float(tick), scope))
    writer.finish_samples(path / "cells/000")
    return Run.open(path)


@pytest.mark.slow
def test_the_results_of_many_trials_take_as_much_longer(tmp_path: Path) -> None:
    """Ten times the trials take ten times the work, and a little more at most."""
    few, many = stored(tmp_path / "few", 3), stored(tmp_path / "many", 30)
    results.derive(few.manifest, few.trials())  # what is done once
    found: list[int] = []
    for run in (few, many):
        with calls(found):
            results.derive(run.manifest, run.trials())
    assert found[1] < 12 * found[0]
