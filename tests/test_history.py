"""`harness history` from the command line: nights are added, listed, shown, noted and exported."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.store.run import MANIFEST
from tests.command import Ended
from tests.forked import harness as command

pytestmark = pytest.mark.slow
DATA = Path(__file__).parent / "data"
NIGHTS = 5
FIRST = date(2026, 11, 1)


def night(runs: Path, day: int) -> None:
    """A stored run of a night, with the commit of that day; the last one is of another release."""
    run = runs / f"night-{day}"
    shutil.copytree(DATA / "runs" / "v1" / "quick", run)
    stored = json.loads((run / MANIFEST).read_text())
    stored["created_utc"] = f"{FIRST + timedelta(days=day)}T02:00:00+00:00"
    stored["labels"] = {"commit": f"{day}" * 40, "release": "1.1" if day == NIGHTS - 1 else "1.0"}
    (run / MANIFEST).write_text(json.dumps(stored))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of five nights, of which four are in the history."""
    folder = tmp_path_factory.mktemp("nights")
    for day in range(NIGHTS):
        night(folder / "runs", day)
    ended = command("history", "add", *(f"night-{day}" for day in range(NIGHTS - 1)), cwd=folder)
    assert ended.code == 0, ended.err
    assert ended.err.count("added ") == NIGHTS - 1
    return folder


def told(ended: Ended) -> str:
    """What a command prints, with plain spaces."""
    assert ended.code == 0, ended.err
    return ended.out.replace("\u202f", " ")


def test_a_night_is_added_once(place: Path) -> None:
    """Again it is there already. What cannot be added is told, and the rest is added."""
    ended = command("history", "add", "night-0", "--json", cwd=place)
    assert ended.code == 0, ended.err
    assert "night-0 is there already, with " in ended.err
    assert json.loads(ended.out)["added"][0]["new"] is False
    ended = command("history", "add", "nothing", "night-4", "--store", "other", cwd=place)
    assert ended.code == 2
    assert "there is no run 'nothing'" in ended.err
    assert "added " in ended.err
    assert "night of 2026-11-05 02:00 UTC in other" in ended.err


def test_series_are_listed_and_shown(place: Path) -> None:
    """By number or by words, with what happened; several that fit are listed."""
    command("history", "add", "night-4", cwd=place)
    listed = told(command("history", "list", cwd=place))
    assert "all: tiny frozen" in listed
    assert f"{NIGHTS}   2026-11-01   2026-11-05" in listed
    data = json.loads(told(command("history", "list", "--json", cwd=place)))
    (one,) = [each for each in data["series"] if each["short"] == "sustained ttft_ms p50 simulated"]
    assert (one["nights"], one["unit"], one["better"], one["scale"]) == (NIGHTS, "ms", "lower", "ratio")
    some = json.loads(told(command("history", "list", "ttft", "p50", "--json", cwd=place)))
    assert {(each["key"]["metric"], each["key"]["statistic"]) for each in some["series"]} == {("ttft_ms", "p50")}
    assert one["number"] in [each["number"] for each in some["series"]]
    shown = told(command("history", "show", "sustained", "ttft", "p50", "simulated", cwd=place))
    last = next(line for line in shown.splitlines() if line.startswith(" 2026-11-05 02:00   1.1 4444444444  "))
    assert last.endswith("0 %   release: 1.1")
    assert "▅▅▅▅▅  5 nights, lower is better" in shown
    assert shown.count(" 0 %") == 2  # the nights with three before them
    short = json.loads(told(command("history", "show", str(one["number"]), "--last", "2", "--json", cwd=place)))
    assert [point["at"] for point in short["points"]] == ["2026-11-04T02:00:00Z", "2026-11-05T02:00:00Z"]
    several = command("history", "show", "ttft", "p50", cwd=place)
    assert several.code == 2
    assert "harness: 'ttft p50' fits " in several.err
    assert f"  {one['number']}  sustained ttft_ms p50 simulated" in several.err


