"""What a person sees while a run goes on, from a stream of events and from a real run at a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from harness.cli import app, progress
from harness.cli.progress import ConsoleWatcher, LiveResults, ending
from harness.records import Record, record_schema, sample_schema, to_columns
from harness.store.manifest import CellEntry, TrialEntry
from tests.command import environment
from tests.fabricated import again, cell_entry, streamed, trial_entry
from tests.forked import program

CELL = CellEntry(
    id="003-llama-160m-llama-cpp-server-q4_k_m-a-variant-with-a-long-name",
    trials=[TrialEntry(load="production_workload")],
)
AT_WORK: dict[str, Any] = {
    "event": "progress",
    "trial": 0,
    "phase": "measure",
    "done": 34,
    "planned": 120,
    "ends_s": 60.0,
    "elapsed_s": 43.0,
    "failed": 3,
    "last_failure": "HTTP 503",
    "ttft_ms": 14.2,
    "tpot_ms": 0.812,
    "completed_rps": 1.9,
    "offered_rps": 2.0,
    "tokens_per_s": 57.4,
    "send_lag_ms": 0.41,
    "read_lag_ms": 0.12,
    "workers_lost": 0,
    "machine": {"rss_bytes": 110e6, "gpu_memory_bytes": 2.25e9, "gpu_memory_total_bytes": 150e9},
}
BARE = {"event": "progress", "trial": 0, "phase": "warmup", "done": 0, "planned": None, "ends_s": None, "failed": 0}
SCENARIO = """
engines: [{engine: simulated, options: {hold: {after_requests: 20, until: %s}}}]
workload: {prompt_tokens: 8, output_tokens: 4}
load: [{kind: sustained, rate: 20, requests: 30}]
"""
SEEN_ON_THE_WAY = (
    r"\d+ requests · \d+(\.\d)? of \d+(\.\d)? per s · p50 TTFT [\d.]+ ms, TPOT [\d.]+ ms",
    r"no errors · generator lag [\d.]+ ms",
    r"measure, \d+ s left",
    r"0 of 1 trials · 0:\d\d left",
)


def shown(*events: dict[str, Any], terminal: bool) -> str:
    """What stands on standard error after these events."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80, height=24, color_system=None)
    with ConsoleWatcher(console) as watcher:
        watcher.cell_begins(CELL, 3, 24)
        for event in ({"event": "trial_begun", "trial": 0}, *events):
            watcher.event(CELL, event)
    return out.getvalue()


