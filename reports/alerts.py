"""Alerts of a board for people and programs: Markdown, JSON, JUnit, and a message for a chat.

New alerts are told in full, those that were told before only counted: a page that is always red hides what is new.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from xml.etree import ElementTree as ET

from reports import board as boards
from reports.board import Alert, Board, Series
from reports.files import replace
from reports.format import for_xml, shortened
from reports.names import ended

MOST_IN_CHAT, MOST_SERIES = 10, 6
LONGEST = 3000
"""Characters of a message for a chat."""
_AROUND = 2_000  # characters for head and foot


def write(board: Board, folder: Path) -> list[Path]:
    """Write alerts.md, alerts.json and alerts.xml; return the files. Raises OSError if one cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    return [replace(folder / name, render(board)) for name, render in FILES.items()]


def as_markdown(board: Board) -> str:
    """Return the new alerts for a comment or an issue, with the number of series in each state.

    Of very many the first: a comment takes 65,536 characters.
    """
    from reports.writers.markdown import MOST_CHARACTERS, escape

    word, _ = boards.verdict(board)
    items = [_item(alert, board) for alert in _new(board)]
    ends = accumulate(len(item) + 1 for item in items)
    lines = [item for item, end in zip(items, ends, strict=True) if end <= MOST_CHARACTERS - _AROUND]
    left = len(items) - len(lines)
    lines += [f"- {left} more: alerts.json has {'it' if left == 1 else 'them'}"] if left else []
    told = len(board["alerts"]) - len(items)
    states = ", ".join(f"{number} {state}" for state, number in boards.counts(board))
    rest = f" {told} alert{'s' * (told != 1)} told before." if told else ""
    lines = [f"## {escape(boards.title_of(board))}: {escape(word)}", "", *lines, *([""] if items else [])]
    return "\n".join([*lines, f"{len(board['series'])} series: {states}.{rest}", ""])


def _item(alert: Alert, board: Board) -> str:
    """Return an alert as an item of a list, with its series and the command that finds the version."""
    from reports.writers.markdown import escape

    state = f" ({escape(boards.state_beside(alert))})" if boards.state_beside(alert) else ""
    lines = [f"- **{escape(alert['title'])}**{state}: {escape(_about(alert, board))}"]
    lines += [f"  - {escape(name)}" for name in _names(alert, board)]
    command = boards.bisect_command(alert, board)
    return "\n".join([*lines, *([f"  - Which version: `{command}`"] if command else [])])


def as_json(board: Board) -> str:
    """Return all alerts with the names of their series, and the number of series in each state."""
    word, _ = boards.verdict(board)
    alerts = [
        {**alert, "new": boards.is_new(alert), "names": [one["name"] for one in boards.series_of(alert, board)]}
        for alert in boards.alerts(board)
    ]
    data = {
        "made": board["made"],
        "title": boards.title_of(board),
        "verdict": word,
        "counts": dict(boards.counts(board)),
    }
    return json.dumps({**data, "alerts": alerts}, indent=2, ensure_ascii=False) + "\n"


def as_junit(board: Board) -> str:
    """Return a test case for each series: a failure in the night in which it is told as regressed, not afterwards.

    A series whose data is missing, or whose machine or method changed, is an error in the night in which it is told.
    """
    suite = ET.Element("testsuite", name=for_xml(boards.title_of(board)), hostname="localhost", time="0")
    told = {name: alert for alert in reversed(boards.alerts(board)) if boards.is_new(alert) for name in alert["series"]}
    for series in board["series"]:
        _case(suite, series, told.get(series["id"]), board)
    for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        suite.set(name, str(sum(1 for _ in suite.iter(tag))))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _case(suite: ET.Element, series: Series, alert: Alert | None, board: Board) -> None:
    place, number = boards.place_of(series, boards.CONFIG), boards.number_of(series)
    case = ET.SubElement(suite, "testcase", classname=for_xml(place), name=for_xml(number), time="0")
    bad = alert is not None and (boards.fails(alert) or alert["state"] in boards.WRONG - {"regressed"})
    if alert is not None and bad and not (alert["state"] == "regressed" and series["state"] == "improved"):
        message = for_xml(f"{ended(alert['title'])} {_about(alert, board)}")
        kind = "failure" if alert["state"] == "regressed" else "error"
        ET.SubElement(case, kind, {"type": alert["state"], "message": message}).text = message
    else:
        said = " ".join(filter(None, (f"{series['state']}.", series["why"])))
        ET.SubElement(case, "system-out").text = for_xml(said)


def as_chat(board: Board, page: str = "") -> str | None:
    """Return the new alerts as a message of Slack's incoming webhooks, which other chats read as well; None without.

    Args:
        page: Address of the site, for a link.
    """
    fresh = _new(board)
    if not fresh:
        return None
    word, _ = boards.verdict(board)
    head = f"*{_slack(boards.title_of(board))}*: {_slack(word)}"
    lines = [f"• *{_slack(alert['title'])}*: {_slack(_about(alert, board))}" for alert in fresh[:MOST_IN_CHAT]]
    more = [f"{len(fresh) - MOST_IN_CHAT} more alerts"] if len(fresh) > MOST_IN_CHAT else []
    link = [f"<{_slack(page)}|All series>"] if page else []
    lines = [_cut(line, (LONGEST - 400) // MOST_IN_CHAT) for line in lines]
    return json.dumps({"text": "\n".join([_cut(head, 300), *lines, *more, *link])}, ensure_ascii=False)


def _new(board: Board) -> list[Alert]:
    return [alert for alert in boards.alerts(board) if boards.is_new(alert)]


def _about(alert: Alert, board: Board) -> str:
    """Return the facts of an alert and its cause, in one line."""
    return " ".join(ended(part) for part in (boards.sentence(alert, board), boards.capital(alert["cause"])) if part)


def _names(alert: Alert, board: Board) -> list[str]:
    """Return the names of an alert's series, of many the first."""
    names = [one["name"] for one in boards.series_of(alert, board)]
    more = [f"{len(names) - MOST_SERIES} more"] if len(names) > MOST_SERIES else []
    return [*names[:MOST_SERIES], *more]


def _slack(text: str) -> str:
    """Return a text in which nothing is a link, a mention or a format of Slack's."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.split())


def _cut(text: str, longest: int) -> str:
    """Return the beginning of a text that is too long, without the first letters of an `&amp;`."""
    return re.sub(r"&\w{0,3}…$", "…", shortened(text, longest))


FILES: Mapping[str, Callable[[Board], str]] = {
    "alerts.md": as_markdown,
    "alerts.json": as_json,
    "alerts.xml": as_junit,
}
