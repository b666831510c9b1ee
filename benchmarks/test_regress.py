"""`harness regress` on a large history: 500 series of 365 nights in a minute of processor time and 1 GB."""

from __future__ import annotations

import resource
import time
from datetime import timedelta

from harness.history.board import make_board
from harness.history.detector.nights import Every
from harness.history.tables import board_tables
from tests.histories import Noise, night, series

SERIES, NIGHTS = 500, 365


def test_a_year_of_five_hundred_series() -> None:
    """Every fifth one has a step in its last month."""
    found = []
    for number in range(SERIES):
        noise = Noise(NIGHTS, spread=0.01, seed=number)
        if number % 5 == 0:
            noise.step(NIGHTS - 20, 0.08)
        found.append(series(noise.values, load=f"load{number}"))
    begin = time.process_time()
    board = make_board(found, night(NIGHTS - 1) + timedelta(hours=12), Every())
    board_tables(board)
    took_s, peak_mb = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{SERIES} series of {NIGHTS} nights: {took_s:.1f} s of processor time, peak of {peak_mb:.0f} MB")
    assert took_s < 60
    assert peak_mb < 1000
    assert max(len(alert.series) for alert in board.alerts) >= SERIES / 5