def test_what_is_said_holds_no_escape_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors may quote a server; their lines stay lines."""
    app.say("harness: the server said: \x1b]0;owned\x07\nfile.yaml:2:3: second")
    assert capsys.readouterr().err == "harness: the server said:  ]0;owned \nfile.yaml:2:3: second\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_escape_sequences_of_others_are_not_obeyed(terminal: bool) -> None:
    """What a server or an engine says reaches the terminal as text."""
    bad = "\x1b]0;owned\x07 \x9b31m"
    out = shown(
        AT_WORK | {"last_failure": bad},
        {"event": "failed", "reason": bad},
        {"event": "notice", "text": bad},
        terminal=terminal,
    )
    assert "owned" in out
    assert not re.search("\x1b\\]|\x9b|\x07", out)


def test_a_block_of_short_lines_fits_a_terminal() -> None:
    """The name gives way; what happens stands there whole: rate beside plan, latencies, errors, client, memory."""
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]", shown(AT_WORK, terminal=True))]
    assert max(map(len, lines)) <= 80
    assert any(re.fullmatch(r"\[3/24\] llama-.*… ?.*n_workload · measure, 17 s left", line) for line in lines), lines
    assert "  34/120 requests · 1.9 of 2.0 per s · p50 TTFT 14 ms, TPOT 0.81 ms · 57 tok/s" in lines
    assert "  generator lag 0.41 ms · engine 105 MiB · GPU 2.10 GiB of 140 GiB" in lines
    assert "  3 failed, last: HTTP 503" in lines


def test_without_a_terminal_plain_lines_say_the_same_when_the_phase_changes() -> None:
    """One line for each phase, with the time of day; what comes soon after it is left out; no control codes."""
    text = shown(BARE, AT_WORK, AT_WORK | {"done": 35}, terminal=False)
    lines = text.splitlines()
    assert [line.split(": ")[-1] for line in lines[:2]] == ["preparing", "warmup · 0 requests · no errors"]
    assert len(lines) == 3
    assert "measure, 17 s left · 34/120 requests · 1.9 of 2.0 per s · p50 TTFT 14 ms" in lines[2]
    assert all(re.match(r"\d\d:\d\d:\d\d \[3/24\] ", line) for line in lines)
    assert "\x1b" not in text


def test_the_time_left_follows_the_plan_or_the_pace() -> None:
    """By the end of the window where there is one, else by the requests so far, else nothing is said."""
    assert progress.time_left_s(AT_WORK, 99.0) == 17.0
    assert progress.time_left_s(AT_WORK | {"elapsed_s": None}, 50.0) == 10.0
    assert progress.time_left_s(AT_WORK | {"ends_s": None, "done": 40}, 0.0) == pytest.approx(86.0)
    assert progress.time_left_s(BARE, 5.0) is None
    assert progress.how_far(AT_WORK | {"elapsed_s": 0.0, "ends_s": 3700.0}, 0.0) == "measure, 61 min 40 s left"


def test_lost_workers_are_shown() -> None:
    """The display says it while the trial goes on."""
    assert "workers lost: 2" in progress.what_went_wrong(AT_WORK | {"workers_lost": 2})


def test_a_trial_whose_process_was_killed_is_a_line() -> None:
    """It stays on the screen, with the load and the reason, and counts as ended."""
    lost = {"event": "trial_lost", "trial": 0, "reason": "2.0 s after the trial began: killed by SIGKILL"}
    *_, line = shown(lost, terminal=False).splitlines()
    assert line.endswith("production_workload: failed, 2.0 s after the trial began: killed by SIGKILL")


def plain(text: str) -> str:
    """Without the terminal's control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def run_at_a_terminal(folder: Path, *options: str, wanted: Sequence[str] = ()) -> tuple[int, str]:
    """(exit code, what the terminal got on standard error) of a short run, which does not end before all that is wanted
    has been seen.
    """
    go_on = folder / "go-on"
    (folder / "s.yaml").write_text(SCENARIO % go_on, encoding="utf-8")
    ours, theirs = pty.openpty()
    script, variables = program()
    command = ["sh", "-c", script, "harness", "run", "s.yaml", "--out", "run", "--format", "csv", *options]
    env = environment({"COLUMNS": "80", "LINES": "24", "TERM": "xterm", **variables})
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    got = b""
    while True:
        if all(re.search(pattern, plain(got.decode(errors="replace"))) for pattern in wanted):
            go_on.touch()
        try:
            some = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not some:
            break
        got += some
    os.close(ours)
    return process.wait(), got.decode()


def left_on_screen(text: str) -> list[str]:
    """The lines that a terminal shows in the end: it knows moving up and erasing a line, which is all that is used."""
    screen, row = [""], 0
    for code, move, words in re.findall(r"\x1b\[(\d*)([A-Za-z])|\x1b\[\?\d+[hl]|(\r\n|\n|\r|[^\x1b\r\n]+)", text):
        if move == "A":
            row -= int(code or 1)
        elif move == "K":
            screen[row] = ""
        elif words in ("\n", "\r\n"):
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif words and words != "\r":
            screen[row] += words
    return [line for line in screen if line.strip()]


@pytest.mark.slow
def test_a_real_run_at_a_terminal_shows_and_clears_its_block(tmp_path: Path) -> None:
    """Rates and latencies are seen while it goes on; nothing of the block is left behind; `--quiet` shows nothing."""
    code, text = run_at_a_terminal(tmp_path, wanted=SEEN_ON_THE_WAY)
    assert code in (0, 4)  # a busy machine makes the generator lag, which is another test's matter
    for pattern in SEEN_ON_THE_WAY:
        assert re.search(pattern, plain(text))
    table = plain(text)[plain(text).rindex("TTFT ms") :]
    assert re.search(r"sustained +20\.0 +[\d.]+", table), table
    left = left_on_screen(text)
    assert not [line for line in left if "generator lag" in line or "preparing" in line or "TTFT" in line], left
    (tmp_path / "again").mkdir()
    assert run_at_a_terminal(tmp_path / "again", "--quiet")[1] == ""


