"""The shipped detector and policy on the bank of noise models: few false alarms, and steps are found (D.2, test 18)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from harness.history.bank import BEFORE, MODELS, alarms_of, false_alarms, normal, own_residuals, resampled, steps_found
from harness.history.detector.states import State
from harness.history.series import Series
from harness.history.store import folder as stored
from tests.harness.cli.test_regress import Store
from tests.histories import Noise, series

SPREAD = 0.01


@pytest.mark.parametrize("model", MODELS)
def test_noise_is_hardly_ever_told(model: str) -> None:
    """Known answer 18: at most one alert in three series-years, or three where nights are not normal."""
    found = false_alarms(MODELS[model], 8, 140, SPREAD, seed=7)
    assert found.years == pytest.approx(3.1, abs=0.1)
    assert found.alerts <= (1 if model == "normal" else 3)
    assert found.rate <= found.most


def test_a_step_of_three_standard_deviations_is_told_within_five_nights() -> None:
    """Known answer 18: in 95 % of the series, and nine of ten are placed right to a night."""
    found = steps_found(normal, 0.03, 120, SPREAD, seed=3)
    assert found.within(5) >= 0.91  # 95 % less three standard errors
    assert found.placed >= 0.85
    assert found.delay <= 3


def test_a_single_night_of_eight_standard_deviations_is_no_alert() -> None:
    """Known answer 18: of a change of the level; nor are two of them, weeks apart."""

    def spike(rng: np.random.Generator) -> np.ndarray:
        logs = SPREAD * normal(rng, BEFORE + 25)
        logs[[BEFORE + 2, BEFORE + 20]] += 8 * SPREAD
        return logs

    alerts = [alert for one in alarms_of(spike, 12, seed=1) for _, alert in one]
    assert [alert for alert in alerts if alert.shape] == []


def test_a_creeping_loss_is_told_once() -> None:
    """However long it goes on: 0.5 % a week for 80 nights, as a drift or as one step."""

    def creeping(rng: np.random.Generator) -> np.ndarray:
        return SPREAD * normal(rng, BEFORE + 80) + 0.005 / 7 * np.maximum(np.arange(BEFORE + 80) - BEFORE, 0)

    alerts = alarms_of(creeping, 10, seed=4)
    assert [len(one) for one in alerts] == [1] * 10
    assert sum(one[0][1].shape == "creep" for one in alerts) >= 7


def test_a_spread_that_stays_wide_is_noise() -> None:
    """Most such series are never told of another level, and three of four become noisy."""

    def wider(rng: np.random.Generator) -> np.ndarray:
        logs = SPREAD * normal(rng, BEFORE + 40)
        logs[BEFORE:] *= 3
        return logs

    alerts = [[alert for _, alert in one] for one in alarms_of(wider, 16, seed=6)]
    assert sum(any(alert.shape for alert in one) for one in alerts) <= 9
    assert sum(any(alert.state is State.NOISY for alert in one) for one in alerts) >= 8


def test_the_noise_of_a_real_series_is_drawn_again_without_its_steps() -> None:
    """In blocks of a week that keep the order of nights."""
    one = series(Noise(120, spread=0.02, seed=1).step(60, 0.2).values)
    known = own_residuals(one)
    assert known is not None
    parts, _ = known
    assert np.std(np.concatenate(parts)) == pytest.approx(0.02, rel=0.2)
    drawn = resampled(parts)(np.random.default_rng(1), 50)
    assert len(drawn) == 50
    assert {*np.round(drawn, 12)} <= {*np.round(np.concatenate(parts), 12)}
    assert own_residuals(series(Noise(20).values)) is None
    assert own_residuals(Series(one.key, "lower", ())) is None


def test_the_selftest_prints_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the false alarms on the user's own history."""
    store = Store([series(Noise(60).values), series(Noise(10).values, metric="tpot_ms")])
    monkeypatch.setattr(stored.Store, "open", lambda folder: store)
    arguments = ["selftest", "regress", "--series", "1", "--nights", "10", "--store", "history", "-q"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    assert "harness regress" in shown.stdout
    assert "Your history: 0.00" in shown.stdout
    data = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert data["own"]["series"] == 1
    assert {row["noise"] for row in data["false_alarms"]} == {*MODELS}
    assert all(0 <= row["within_5"] <= row["within_14"] <= 1 for row in data["steps"])
