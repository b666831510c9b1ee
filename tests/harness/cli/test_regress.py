"""`harness regress`: what it prints, what it remembers as told, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli.app import app
from harness.errors import UsageError
from harness.history.detector.nights import Every
from harness.history.series import Series
from harness.history.store import folder as stored
from tests import histories
from tests.histories import Noise, series

NIGHTS = 80


@dataclass
class Settings:
    """Settings of a store."""

    schedule: Every | None = None
    fail_on: Sequence[str] = ()


@dataclass
class Store:
    """Store in memory."""

    found: list[Series]
    settings: Settings = field(default_factory=Settings)
    damage: list[str] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)

    def series(self) -> list[Series]:
        """All series."""
        return self.found

    def told(self) -> Collection[str]:
        """Alerts that were told."""
        return self.texts

    def tell(self, alerts: Collection[str]) -> None:
        """Remember alerts."""
        self.texts |= {*alerts}


@pytest.fixture(autouse=True)
def tonight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of the nights was six hours ago."""
    monkeypatch.setattr(histories, "FIRST", datetime.now(UTC) - timedelta(days=NIGHTS - 1, hours=6))


def ended(monkeypatch: pytest.MonkeyPatch, store: Store, *arguments: str) -> Result:
    """How the command ends with such a store."""

    def opened(folder: Path) -> Store:
        return store

    monkeypatch.setattr(stored.Store, "open", opened)
    return CliRunner().invoke(app, ["regress", *arguments])


def slower(**given: object) -> Series:
    """A series that is 6 % slower for its last ten nights."""
    return series(Noise(NIGHTS).step(70, 0.06).values, **given)


def test_a_new_regression_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its size, its night and the suspects, and exit code 5; the next time it is known, and the code is 0."""
    store = Store([slower(), series(Noise(NIGHTS, seed=1).values, metric="tpot_ms")])
    first = ended(monkeypatch, store)
    assert first.exit_code == 5
    assert first.stdout.splitlines()[0].startswith("REGRESSED  chat ttft_ms p95: regressed +6.")
    assert "suspects: commit c69..c70; unconfirmed" in first.stdout
    assert first.stdout.splitlines()[-1] == "2 series: 1 regressed, 1 ok; 1 new alert   exit 5"
    again = ended(monkeypatch, store)
    assert again.exit_code == 0
    assert "(told before)" in again.stdout
    assert "nothing new" in again.stdout


def test_a_look_remembers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --dry-run the nightly job still tells it."""
    store = Store([slower()])
    assert [ended(monkeypatch, store, "--dry-run").exit_code for _ in range(2)] == [5, 5]


def test_numbers_that_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """As options of the command, else as the settings of the store name them."""
    assert ended(monkeypatch, Store([slower()]), "--fail-on", "ttft p95 +10%").exit_code == 0
    assert ended(monkeypatch, Store([slower()]), "--fail-on", "ttft p95 +3%").exit_code == 5
    assert ended(monkeypatch, Store([slower()], Settings(fail_on=["tpot p50 +3%"]))).exit_code == 0
    wrong = ended(monkeypatch, Store([slower()]), "--fail-on", "ttft p95")
    assert wrong.exit_code != 0


def test_missing_nights_cannot_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 6 on the first night that is missing, or 0 with --inconclusive warn."""
    late = Settings(Every(grace_s=3600))
    gone = series(Noise(NIGHTS).missing(NIGHTS - 2, NIGHTS).values)
    store = Store([gone], late)
    assert ended(monkeypatch, store, "--dry-run", "--inconclusive", "warn").exit_code == 0
    first = ended(monkeypatch, store)
    assert first.exit_code == 6
    assert first.stdout.startswith("NO DATA  chat ttft_ms p95: no data")
    assert ended(monkeypatch, store).exit_code == 0


def test_a_jump_asks_for_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is no alert yet."""
    done = ended(monkeypatch, Store([series(Noise(NIGHTS).step(NIGHTS - 1, 0.2).values)]))
    assert done.exit_code == 0
    assert "WANTS ANOTHER RUN  chat ttft_ms p95" in done.stdout


def test_the_board_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the nights, and the exit code."""
    done = ended(monkeypatch, Store([slower()]), "--json")
    data = json.loads(done.stdout)
    assert data["exit_code"] == done.exit_code == 5
    assert [(alert["state"], alert["told"]) for alert in data["alerts"]] == [("regressed", False)]
    assert data["series"][0]["state"] == "regressed"


def test_files_that_were_skipped_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error; the rest is judged."""
    done = ended(monkeypatch, Store([slower()], damage=["nights/x.parquet cannot be read; skipped"]))
    assert "nights/x.parquet cannot be read; skipped" in done.stderr
    assert done.exit_code == 5


def test_an_empty_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong with it."""
    done = ended(monkeypatch, Store([]))
    assert (done.exit_code, done.stdout) == (0, "0 series: none; nothing new   exit 0\n")


@pytest.mark.parametrize(
    ("code", "word", "exits"), [(5, "confirmed by pairs", 5), (0, "not there in pairs", 0), (6, "unconfirmed", 5)]
)
def test_a_command_confirms_a_new_alert(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, word: str, exits: int
) -> None:
    """It gets the two suspects, once, and its exit code is that of a gate. What it said is remembered."""
    program = tmp_path / "gate.sh"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit {code}\n')
    program.chmod(0o755)
    store = Store([slower()])
    command = f"{program} --base {{before}} --head 'v {{after}}'"
    done = ended(monkeypatch, store, "--confirm", command)
    assert (done.exit_code, word in done.stdout) == (exits, True)
    again = ended(monkeypatch, store, "--confirm", command)
    assert again.exit_code == 0
    assert word in again.stdout
    assert (tmp_path / "calls").read_text() == "--base c69 --head v c70\n"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("gate", "write {before} and {after}"),
        ("gate '{before}", "check the quotes"),
        ("/no/such {before}", "can be started"),
    ],
)
def test_a_command_that_cannot_confirm_is_refused(monkeypatch: pytest.MonkeyPatch, command: str, sentence: str) -> None:
    """With what to write instead, and nothing is remembered as told."""
    store = Store([slower()])
    done = ended(monkeypatch, store, "--confirm", command)
    assert isinstance(done.exception, UsageError)
    assert sentence in str(done.exception)
    assert not store.texts


def test_an_alert_without_a_stored_night_stays_unconfirmed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """--confirm alone measures by the scenario of a night; without one the alert is told, and why."""
    monkeypatch.chdir(tmp_path)
    done = ended(monkeypatch, Store([slower()]), "--confirm", "--dry-run")
    assert (done.exit_code, "unconfirmed" in done.stdout) == (5, True)
    assert "no run of 'nightly' is in runs/" in done.stderr + capfd.readouterr().err
