"""Alerts as Markdown, JSON, JUnit and a chat's message: new ones in full, old ones counted, no text is code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from reports import alerts
from reports.board import Board, bisect_command
from reports.writers.markdown import MOST_CHARACTERS
from tests.boards import alert, key, night, point, series, story


def test_new_alerts_are_told_in_full_and_old_ones_counted(tmp_path: Path) -> None:
    """In each format that is written."""
    files = alerts.write(story(), tmp_path / "new")
    assert [file.name for file in files] == ["alerts.md", "alerts.json", "alerts.xml"]
    text = files[0].read_text()
    assert text.startswith("## llama.cpp nightly: 2 new alerts: regressed, no data\n")
    assert "- **TTFT p95 of chat is 12 % slower** (regressed): +12.0" in text
    assert "suspects 4f04028616..bac63a105d" in text
    assert "`harness bisect 4f04028616" in text
    assert "--fail-on 'ttft_ms p95 +6%' --scenario FILE --command COMMAND`" in text
    assert "3 alerts told before." in text
    data = json.loads(files[1].read_text())
    assert [one["new"] for one in data["alerts"]] == [True, True, False, False, False]
    assert data["alerts"][0]["names"] == ["chat ttft_ms p95"]
    assert data["counts"] == {"regressed": 2, "no data": 1, "machine changed": 1, "noisy": 1, "ok": 3}


def test_a_series_fails_in_the_night_in_which_it_is_told() -> None:
    """Not afterwards: what is always red hides what is new. Missing data is an error."""
    suite = ET.fromstring(alerts.as_junit(story()))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "1", "1")
    (failure,) = suite.iter("failure")
    assert "TTFT p95 of chat is 12 % slower" in str(failure.get("message"))
    (error,) = suite.iter("error")
    assert error.get("type") == "no data"
    told: Any = story()
    for one in told["alerts"]:
        one["told"] = True
    later = ET.fromstring(alerts.as_junit(told))
    assert (later.get("tests"), later.get("failures"), later.get("errors")) == ("8", "0", "0")


def test_what_improved_beside_a_regression_does_not_fail() -> None:
    """Both are in one alert, as they have one cause."""
    shown = [series("a", [point(0, 1.0)], "regressed"), series("b", [point(0, 1.0)], "improved")]
    board = Board(made=night(1), series=shown, alerts=[alert("a is slower", "regressed", 0, ["a", "b"], told=False)])
    suite = ET.fromstring(alerts.as_junit(board))
    assert suite.get("failures") == "1"
    assert [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None] == [
        case.get("name") for case in list(suite.iter("testcase"))[:1]
    ]


def test_what_pairs_did_not_find_is_not_told() -> None:
    """Nor does it fail; a regression of a number that does not gate is told and does not fail."""
    shown = [series("a", [point(0, 1.0)], "regressed"), series("b", [point(0, 1.0)], "regressed")]
    pairs = alert("a is slower", "regressed", 0, ["a"], confirmed=False, told=False)
    shows = alert("b is slower", "regressed", 0, ["b"], told=False, fails=False)
    board = Board(made=night(1), series=shown, alerts=[pairs, shows])
    assert "a is slower" not in alerts.as_markdown(board)
    assert "b is slower" in alerts.as_markdown(board)
    assert ET.fromstring(alerts.as_junit(board)).get("failures") == "0"
    message = alerts.as_chat(board)
    assert message is not None
    assert "a is slower" not in message


def test_a_message_for_a_chat_is_short_and_mentions_nobody() -> None:
    """Names of series and labels are no links, mentions or formats; without a new alert there is none."""
    names = [f"<!channel> & `x` {number} " + "long " * 200 for number in range(30)]
    told = [alert(name, "regressed", 0, [], told=False, cause="<https://x|y>") for name in names]
    message = alerts.as_chat(Board(made=night(1), series=[], alerts=told), "https://ci/site/?a=1&b=2")
    assert message is not None
    text = json.loads(message)["text"]
    assert len(text) <= alerts.LONGEST
    assert "<!channel>" not in text
    assert "&lt;!channel&gt; &amp;" in text
    assert text.endswith("20 more alerts\n<https://ci/site/?a=1&amp;b=2|All series>")
    assert alerts.as_chat(Board(made=night(1), series=[], alerts=[])) is None


def test_a_message_is_cut_between_signs() -> None:
    """A part of `&amp;` would stand there as it is."""
    for letters in range(200, 210):
        told = alert("x" * letters + "&" * 40, "regressed", 0, [], told=False)
        message = alerts.as_chat(Board(made=night(1), series=[], alerts=[told]))
        assert message is not None
        text = json.loads(message)["text"]
        assert text.endswith("…")
        assert not re.search(r"&(?!amp;)", text)


def test_the_command_that_finds_the_version_is_given_where_there_is_a_range() -> None:
    """A margin of half the change, seen from the better; none for a creeping one, or without two versions."""
    one = series("a", [point(0, 1.0)], of=key("error_rate", "value", class_name="chat"), scale="points")
    board = Board(made=night(1), series=[one, series("b", [point(0, 1.0)], better="higher")], alerts=[])

    def command(**changes: Any) -> str:
        given = {"change": 0.012, "suspects": ["v1", "it's"], **changes}
        return bisect_command(alert("x", "regressed", 0, given.pop("series", ["a"]), **given), board)

    rest = "--scenario FILE --command COMMAND"
    assert command() == f"""harness bisect v1 'it'"'"'s' --fail-on 'chat.error_rate +0.6pp' {rest}"""
    assert "--fail-on 'ttft_ms p95 -5%'" in command(series=["b"], change=0.9)
    assert "--fail-on 'ttft_ms p95 -40%'" in command(series=["a", "b"], lead="b", change=5.08)
    for changes in (
        {"shape": "creep"},
        {"suspects": ["", "v2"]},
        {"suspects": ["v2", "v2"]},
        {"change": None},
        {"suspects": ["`v1`", "v2"]},
    ):
        assert command(**changes) == ""


def test_a_quiet_night_is_one_line() -> None:
    """With the states of all series."""
    board = Board(made=night(1), series=[series("a", [point(0, 1.0)])], alerts=[])
    text = "## Nightly history: Nothing new, nothing wrong\n\n1 series: 1 ok.\n"
    assert alerts.as_markdown(board) == text


def test_a_night_of_many_alerts_fits_an_issue() -> None:
    """GitHub refuses a longer text, and nobody would be told: the first are told, the others counted."""
    told = [
        alert(f"number {one} is slower", "regressed", 0, [], told=False, cause="A long cause. " * 30)
        for one in range(300)
    ]
    text = alerts.as_markdown(Board(made=night(1), series=[], alerts=told))
    assert len(text) <= MOST_CHARACTERS
    shown = text.count("is slower")
    assert 0 < shown < 300
    assert f"\n- {300 - shown} more: alerts.json has them\n" in text
    assert text.startswith("## Nightly history: 300 new alerts: regressed\n")


def test_hostile_texts_stay_texts() -> None:
    """No mark of Markdown, no character that XML cannot hold."""
    hostile = "**x** [y](javascript:z)\x00 <b>\n- item"
    board = Board(
        made=night(1),
        series=[series(hostile, [point(0, 1.0)], "regressed", why=hostile)],
        alerts=[alert(hostile, "regressed", 0, [hostile], told=False, cause=hostile)],
    )
    assert "<b>" not in alerts.as_markdown(board)
    assert "\n- item" not in alerts.as_markdown(board)
    ET.fromstring(alerts.as_junit(board))
    json.loads(alerts.as_json(board))
