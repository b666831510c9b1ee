"""`harness regress` on a stored history: the command as a user runs it, night after night."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from harness.history.store.folder import Store
from tests import nights
from tests.forked import harness

pytestmark = pytest.mark.slow
DAYS, STEP = 60, 50


def add(folder: Path, first: int, last: int) -> None:
    """Store nights of a number that is 8 % worse from STEP on, and of one that stays; the last was three hours ago."""
    begin = datetime.now(UTC) - timedelta(days=DAYS - 1, hours=3)
    rng = np.random.default_rng(1)
    noise = np.exp(rng.normal(0, 0.01, (DAYS, 2)))
    kept = Store.made(folder)
    for day in range(first, last):
        slower, same = 100 * noise[day, 0] * (1.08 if day >= STEP else 1), 20 * noise[day, 1]
        rows = (nights.row(slower), nights.row(same, of=nights.what("tpot_ms")))
        kept.add(nights.night(day, *rows, at=begin + timedelta(days=day)))


def test_a_stored_history_is_judged_and_each_change_is_told_once(tmp_path: Path) -> None:
    """Exit code 5 on the night that it is certain, with both commits; 0 afterwards, also when more nights come."""
    add(tmp_path / "history", 0, STEP + 3)
    unset = harness("regress", "--webhook-env", "NOBODY_SET_IT", cwd=tmp_path)
    assert (unset.code, "the environment has no NOBODY_SET_IT" in unset.err) == (2, True)
    options = ("--html", "site", "--reports", "../runs/{run}/report.html", "--alerts", "told")
    first = harness("regress", *options, cwd=tmp_path)
    assert first.code == 5, first.err
    assert "REGRESSED  chat ttft_ms p50" in first.out
    assert "commit 0000000000..0000000000" in first.out
    assert (tmp_path / "site" / "index.html").exists()
    assert any("../runs/" in path.read_text() for path in (tmp_path / "site").rglob("*.html"))
    assert [one["state"] for one in json.loads((tmp_path / "told" / "alerts.json").read_text())["alerts"]] == [
        "regressed"
    ]
    add(tmp_path / "history", STEP + 3, DAYS)
    again = harness("regress", "--json", cwd=tmp_path)
    data = json.loads(again.out)
    assert again.code == data["exit_code"] == 0
    assert [(alert["state"], alert["told"]) for alert in data["alerts"]] == [("regressed", True)]
    assert sorted(one["state"] for one in data["series"]) == ["ok", "regressed"]


def test_without_a_history_the_command_says_how_to_make_one(tmp_path: Path) -> None:
    """Exit code 2."""
    ended = harness("regress", "--store", "nothing", cwd=tmp_path)
    assert (ended.code, "harness history add" in ended.err) == (2, True)
