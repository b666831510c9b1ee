"""The table of requests: what was sent, and means that have no interval."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from harness.cli.commands.report import report_data
from harness.records import Loop, Record
from harness.results import derive
from reports.data import ReportData
from reports.tables.base import NO_INTERVAL, groups
from reports.tables.results import NEVER_SENT, headline, requests, statistics
from tests.fabricated import FabricatedTrial, again, cell_entry, failed, noisy, streamed, trial_entry
from tests.reports.conftest import manifest


def data_of(records: list[Record], **changes: Any) -> ReportData:
    """A run of one trial with these records."""
    trial = FabricatedTrial(cell_entry(), trial_entry(**changes), records)
    return report_data(derive(manifest([again(trial.cell, trials=[trial.trial])]), [trial]))


def test_a_mean_without_an_interval_says_why() -> None:
    """Three replies are three batches at most; the tables say it once."""
    data = data_of([streamed(i, i * 1000) for i in range(3)])
    (row,) = requests(data).rows
    latency = row[requests(data).head.index("mean latency, ms")]
    assert (latency.text, latency.detail, latency.note) == ("190", "", 1)
    assert requests(data).notes == [NO_INTERVAL]
    first = streamed(60, 0, phase="warmup")
    varied = [streamed(i, 1000 + i * 1000, ttft_ms=100 + 7 * (i % 5)) for i in range(60)]
    several = data_of([first, *varied], start_s=1.0, end_s=61.0)
    assert NO_INTERVAL not in requests(several).notes


def test_a_rate_without_an_interval_has_no_end_of_one() -> None:
    """Thirty requests of one user hang together: few independent parts, and neither end is known."""
    data = data_of(noisy(3, 30), loop="closed", kind="single_user", end_s=None)
    rate = data.summary[data.summary["metric"] == "output_tokens_per_s"].iloc[0]
    assert rate["value"] > 0
    assert math.isnan(rate["low"])
    assert math.isnan(rate["high"])
    assert requests(data).rows[0][-1].note == 1
    table = headline(data)
    assert table.rows[0][table.head.index("output tok/s")].text.endswith("~")


def test_the_head_says_from_when_latencies_count() -> None:
    """By the plan, or from sent for a user who waits; of conversations, which have both, a note says it."""
    planned = noisy(3, 30)
    following = [replace(record, loop=Loop.CLOSED) for record in planned]
    for records, head in ((planned, "TTFT p50, ms (from due)"), (following, "TTFT p50, ms (from sent)")):
        assert head in headline(data_of(records, end_s=None)).head
    both = headline(data_of(noisy(3, 10) + following[10:], end_s=None))
    assert "TTFT p50, ms" in both.head
    assert "TTFT, E2E count from due (first turns), from sent (later turns)" in both.foot


def test_requests_that_were_never_sent_are_not_counted() -> None:
    """Of 30 planned requests 20 were sent: 20 were measured, and a note says that there were others."""
    records = [*noisy(3, 20), *(failed(i, i * 100, "not_sent", 0, sent_ns=None) for i in range(20, 30))]
    data = data_of(records, limits=["error_rate <= 1"])
    (row,) = requests(data).rows
    assert [row[3].text, row[4].text] == ["20", "20"]
    assert NEVER_SENT in requests(data).notes


def test_a_caveat_marks_the_number_in_every_table(sweep: ReportData) -> None:
    """What is not reliable stands in brackets, what may be off has a star: no table shows it bare."""
    rows = requests(sweep).rows
    assert [row[-1].text.startswith("(") for row in rows] == [True, False, False, False]
    assert [row[-2].text.endswith("*") for row in rows] == [False, False, True, True]
    found = [{row[0].about: row[1] for row in statistics(sweep, keys)[0].rows} for keys in groups(sweep)]
    poor, _, doubted, _ = found
    assert (poor["tpot_ms"].text[0], poor["tpot_ms"].tone) == ("(", "bad")
    assert (doubted["ttft_ms"].text[-1], doubted["ttft_ms"].tone) == ("*", "doubtful")
    assert not {poor["ttft_ms"].tone, doubted["tpot_ms"].tone, poor["load_s"].tone} - {""}