def test_requests_that_were_never_sent_are_not_counted_as_sent() -> None:
    """A trial that was interrupted says what it got to; one that was not, how many requests it had."""
    broken = {"status": "interrupted", "reason": None, "client": {"recorded": 220, "not_sent": 160}}
    assert ending(broken) == "interrupted, 60 of 220 requests were sent"
    whole = {"status": "complete", "reason": None, "client": {"recorded": 220, "not_sent": 0}}
    assert ending(whole) == "complete, 220 requests"
    client = {"recorded": 130, "not_sent": 0, "cooldown": 30}
    assert ending({"status": "complete", "reason": None, "client": client}) == (
        "complete, 130 requests (30 in the cooldown)"
    )


def write_trial(folder: Path, trial: TrialEntry, records: list[Record]) -> None:
    """Store what a trial leaves in the folder of a run."""
    (folder / trial.path).mkdir(parents=True)
    pq.write_table(pa.table(to_columns(records), schema=record_schema()), folder / trial.path / "records.parquet")
    nothing = pa.table({name: [] for name in sample_schema().names}, schema=sample_schema())
    pq.write_table(nothing, (folder / trial.path).parent / "samples.parquet")


def test_without_a_terminal_an_ended_load_is_a_line_with_its_numbers(tmp_path: Path) -> None:
    """They are those of the report, derived from the records; a load without records has none."""
    trial = again(trial_entry(), client={"recorded": 100, "not_sent": 0})
    cell = again(cell_entry(), trials=[trial])
    write_trial(tmp_path, trial, [streamed(i, i * 100.0, ttft_ms=80.0 + i % 7) for i in range(100)])
    found = LiveResults(tmp_path)
    numbers = found.add(cell, trial)
    assert next(text for text in numbers if text.startswith("TTFT")).startswith("TTFT p50 83.0 p95 ")
    assert found.add(cell, again(trial, client={"recorded": 0})) == []
    assert len(found.table(100, 10)) == 5
    assert LiveResults(None).add(cell, trial) == []


def test_the_line_of_a_trial_has_the_numbers_of_all_its_requests_and_of_no_other_trial(tmp_path: Path) -> None:
    """Not those of its last class, nor of the repetitions before; the table pools them."""
    found, lines = LiveResults(tmp_path), []
    for repetition, ttft_ms in ((1, 80.0), (2, 480.0)):
        trial = again(trial_entry(path=f"cells/{repetition}/trial"), client={"recorded": 100, "not_sent": 0})
        cell = again(cell_entry(id=f"{repetition}", repetition=repetition), trials=[trial])
        classes = {"class_name": "chat"}, {"class_name": "batch"}
        records = [streamed(i, i * 100.0, ttft_ms=ttft_ms + i % 7 + 9 * (i % 2), **classes[i % 2]) for i in range(100)]
        write_trial(tmp_path, trial, records)
        lines.append(next(text for text in found.add(cell, trial) if text.startswith("TTFT")))
    assert [line.split()[2] for line in lines] == ["86.0", "486"]
    assert len(found.table(100, 10)) == 7


def test_the_live_table_has_the_columns_that_the_scenario_chooses(tmp_path: Path) -> None:
    """Those of the report, and no others; records that cannot be read leave a word and end nothing."""
    trial = again(trial_entry(), client={"recorded": 100, "not_sent": 0})
    cell = again(cell_entry(), trials=[trial])
    write_trial(tmp_path, trial, [streamed(i, i * 100.0, ttft_ms=80.0 + i % 7) for i in range(100)])
    found = LiveResults(tmp_path, ["ttft_ms p99"])
    (number,) = [text for text in found.add(cell, trial) if "TTFT" in text]
    assert number.startswith("TTFT p99 86")
    (tmp_path / trial.path / "records.parquet").write_bytes(b"PAR1 broken")
    assert found.add(cell, trial) == ["its numbers come at the end (FileUnreadable)"]
