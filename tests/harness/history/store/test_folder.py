"""The store on disk: any order, several writers, killed ones, damaged files; always the same series."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import RunUnreadable, StorageFailed, UsageError
from harness.history.series import Series
from harness.history.store import files
from harness.history.store.folder import NIGHTS, NOTES, Store
from harness.history.store.night import Night
from tests.nights import BEGIN, SETUP, night, row, what, year

ROOT = Path(__file__).parents[4]
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
# Adds nights without end and prints each that is surely stored.
WRITER = """
import sys
from pathlib import Path
from harness.history.store.folder import Store
from tests.nights import night, row, what
store, first = Store.made(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
for day in range(first, first + 1000):
    store.add(night(day, *(row(float(day + 1), what(load=f"load-{n}")) for n in range(50))))
    print(day, flush=True)
"""


def written(folder: Path, nights: list[Night]) -> Store:
    """A store with these nights, added in this order."""
    store = Store.made(folder)
    for one in nights:
        store.add(one, now=NOON)
    return store


def same(one: list[Series], other: list[Series]) -> bool:
    """Whether two lists of series are equal; NaN equals itself here."""
    return repr(one) == repr(other)


VALUES = st.lists(st.one_of(st.floats(0.001, 1e6), st.just(math.nan)), min_size=1, max_size=5)


@given(VALUES, st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_any_order_and_twice_are_the_same_series(values: list[float], random: object) -> None:
    """What a reader gets depends on the set of nights alone; every number comes back as it was."""
    nights = year(values)
    mixed = [*nights, *nights]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        in_order, shuffled = written(Path(one), nights).series(), written(Path(other), mixed).series()
        assert len([*(Path(other) / NIGHTS).iterdir()]) == len(nights)
    assert same(in_order, shuffled)
    (found,) = in_order
    assert [point.value for point in found.points] == pytest.approx(values, nan_ok=True, rel=0)
    assert [point.at for point in found.points] == [one.at for one in nights]


@given(st.permutations(range(8)), st.integers(1, 7))
@settings(max_examples=10, deadline=None)
def test_stores_of_two_machines_can_be_merged(order: list[int], cut: int) -> None:
    """Copying the files of one into the other is all; nights that both have count once."""
    nights = year([float(day + 1) for day in range(8)])
    with TemporaryDirectory() as one, TemporaryDirectory() as other, TemporaryDirectory() as whole:
        written(Path(one), [nights[day] for day in order[:cut]])
        written(Path(other), [nights[day] for day in order[cut - 1 :]])
        for path in (Path(other) / NIGHTS).iterdir():
            (Path(one) / NIGHTS / path.name).write_bytes(path.read_bytes())
        assert same(Store.open(Path(one)).series(), written(Path(whole), nights).series())


def test_threads_at_once_lose_nothing(tmp_path: Path) -> None:
    """Sixteen nights, each added by two writers at the same time, while others read whole files only."""
    nights = year([float(day + 1) for day in range(16)])
    store = written(tmp_path / "store", nights[:1])
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(Store.made(store.folder).add, one) for one in [*nights, *nights]]
        read = [pool.submit(Store.open(store.folder).series) for _ in range(8)]
    for one in made:
        one.result()
    for seen in read:
        assert len(seen.result()) == 1
    assert same(Store.open(store.folder).series(), written(tmp_path / "other", nights).series())


def test_killed_writers_leave_whole_nights_only(tmp_path: Path) -> None:
    """Two processes append at once and are killed with SIGKILL: each night that they told is there, none is torn."""
    folder = tmp_path / "store"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(first)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (0, 5000)
    ]
    told: list[int] = []
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            told += [int(writer.stdout.readline()) for _ in range(3)]
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
    for writer in writers:
        out, _ = writer.communicate()
        told += [int(line) for line in out.splitlines() if line.endswith(tuple("0123456789"))][:-1]
    store = Store.open(folder)
    series = store.series()
    assert store.damage == []
    assert len(series) == 50
    assert {point.at for point in series[0].points} >= {night(day).at for day in told}
    store.add(night(9000, 1.0))
    assert Store.open(folder).series()


def test_what_killed_writers_leave_is_removed_a_day_later(tmp_path: Path) -> None:
    """Not before: another writer may be at it."""
    store = written(tmp_path, [night(0, 1.0)])
    fresh, stale = (tmp_path / NIGHTS / f".new-{name}" for name in ("fresh", "stale"))
    for path in (fresh, stale):
        path.write_bytes(b"half")
    old = fresh.stat().st_mtime - 2 * 86_400
    os.utime(stale, (old, old))
    store.add(night(1, 1.0))
    assert fresh.exists()
    assert not stale.exists()


def test_damaged_foreign_and_future_files_are_named_and_skipped(tmp_path: Path) -> None:
    """The rest is read; a damaged night is whole again when its run is added again."""
    nights = year([1.0, 2.0, 3.0, 4.0])
    store = written(tmp_path, nights)
    paths = sorted((tmp_path / NIGHTS).iterdir())
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    pq.write_table(pa.table({"x": [1]}), paths[1])
    about = {"format": files.FORMAT + 1}
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata({"harness.history": json.dumps(about)}), paths[2])
    (tmp_path / NIGHTS / "notes.txt").write_text("not ours")
    (tmp_path / NIGHTS / "folder.parquet").mkdir()
    (series,) = store.series()
    assert [point.value for point in series.points] == [4.0]
    assert len(store.damage) == 4
    for path, why in zip(paths, ("cannot be read", "no night of a history", "newer version"), strict=False):
        assert any(path.name in sentence and why in sentence for sentence in store.damage), store.damage
    assert store.add(nights[0])
    assert [point.value for point in store.series()[0].points] == [1.0, 4.0]


WHOLE = files.as_parquet(night(0, *(row(float(one + 1), what(load=f"load-{one}")) for one in range(3))), NOON)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), min_size=1, max_size=3), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_byte_that_changed_changes_a_number(changes: list[tuple[int, int]], cut: bool) -> None:
    """A file on a failing disk is whole or named: pages and facts have checksums, which Parquet has not by itself."""
    content = bytearray(WHOLE)
    for place, bits in changes:
        content[place] ^= bits
    if cut:
        del content[changes[0][0] :]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "night.parquet"
        path.write_bytes(WHOLE)
        whole = files.Reader().night(path)
        path.write_bytes(content)
        with suppress(RunUnreadable):
            assert files.Reader().night(path) == whole


def test_texts_that_are_no_text_are_kept_readable(tmp_path: Path) -> None:
    """Halves of letters, which an argument of a command can have."""
    store = written(tmp_path, [night(0, 1.0)])
    store.note("2026-06-01", "fan \udcff", {})
    assert [event.text for event in store.series()[0].events] == ["fan ?"]


def test_a_night_with_columns_missing_is_damaged(tmp_path: Path) -> None:
    """One that lost a column is named, not half-read."""
    store = written(tmp_path, [night(0, 1.0)])
    (path,) = (tmp_path / NIGHTS).iterdir()
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["value"]), path)
    assert store.series() == []
    assert "it has no column value" in store.damage[0]


def test_a_resumed_run_replaces_what_it_had_before(tmp_path: Path) -> None:
    """Of several additions of a run the one of the latest method, most sessions and most numbers counts."""
    first = night(0, row(1.0))
    resumed = replace(first, sessions=2, rows=(row(1.0), row(5.0, what("tpot_ms"))))
    poorer = replace(first, rows=(row(7.0),))
    for order in ([first, resumed, poorer], [poorer, resumed, first]):
        with TemporaryDirectory() as folder:
            series = written(Path(folder), order).series()
            assert [one.points[0].value for one in series] == [1.0, 5.0]
            assert [len(one.points) for one in series] == [1, 1]


def test_two_runs_of_a_night_are_two_points(tmp_path: Path) -> None:
    """A run that is repeated in the same night agrees with the first, or does not."""
    again = replace(night(0, 2.0), identity="other", at=BEGIN + timedelta(hours=1))
    (series,) = written(tmp_path, [night(0, 1.0), again]).series()
    assert [point.value for point in series.points] == [1.0, 2.0]


def test_a_point_has_all_that_is_known_of_its_number(tmp_path: Path) -> None:
    """Interval, starts, labels, run, plan, method and doubt; an unknown value stays unknown."""
    store = written(tmp_path, [night(0, row(10.0)), night(1, row(math.nan, doubt="only a bound is known"))])
    (series,) = store.series()
    first, second = series.points
    assert (first.value, first.low, first.high, first.starts) == (10.0, 9.9, 10.1, 1)
    assert (first.run, first.method, first.doubt) == ("run-0", 2, "")
    assert first.plan == second.plan != ""
    assert first.labels == {"commit": "0" * 40}
    assert math.isnan(second.value)
    assert second.doubt == "only a bound is known"
    assert (series.better, series.control, series.resets) == ("lower", False, ())


def test_machines_classes_and_tools_are_series_of_their_own(tmp_path: Path) -> None:
    """So are scenario, load, metric, statistic and configuration; the better direction is the metric's."""
    rows = [
        row(1.0),
        row(1.0, what(class_name="a")),
        row(1.0, what("goodput_rps", "value")),
        row(1.0, what(level="q4")),
    ]
    others = [night(1, 1.0, machine="m2"), night(2, 1.0, tool="AIPerf"), night(3, 1.0, scenario="other")]
    series = written(tmp_path, [night(0, *rows), *others]).series()
    assert len(series) == 7
    assert {one.key.metric: one.better for one in series} == {"ttft_ms": "lower", "goodput_rps": "higher"}
    assert {one.key.tool for one in series} == {"", "AIPerf"}


def test_controls_and_metrics_are_those_of_the_settings(tmp_path: Path) -> None:
    """What fits all keys of a control is one; other metrics stay in the store and are not read."""
    text = "controls: [pinned, {engine: simulated, load: chat}]\nmetrics: [ttft p50]\n"
    (tmp_path / "history.yaml").write_text(text)
    kinds = [what(), what(variant="pinned"), what(engine="simulated"), what(engine="simulated", load="other")]
    series = written(tmp_path, [night(0, *(row(1.0, one) for one in kinds), row(1.0, what("tpot_ms")))]).series()
    assert sorted((one.key.engine, one.key.variant, one.key.load, one.control) for one in series) == [
        ("llama-server", "", "chat", False),
        ("llama-server", "pinned", "chat", True),
        ("simulated", "", "chat", True),
        ("simulated", "", "other", False),
    ]


def test_notes_are_events_of_their_series(tmp_path: Path) -> None:
    """At the night of that day; one without a series is about all, a damaged one is named and skipped."""
    store = written(tmp_path, [night(0, 1.0), night(1, row(1.0), row(1.0, what("tpot_ms")))])
    with ThreadPoolExecutor(4) as pool:
        notes = [
            ("2026-06-02", "new fan", {"metric": "tpot_ms"}),
            ("2026-06-01", "moved", {}),
            ("2026-06-01", "moved", {}),
        ]
        list(pool.map(lambda one: store.note(*one, now=NOON), notes))
    (tmp_path / NOTES / "x.json").write_text("{")
    found = {one.key.metric: [(event.at, event.kind, event.text) for event in one.events] for one in store.series()}
    moved = (BEGIN, "note", "moved")
    assert found["ttft_ms"] == [moved]
    assert found["tpot_ms"] == [
        (BEGIN.replace(hour=0), "note", "moved"),
        (BEGIN + timedelta(days=1), "note", "new fan"),
    ]
    assert [why for why in store.damage if "x.json" in why]


def test_alerts_that_were_told_are_remembered(tmp_path: Path) -> None:
    """Once each, whoever tells it."""
    store = written(tmp_path, [night(0, 1.0)])
    store.tell(["a", "b"])
    Store.open(tmp_path).tell(["b", "c / ü"])
    assert Store.open(tmp_path).told() == {"a", "b", "c / ü"}


def test_what_is_no_history_is_refused(tmp_path: Path) -> None:
    """With the command that makes one; a run, a file, and a folder that cannot be written are told apart."""
    with pytest.raises(UsageError, match=r"there is no history in .*nowhere; `harness history add latest` makes one"):
        Store.open(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a run and no history"):
        Store.made(ROOT / "tests" / "data" / "runs" / "v1" / "quick")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        Store.made(tmp_path / "file")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / NIGHTS).write_text("")
    with pytest.raises(StorageFailed, match=r"cannot write: .*--store"):
        Store.made(tmp_path / "store").add(night(0, 1.0))


def test_setups_are_shared_between_nights(tmp_path: Path) -> None:
    """A year of equal texts is held once: 500 series of 365 nights must fit in little memory."""
    store = written(tmp_path, year([1.0, 2.0]))
    one, other = store.nights()
    assert one.rows[0].setup == SETUP
    assert one.rows[0].setup is other.rows[0].setup
    assert one.rows[0].what is other.rows[0].what
    assert one.state is other.state
