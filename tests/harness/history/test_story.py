"""A hundred nights of a history whose truth is known: everything that happens is told once, on its night."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from harness.history.board import Alert, Told, make_board
from harness.history.detector.nights import Every
from harness.history.series import Series
from tests.histories import Noise, event, night, series, upto

NIGHTS = 100
NOISY, SLOWER, MISSING, FASTER, AGAIN, DRIVER = (30, 37), 45, (52, 59), 66, 76, 88


def history(seed: int) -> list[Series]:
    """TTFT with three shifts, TPOT that creeps by 0.5 % a week, a noisy server, and a control; one machine."""
    shifts = Noise(NIGHTS, seed=seed).step(SLOWER, 0.08).step(FASTER, -0.07).step(AGAIN, 0.06)
    creeping = Noise(NIGHTS, level=20, seed=seed + 1000).creep(14, DRIVER, 0.005)
    noisy = Noise(NIGHTS, level=300, seed=seed + 2000).noisy(*NOISY, 5)
    control = Noise(NIGHTS, level=50, seed=seed + 3000)
    events = (event(DRIVER, "machine", "driver 550.54 → 560.12"),)
    facts = {"events": events, "resets": (DRIVER - MISSING[1] + MISSING[0],)}
    for one in (shifts, creeping, noisy, control):
        one.step(DRIVER, -0.03).missing(*MISSING)
    return [
        series(shifts.values, **facts),
        series(creeping.values, metric="tpot_ms", statistic="p50", **facts),
        series(noisy.values, metric="e2e_ms", statistic="p50", **facts),
        series(control.values, variant="pinned", control=True, **facts),
    ]


def told_each_night(of: Sequence[Series]) -> list[tuple[int, Alert]]:
    """Each alert with the night on which it was told."""
    told: list[Told] = []
    found = []
    for last in range(NIGHTS):
        made = make_board([upto(one, last) for one in of], night(last) + timedelta(hours=14), Every(), told)
        found += [(last, alert) for alert in made.new]
        told += [alert.as_told(made.made) for alert in made.new]
    return found


EXPECTED = {
    "noisy": (NOISY[0], range(31, 38)),
    "regressed step": (SLOWER, range(46, 49)),
    "regressed creep": (0, range(36, 60)),
    "no data": (MISSING[0], range(52, 53)),
    "improved step": (FASTER, range(67, 70)),
    "regressed step again": (AGAIN, range(77, 81)),
    "machine changed": (DRIVER, range(88, 89)),
}


def named(alert: Alert, before: Sequence[str]) -> str:
    """Name of an alert in EXPECTED."""
    name = f"{alert.state} {alert.shape}".strip()
    return f"{name} again" if name in before else name


def found_in(seed: int) -> dict[str, tuple[int, Alert]]:
    """Alerts of a history by their name."""
    found: dict[str, tuple[int, Alert]] = {}
    for last, alert in told_each_night(history(seed)):
        found[named(alert, [*found])] = (last, alert)
    return found


def test_a_hundred_nights() -> None:
    """Three shifts, a driver change, a noisy week, a missing week and a creeping loss: seven alerts."""
    found = found_in(1)
    assert {*found} == {*EXPECTED}
    for name, (last, alert) in found.items():
        begin, nights = EXPECTED[name]
        assert last in nights, name
        assert abs((alert.since - night(begin)).days) <= 1, name
    assert found["regressed step"][1].suspects == (("commit", "c44", "c45"),)
    fails = {name for name, (_, alert) in found.items() if alert.fails}
    assert fails == {"regressed creep", "regressed step", "regressed step again"}
    assert len(found["machine changed"][1].series) == len(found["no data"][1].series) == 4


@pytest.mark.slow
def test_other_hundred_nights() -> None:
    """With other noise everything is still told; in most histories nothing else is."""
    more = 0
    for seed in range(2, 7):
        found = found_in(seed)
        assert {"regressed step", "no data", "improved step", "machine changed"} <= {*found}, seed
        more += len(found) > len(EXPECTED)
    assert more <= 2
