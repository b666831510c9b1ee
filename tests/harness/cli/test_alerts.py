"""Telling of a board: a chat that fails loses neither the files nor the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.alerts import tell
from reports.board import Board
from tests.boards import night, story


def test_a_chat_that_is_away_is_a_line_and_the_files_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody was told is told the next time."""
    assert tell(story(), tmp_path, "http://127.0.0.1:1/x") is False
    told = capsys.readouterr().err
    assert told.startswith("harness: the webhook could not be reached: ")
    assert "the next call posts them again" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alerts.json", "alerts.md", "alerts.xml"]


def test_without_a_new_alert_nobody_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor without an address."""
    assert tell(Board(made=night(1), series=[], alerts=[]), None, "http://127.0.0.1:1/x")
    assert tell(story(), None, None)
    assert capsys.readouterr().err == ""
