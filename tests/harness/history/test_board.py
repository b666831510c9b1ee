"""States of series and alerts of a board: simulated nights, in which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from harness.history.board import Alert, Board, Told, identity, make_board, parse_told
from harness.history.detector.nights import Every
from harness.history.detector.states import State
from harness.history.series import Point, Series
from harness.history.tables import board_tables
from harness.scenario.margins import parse_margin
from tests.histories import WEEKDAYS, Noise, event, night, series, upto

DAILY = Every()


def board(of: Sequence[Series], last: int, told: Sequence[Told] = (), **given: Any) -> Board:
    """The board half a day after a night, with what was known then."""
    return make_board([upto(one, last) for one in of], night(last) + timedelta(hours=12), DAILY, told, **given)


def replayed(of: Sequence[Series], nights: int, **given: Any) -> list[tuple[int, Alert]]:
    """Every alert with the night on which it is told, of a board made each night."""
    told: list[Told] = []
    found = []
    for last in range(nights):
        made = board(of, last, told, **given)
        found += [(last, alert) for alert in made.new]
        told += [alert.as_told(made.made) for alert in made.new]
    return found


def states(made: Board) -> list[str]:
    """States of the series by their metric."""
    return [
        f"{one.series.key.metric} {one.state}" for one in sorted(made.series, key=lambda one: one.series.key.metric)
    ]


def test_a_step_is_told_once_with_size_place_and_suspects() -> None:
    """On the third night at the new level; afterwards the series stays regressed and nothing is told again."""
    slower = series(Noise(80).step(60, 0.06).values)
    ((last, alert),) = replayed([slower], 80)
    assert last in (62, 63)
    assert (alert.state, alert.shape, alert.since) == (State.REGRESSED, "step", night(60))
    assert alert.change is not None
    low, high = alert.change.interval(0.025)
    assert low < 1.06 < high
    assert alert.suspects == (("commit", "c59", "c60"),)
    assert alert.confirmed is None
    assert alert.fails
    assert states(board([slower], 79)) == ["ttft_ms regressed"]


def test_better_is_told_too_and_fails_nothing() -> None:
    """More tokens a second are better, fewer milliseconds as well."""
    faster = series(Noise(80).step(60, 0.06).values, metric="output_tokens_per_s", statistic="value", better="higher")
    ((_, alert),) = replayed([faster], 80)
    assert (alert.state, alert.fails) == (State.IMPROVED, False)


def test_a_change_becomes_the_usual_level_after_a_month() -> None:
    """Permanent red hides the next failure."""
    slower = series(Noise(110).step(60, 0.06).values)
    assert states(board([slower], 85)) == ["ttft_ms regressed"]
    assert states(board([slower], 95)) == ["ttft_ms ok"]


def test_series_that_change_together_are_one_alert() -> None:
    """Up to two nights apart, better and worse: one cause. The worse one leads."""
    first = series(Noise(80, seed=1).step(60, 0.06).values)
    second = series(Noise(80, seed=2).step(61, 0.12).values, metric="e2e_ms")
    third = series(Noise(80, seed=3).step(60, -0.3).values, metric="tpot_ms")
    ((_, alert),) = replayed([first, second, third], 80)[-1:]
    assert len(replayed([first, second, third], 80)) <= 2  # tpot_ms alone may be noticed a night before
    made = board([first, second, third], 79)
    (only,) = made.alerts
    assert len(only.series) == 3
    assert only.state is alert.state is State.REGRESSED
    assert states(made) == ["e2e_ms regressed", "tpot_ms improved", "ttft_ms regressed"]


def test_a_weekend_without_nights_lies_between_two_nights() -> None:
    """A change on Friday and one on Monday are one cause; a place that moves from one to the other is told once."""

    def weekday(number: int) -> datetime:
        weeks, day = divmod(number + 4, 5)  # the night 60 is one of Friday
        return night(1 + 7 * weeks + day)

    def on_weekdays(one: Series) -> Series:
        return replace(one, points=tuple(replace(p, at=weekday(n)) for n, p in enumerate(one.points)))

    first = on_weekdays(series(Noise(80, seed=1).step(60, 0.12).values))
    second = on_weekdays(series(Noise(80, seed=2).step(61, 0.12).values, metric="e2e_ms"))
    now = weekday(79) + timedelta(hours=12)
    assert [len(alert.series) for alert in make_board([first, second], now, WEEKDAYS).alerts] == [2]
    (alert,) = make_board([first], now, WEEKDAYS).alerts
    assert alert.since == weekday(60)
    told = replace(alert.as_told(now), since=weekday(61))
    assert make_board([first], now, WEEKDAYS, [told]).new == []


def test_a_regression_is_told_after_an_improvement_of_the_same_night() -> None:
    """Good news must not hide bad news."""
    better = series(Noise(80, seed=3).step(60, -0.3).values, metric="tpot_ms")
    worse = series(Noise(80, spread=0.02, seed=4).step(60, 0.05).values)
    found = [alert.state for _, alert in replayed([better, worse], 80)]
    assert found in ([State.IMPROVED, State.REGRESSED], [State.REGRESSED])


def test_a_control_that_moves_too_makes_it_the_machine() -> None:
    """All series of that machine, in one alert that fails nothing; another machine is another cause."""
    ours = series(Noise(80, seed=1).step(60, 0.06).values)
    control = series(Noise(80, seed=2).step(60, 0.05).values, variant="pinned", control=True)
    elsewhere = series(Noise(80, seed=3).step(60, 0.06).values, machine="m2")
    made = board([ours, control, elsewhere], 70)
    assert sorted((one.series.key.machine, one.state.value) for one in made.series) == [
        ("m1", "machine changed"),
        ("m1", "machine changed"),
        ("m2", "regressed"),
    ]
    assert sorted((alert.state.value, len(alert.series), alert.fails) for alert in made.alerts) == [
        ("machine changed", 2, False),
        ("regressed", 1, True),
    ]


def test_a_control_that_stays_makes_it_the_product() -> None:
    """Though the control is as noisy as the rest."""
    ours = series(Noise(80, seed=1).step(60, 0.06).values)
    control = series(Noise(80, seed=2).values, variant="pinned", control=True)
    assert [one.state for one in board([ours, control], 70).series] == [State.REGRESSED, State.OK]


def test_tails_are_judged_and_not_told() -> None:
    """Unless a margin names them."""
    tail = series(Noise(80).step(60, 0.2).values, statistic="p99")
    made = board([tail], 70)
    assert [one.state for one in made.series] == [State.REGRESSED]
    assert made.alerts == ()
    (alert,) = board([tail], 70, margins=[parse_margin("ttft p99 +10%")]).alerts
    assert alert.fails


def test_margins_name_the_numbers_that_fail() -> None:
    """Beyond their size; all others are told and fail nothing."""
    slower = series(Noise(80).step(60, 0.06).values)
    for margin, fails in (("ttft p95 +3%", True), ("ttft p95 +10%", False), ("tpot p50 +3%", False)):
        (alert,) = board([slower], 70, margins=[parse_margin(margin)]).alerts
        assert alert.fails is fails, margin


def test_a_large_jump_asks_for_another_run_of_the_night() -> None:
    """Beyond five standard deviations and 5 %. It is told as soon as a second run agrees, and not if it does not."""
    values = Noise(60).step(59, 0.15).values
    once = series(values)
    (judged,) = board([once], 59).series
    assert (judged.state, judged.wants_run) == (State.OK, True)
    assert board([once], 59).alerts == ()
    for again, told in ((values[-1] * 1.01, 1), (values[0], 0)):
        more = Point(night(59) + timedelta(hours=1), float(again))
        twice = replace(once, points=(*once.points, more))
        made = make_board([twice], night(59) + timedelta(hours=12), DAILY)
        assert len(made.alerts) == told
        assert all(alert.shape == "jump" and alert.fails for alert in made.alerts)


def test_a_jump_that_stays_is_told_once() -> None:
    """The step that it turns out to be is the same alert."""
    values = Noise(70).step(60, 0.15).values
    one = series(values)
    points = list(one.points)
    points.insert(61, Point(night(60) + timedelta(hours=1), float(values[60]) * 0.99))
    found = replayed([replace(one, points=tuple(points))], 70)
    assert [(last, alert.shape) for last, alert in found] == [(60, "jump")]


def test_a_single_slow_night_is_no_alert() -> None:
    """Eight standard deviations, once: it asks for another run and nothing else."""
    values = Noise(80).values
    values[60] *= 1.09
    assert replayed([series(values)], 80) == []


def test_missing_nights_are_told_once_and_only_for_those_that_are_missing() -> None:
    """From the grace after the night was due; a gap that ended before anybody looked is told, too."""
    gone = series(Noise(60, seed=2).missing(40, 47).values)
    there = series(Noise(60, seed=1).values, metric="tpot_ms")
    ((last, alert),) = replayed([gone, there], 60)
    assert (last, alert.state, alert.since) == (40, State.NO_DATA, night(40))
    assert alert.series == (identity(gone.key),)
    assert states(board([gone, there], 45)) == ["tpot_ms ok", "ttft_ms no data"]
    assert states(board([gone, there], 50)) == ["tpot_ms ok", "ttft_ms ok"]
    (late,) = board([gone, there], 49).new
    assert (late.state, late.since) == (State.NO_DATA, night(40))


def test_without_a_schedule_no_night_is_missing() -> None:
    """Nobody promised one."""
    (judged,) = make_board([series(Noise(30).values)], night(90)).series
    assert judged.state is State.OK


def test_nights_with_poor_data_are_no_data() -> None:
    """They are neither judged nor taken for a measurement; the reason is told."""
    one = series(Noise(50).step(44, 0.5).values)
    poor = replace(one, points=(*one.points[:44], *(replace(point, doubt="client lag") for point in one.points[44:])))
    (judged,) = board([poor], 49).series
    assert judged.state is State.NO_DATA
    assert "client lag" in judged.why


@pytest.mark.parametrize(
    ("kind", "state"), [("machine", State.MACHINE), ("plan", State.METHOD), ("method", State.METHOD)]
)
def test_after_a_reset_earlier_nights_are_no_measure(kind: str, state: State) -> None:
    """The change of level there is told as the event that it is, once, for all series of the machine."""
    given = {"events": (event(60, kind, "driver 550 → 560"),), "resets": (60,)}
    both = [
        series(Noise(90, seed=seed).step(60, 0.2).values, metric=metric, **given)
        for seed, metric in enumerate(("ttft_ms", "tpot_ms"))
    ]
    ((last, alert),) = replayed(both, 90)
    assert (last, alert.state, len(alert.series), alert.cause) == (60, state, 2, "driver 550 → 560")
    assert not alert.fails
    assert states(board(both, 65)) == [f"tpot_ms {state}", f"ttft_ms {state}"]
    assert states(board(both, 75)) == ["tpot_ms ok", "ttft_ms ok"]


def test_a_note_acknowledges_a_step() -> None:
    """It is not told, and the series is ok."""
    known = series(Noise(80).step(60, 0.06).values, events=(event(61, "note", "bigger default batch"),))
    assert replayed([known], 80) in ([], [*replayed([known], 80)][:1])
    made = board([known], 79)
    assert made.alerts == ()
    assert states(made) == ["ttft_ms ok"]
    assert made.series[0].why == "known: bigger default batch"


def test_a_noisy_week_is_one_alert_of_its_own() -> None:
    """And no change of the level."""
    noisy = series(Noise(90, seed=3).noisy(60, 67, 5).values)
    ((last, alert),) = replayed([noisy], 90)
    assert 62 <= last <= 67
    assert (alert.state, alert.fails) == (State.NOISY, False)
    assert states(board([noisy], 67)) == ["ttft_ms noisy"]
    assert states(board([noisy], 80)) == ["ttft_ms ok"]


def test_a_creeping_loss_is_told_once_when_it_matters() -> None:
    """Half a per cent a week reaches the least change that matters, 2 %, after four weeks."""
    creeping = series(Noise(110, seed=4).creep(30, 110, 0.005).values)
    ((last, alert),) = replayed([creeping], 110)
    assert 30 + 21 <= last <= 30 + 42
    assert (alert.state, alert.shape) == (State.REGRESSED, "creep")
    assert "little by little" in alert.title


def test_a_creeping_loss_counts_from_the_last_release() -> None:
    """A loss that is part of a release is accepted with it."""
    values = Noise(110, seed=4).creep(30, 110, 0.005).values
    released = series(values, events=(event(70, "release", "v2"),))
    before, after = (next(last for last, _ in replayed([one], 110)) for one in (series(values), released))
    assert before < 75
    creep = next(alert for last, alert in replayed([released], 110) if alert.since >= night(60))
    assert creep.since == night(70)
    assert after <= before


def test_a_noisy_series_is_told_only_when_it_is_confirmed() -> None:
    """Nights that follow each other wander: that is no change. A change of five standard deviations is."""
    rng = np.random.default_rng(8)
    logs = rng.normal(0, 0.01, 120)
    for n in range(1, 120):
        logs[n] += 0.8 * logs[n - 1]
    logs[100:] += 0.03
    wandering = series(100 * np.exp(logs))
    made = board([wandering], 110)
    assert states(made) == ["ttft_ms noisy"]
    assert made.alerts == ()
    logs[100:] += 0.2
    assert states(board([series(100 * np.exp(logs))], 110)) == ["ttft_ms regressed"]


def test_a_small_change_of_a_noisy_series_is_told_once_it_is_confirmed() -> None:
    """Without an answer, or with a "no", it is kept."""
    rng = np.random.default_rng(8)
    logs = rng.normal(0, 0.01, 120)
    for n in range(1, 120):
        logs[n] += 0.7 * logs[n - 1]
    logs[100:] += 0.04
    wandering = series(100 * np.exp(logs))
    for answer, state in ((True, "regressed"), (False, "noisy"), (None, "noisy")):
        made = board([wandering], 119, confirm=lambda alert, answer=answer: answer)
        assert states(made) == [f"ttft_ms {state}"]
        assert len(made.new) == (answer is True)
    told = [alert.as_told(made.made) for alert in board([wandering], 119, confirm=lambda alert: True).alerts]
    assert states(board([wandering], 119, told)) == ["ttft_ms regressed"]
    assert board([wandering], 119, told).new == []


@pytest.mark.parametrize(("answer", "state"), [(True, State.REGRESSED), (False, State.NOISY), (None, State.REGRESSED)])
def test_both_builds_measured_in_turns_decide(answer: bool | None, state: State) -> None:
    """A change that is not there in pairs is not told; without an answer it is told as unconfirmed."""
    slower = series(Noise(80).step(60, 0.06).values)
    made = board([slower], 65, confirm=lambda alert: answer)
    (alert,) = made.alerts
    assert alert.confirmed is answer
    assert made.new == ([] if answer is False else [alert])
    assert made.series[0].state is state


def test_shares_change_by_points() -> None:
    """A share of 99 % that falls to 97 % lost two points, not two per cent; zero is a value."""
    rng = np.random.default_rng(9)
    share = 0.99 + rng.normal(0, 0.002, 80)
    share[60:] -= 0.02
    made = board([series(share, metric="attainment", statistic="value", better="higher")], 70)
    (alert,) = made.alerts
    assert alert.change is not None
    assert alert.change.value == pytest.approx(-0.02, abs=0.003)
    assert "points" in alert.title
    none = np.zeros(80)
    assert states(board([series(none, metric="error_rate", statistic="value")], 70)) == ["error_rate ok"]


def test_what_was_told_is_read_back() -> None:
    """And a line that is damaged or of a later version is left out."""
    (alert,) = board([series(Noise(80).step(60, 0.06).values)], 70).alerts
    told = alert.as_told(night(70))
    assert parse_told(told.text) == told
    for text in (
        "",
        "{}",
        "[]",
        '{"state": "sunny"}',
        told.text[:-5],
        told.text.replace("step", "step").replace("20", "9x"),
    ):
        assert parse_told(text) is None


def test_a_board_as_plain_data_is_json_without_nan() -> None:
    """Unknown numbers are null, and every series of an alert is there."""
    import json

    slower = series(Noise(80).step(60, 0.06).values)
    made = board([slower, series([], metric="tpot_ms"), series([1.0], metric="e2e_ms")], 70)
    data = json.loads(json.dumps(board_tables(made), allow_nan=False))
    assert {name for alert in data["alerts"] for name in alert["series"]} <= {one["id"] for one in data["series"]}
    assert data["alerts"][0]["change"] == pytest.approx(1.06, abs=0.02)
    assert data["alerts"][0]["suspects"] == ["c59", "c60"]


def test_an_improvement_beside_a_regression_does_not_move_it() -> None:
    """They are one alert, whose night, title and first suspects are those of the regression."""
    slower = series(Noise(80).step(70, 0.2).values)
    smaller = series(Noise(80, seed=1).step(69, -0.05).values, metric="memory_peak_bytes", statistic="value")
    (alert,) = board([slower, smaller], 79).new
    assert alert.state is State.REGRESSED
    assert len(alert.series) == 2
    assert (alert.since, alert.lead) == (night(70), identity(slower.key))
    assert alert.title.startswith("chat ttft_ms p95: regressed +")
    assert alert.title.endswith("; 1 changed otherwise")


def test_a_number_that_gates_fails_when_it_is_certain() -> None:
    """Though another number of the same cause was told before, and failed nothing."""
    sooner = series(Noise(90).step(60, 0.15).values, statistic="p50")
    later = series(Noise(90, seed=1).step(62, 0.15).values)
    found = replayed([sooner, later], 90, margins=[parse_margin("ttft p95 +10%")])
    assert [alert.fails for _, alert in found] == [False, True]
    assert found[1][1].since in (night(60), night(62))


def test_a_failure_that_was_told_makes_no_later_change_fail() -> None:
    """Each alert is judged by its own change."""
    twice = series(Noise(90, seed=5).step(50, 0.15).step(65, 0.04).values)
    found = replayed([twice], 90, margins=[parse_margin("ttft p95 +10%")])
    assert [alert.fails for _, alert in found] == [True, False]


def test_another_machine_that_changed_hides_no_regression() -> None:
    """Of the nights around it, told some nights later."""
    ours = series(Noise(90, seed=1).step(60, 0.06).values)
    control = series(Noise(90, seed=2).step(60, 0.06).values, variant="pinned", control=True)
    elsewhere = series(Noise(90, seed=3).step(62, 0.06).values, machine="m2")
    found = [(alert.state.value, alert.fails) for _, alert in replayed([ours, control, elsewhere], 90)]
    assert found == [("machine changed", False), ("regressed", True)]


def test_alerts_of_two_machines_have_names_of_their_own() -> None:
    """Though both changed in one night: a feed shows both."""
    given: dict[str, Any] = {"events": (event(60, "plan", "another plan"),), "resets": (60,)}
    both = [series(Noise(80, seed=seed).values, machine=f"m{seed}", **given) for seed in (1, 2)]
    made = board(both, 61)
    assert len({alert.identity for alert in made.alerts}) == len(made.alerts) == 2


def test_a_creeping_loss_after_a_note_is_told() -> None:
    """It counts from the note on; a note on the last night makes it known."""
    values = Noise(110, seed=4).creep(30, 110, 0.005).values
    cleaned = event(40, "note", "cleaned the fans")
    ((_, alert),) = replayed([series(values, events=(cleaned,))], 110)
    assert (alert.state, alert.shape) == (State.REGRESSED, "creep")
    assert alert.since >= night(38)
    known = series(values, events=(cleaned, event(108, "note", "a larger default batch")))
    assert states(board([known], 109)) == ["ttft_ms ok"]


def test_a_night_of_poor_data_may_have_the_change() -> None:
    """The suspects begin at the last night that was judged."""
    slower = series(Noise(80).step(60, 0.06).values)
    points = [replace(point, doubt="poor") if point.at == night(59) else point for point in slower.points]
    (alert,) = board([replace(slower, points=tuple(points))], 70).alerts
    assert alert.suspects == (("commit", "c58", "c60"),)


def test_a_disproved_change_hides_no_later_one() -> None:
    """The series is regressed, not noisy, as the last change was not disproved."""
    twice = series(Noise(90, seed=5).step(55, 0.06).step(70, 0.08).values)
    first = board([twice], 62, confirm=lambda alert: False)
    told = [alert.as_told(first.made) for alert in first.alerts]
    assert states(first) == ["ttft_ms noisy"]
    assert states(board([twice], 66, told)) == ["ttft_ms noisy"]
    assert states(board([twice], 76, told)) == ["ttft_ms regressed"]