def test_a_note_is_shown_at_its_night(place: Path) -> None:
    """On one series, on all that fit, or on all of the store; a day without a night is refused."""
    assert command("history", "note", "sustained ttft p50 simulated@2026-11-02", "new fan", cwd=place).code == 0
    assert command("history", "note", "tpot p50@2026-11-02", "quiet", "--all", cwd=place).code == 0
    ended = command("history", "note", "@2026-11-03", "moved to the rack", cwd=place)
    assert ended.err == "noted on all series: 2026-11-03 moved to the rack\n"
    shown = told(command("history", "show", "sustained", "ttft", "p50", "simulated", cwd=place))
    assert "note: new fan" in shown
    assert "note: moved to the rack" in shown
    assert "quiet" not in shown
    for where, sentence in (
        ("@2026-12-24", "no night of 2026-12-24; the nearest are 2026-11-0"),
        ("ttft@yesterday", "'yesterday' is no date; write it as 2026-11-30"),
        ("ttft p50@2026-11-02", "'ttft p50' fits "),
    ):
        ended = command("history", "note", where, "text", cwd=place)
        assert (ended.code, sentence in ended.err) == (2, True), ended.err


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_nights_are_exported(place: Path, ending: str, tmp_path: Path) -> None:
    """A row for each night of each series, with the same columns in all formats; other endings are refused."""
    file = tmp_path / f"nights.{ending}"
    ended = command("history", "export", str(file), "sustained", "ttft", "p50", "simulated", cwd=place)
    assert ended.code == 0, ended.err
    rows = {
        "csv": lambda: list(csv.DictReader(file.read_text().splitlines())),
        "parquet": lambda: pq.read_table(file).to_pylist(),
        "json": lambda: json.loads(file.read_text())["nights"],
    }[ending]()
    assert len(rows) >= NIGHTS - 1
    assert float(rows[0]["value"]) > 0
    assert {"scenario", "machine", "metric", "at", "value", "low", "high", "run", "labels", "unit", "events"} <= {
        *rows[0]
    }
    assert str(rows[0]["at"]).startswith("2026-11-01")
    refused = command("history", "export", "nights.xlsx", cwd=place)
    assert (refused.code, "end it with .csv, .parquet or .json" in refused.err) == (2, True)


def test_results_of_other_tools_are_series_of_their_own(tmp_path: Path) -> None:
    """Marked with their tool."""
    file = DATA / "foreign" / "sglang.jsonl"
    ended = command("history", "add", str(file), "--at", "2026-11-30", "--scenario", "chat", cwd=tmp_path)
    assert ended.code == 0, ended.err
    data = json.loads(told(command("history", "list", "--json", cwd=tmp_path)))
    assert {one["key"]["scenario"] for one in data["series"]} == {"chat"}
    assert {one["key"]["tool"] for one in data["series"]} == {"SGLang bench_serving"}


def test_without_a_history_there_is_a_sentence(tmp_path: Path) -> None:
    """It has the command that makes one. Wrong settings have their line."""
    ended = command("history", "list", cwd=tmp_path)
    assert (ended.code, ended.err) == (
        2,
        "harness: there is no history in history; `harness history add latest` makes one\n",
    )
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "history.yaml").write_text("schedule: {every: 24h}\ncontrol: a\n")
    ended = command("history", "list", cwd=tmp_path, env={"HARNESS_HISTORY": "elsewhere"})
    assert (ended.code, ended.err) == (
        2,
        "harness: elsewhere/history.yaml:2:1: control: unknown key; did you mean `controls`?\n",
    )
    shutil.copytree(DATA / "runs" / "v1" / "quick", tmp_path / "quick")
    # A night must not be lost for that.
    ended = command("history", "add", "./quick", "--store", "elsewhere", cwd=tmp_path)
    assert (ended.code, "the usual numbers are stored" in ended.err, "added " in ended.err) == (2, True, True)
    shutil.rmtree(tmp_path / "elsewhere" / "nights")
    (tmp_path / "elsewhere" / "history.yaml").write_text("")
    ended = command("history", "show", "1", "--store", "elsewhere", cwd=tmp_path)
    assert (ended.code, "there is no night in elsewhere yet" in ended.err) == (2, True)


def test_damaged_nights_are_told_and_the_rest_is_shown(place: Path, tmp_path: Path) -> None:
    """On standard error, by their file."""
    shutil.copytree(place / "history", tmp_path / "history")
    first = min((tmp_path / "history" / "nights").iterdir())
    first.write_bytes(b"PAR1")
    ended = command("history", "list", cwd=tmp_path)
    assert ended.code == 0
    assert f"{first.name} cannot be read: " in ended.err
    assert ended.err.endswith("; skipped\n")
    assert "2026-11-02" in ended.out
