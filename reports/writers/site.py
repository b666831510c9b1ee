"""Writer of the site of a nightly history: a board, a page for each series, a feed; no server, whole without scripts.

Rows of long tables are written here rather than by a template, without the closing tags that HTML leaves out: a board
of 500 series with 365 nights stays below 50 MB.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import board as boards
from reports.board import Alert, Board, Change, Series
from reports.files import folder_in, replace
from reports.format import UNKNOWN, dotted, for_xml
from reports.plots import nights
from reports.writers import feed
from reports.writers.html import TEMPLATES, script_hash

if TYPE_CHECKING:
    from markupsafe import Markup

PAGES = "series"
MOST_WRONG = 40
MARK_ROWS = 4
NEAR, LAST = 20.0, 84.0  # per cent of the width, room for a text on a telephone
STATES = {
    "regressed": "The level changed for the worse, by more than the noise of the series explains.",
    "no data": "A night that the schedule expects is missing, or has no value.",
    "machine changed": "The machine or its driver is another one, or controls that never change moved as well.",
    "method changed": "The plan of requests or the definition of the number is another one.",
    "noisy": "Nights vary so much, or depend on each other so much, that only pairs could show a change.",
    "improved": "The level changed for the better, by more than the noise of the series explains.",
    "ok": "Nothing changed since the last change that was told.",
}
_OWN = re.compile(r"[0-9a-f]{12}\.html")


def write(board: Board, folder: Path) -> None:
    """Write all pages into a folder, over earlier ones; pages of series that are gone are removed.

    Nothing is written through a link. Raises OSError if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    below = folder_in(folder, PAGES)
    site = _Site(board)
    names = {page_name(one) for one in board["series"]}
    for series in board["series"]:
        replace(below / page_name(series), site.series(series))
    replace(folder / "index.html", site.index())
    replace(folder / "feed.xml", feed.render(board))
    for old in below.iterdir():
        if old.name not in names and _OWN.fullmatch(old.name):
            old.unlink()


def page_name(series: Series) -> str:
    """Return the file of a series, the same every night."""
    return f"{hashlib.sha256(series['id'].encode()).hexdigest()[:12]}.html"


def page_of(series: Series) -> str:
    """Return the address of a series' page from the board."""
    return f"{PAGES}/{page_name(series)}"


class _Site:
    """Maker of the pages of one board."""

    def __init__(self, board: Board) -> None:
        from reports.writers.jinja import templates

        self._board, self._jinja = board, templates()
        self._parts = boards.differing(board)
        self._alerts = boards.alerts(board)
        self._scripts = (TEMPLATES / "site" / "site.js").read_text(encoding="utf-8")
        self._style = _shortened(self._jinja.get_template("report.css").render() + _file("site/site.css"))
        self._last = max((one["points"][-1]["at"] for one in board["series"] if one["points"]), default="")
        made = board["made"][:16].replace("T", " ")
        self._footer = f"made {made} UTC"
        self._nights = nights.spark_nights(board["series"])

    def index(self) -> str:
        """Return the board."""
        board = self._board
        word, tone = boards.verdict(board)
        wrong, told = boards.wrong(board), [self._told(alert) for alert in self._alerts]
        last = boards.day(self._last) or UNKNOWN
        subject = [f"{len(board['series'])} series", f"last night {last}", self._footer]
        return self._page(
            "site/index.html",
            root="",
            page_title=f"{word} · {boards.title_of(board)}",
            word=word,
            tone=tone,
            subject=subject,
            counts=[(state, number, boards.tone(state)) for state, number in boards.counts(board)],
            fresh=[alert for alert in told if alert["new"]],
            told=[alert for alert in told if not alert["new"]],
            wrong=_safe(
                "\n".join(_row(one, self._nights, boards.place_of(one, self._parts)) for one in wrong[:MOST_WRONG])
            ),
            wrong_left=max(0, len(wrong) - MOST_WRONG),
            rows=_safe("\n".join(self._rows())),
            shared=boards.shared(board),
            nights=self._nights,
            states=list(STATES.items()),
        )

    def _rows(self) -> Iterator[str]:
        """Yield the rows of all series below the head of what they measure."""
        named = [(boards.place_of(one, self._parts), one) for one in self._board["series"]]
        for place, same in groupby(sorted(named, key=lambda one: one[0]), key=lambda one: one[0]):
            if place:
                yield f'<tr class="place"><th colspan="5" scope="rowgroup">{_escape(place)}'
            yield from (_row(one, self._nights) for _, one in same)

    def series(self, series: Series) -> str:
        """Return the page of a series."""
        chart = nights.chart(series, self._last)
        name, place = boards.number_of(series), boards.place_of(series, boards.CONFIG)
        alerts = [self._told(alert) for alert in self._alerts if series["id"] in alert["series"]]
        return self._page(
            "site/series.html",
            root="../",
            page_title=dotted((name, boards.place_of(series, self._parts), series["state"])),
            name=name,
            place=place,
            state=series["state"],
            tone=boards.tone(series["state"]),
            why=boards.capital(series["why"]),
            tiles=list(_tiles(series)),
            alerts=[alert | {"series": ()} for alert in alerts],
            chart=chart,
            alt=_alt(series),
            width=nights.WIDTH,
            height=nights.HEIGHT,
            unit=dotted((name, series["unit"])),
            marks=list(_marks(series, chart)) if chart else [],
            changes=[_change(series, number) for number in reversed(range(len(series["changes"])))],
            events=[_event(series, number) for number in reversed(range(len(series["events"])))],
            nights=_safe("\n".join(_nights(series))),
        )

    def _told(self, alert: Alert) -> dict[str, Any]:
        """Return the values of the template for an alert."""
        board = self._board
        found = boards.series_of(alert, board)
        named = [(dotted((boards.number_of(one), boards.place_of(one, self._parts))), page_of(one)) for one in found]
        return {
            "anchor": boards.anchor_of(alert),
            "title": alert["title"],
            "state": boards.state_beside(alert),
            "tone": boards.tone(alert["state"]),
            "new": boards.is_new(alert),
            "told": alert["told"],
            "parts": boards.facts(alert, board),
            "cause": boards.capital(alert["cause"]),
            "bisect": boards.bisect_command(alert, board) if boards.is_new(alert) else "",
            "series": named,
        }

    def _page(self, template: str, **values: Any) -> str:
        """Return a page; what XML cannot hold, HTML does not need."""
        title, script = boards.title_of(self._board), self._scripts
        common = {"title": title, "feed_title": f"{title}: alerts", "footer": self._footer, "style": self._style}
        common |= {"script": script, "script_hash": script_hash(script)}
        return for_xml(self._jinja.get_template(template).render(**common, **values))


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _shortened(style: str) -> str:
    """Return the styles without line ends, which every page of a history would repeat."""
    return re.sub(r"\n\s*", " ", style)


def _escape(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))


def _safe(html: str) -> Markup:
    from markupsafe import Markup

    return Markup(html)


def _row(series: Series, most: int, place: str = "") -> str:
    """Return the row of a series on the board. most: nights that its sparkline has room for."""
    last = series["points"][-1]["value"] if series["points"] else None
    tone = boards.tone(series["state"])
    changes = series["changes"]
    change = f"{boards.changed(series, changes[-1]['change'])}" if changes else ""
    when = f"<small>{boards.day(changes[-1]['at'])}</small>" if changes else ""
    where = f"<small>{_escape(place)}</small>" if place else ""
    again = "<small>wants another run</small>" if series.get("wants_run") else ""
    spark = nights.sparkline(series, most)
    colour = f" {tone}" if tone != "good" else ""
    drawn = f'<svg class="k{colour}" aria-hidden="true"><path d="{spark}"/></svg>' if spark else ""
    return (
        f'<tr><th><a href="{page_of(series)}">{_escape(boards.number_of(series))}</a>{where}'
        f'<td class="{tone}">{_escape(series["state"])}{again}'
        f"<td>{_escape(boards.value_text(series, last))}<td>{change}{when}<td>{drawn}"
    )


def _tiles(series: Series) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and remark of what the page of a series begins with."""
    points = series["points"]
    if not points:
        yield "nights", "0", ""
        return
    last, current = points[-1], nights.segments(series)[-1]
    interval = boards.interval_text(series, last["low"], last["high"])
    yield "last night", boards.value_text(series, last["value"]), dotted((boards.day(last["at"]), interval))
    number = current.last - current.first
    since = boards.day(points[current.first]["at"])
    about = f"median of {number} night{'s' * (number != 1)} since {since}"
    yield "level", boards.value_text(series, current.level), about
    if series["changes"]:
        change = series["changes"][-1]
        yield "last change", boards.changed(series, change["change"]), f"since {boards.day(change['at'])}"
    yield "nights", str(len(points)), f"since {boards.day(points[0]['at'])}"


def _alt(series: Series) -> str:
    """Return the picture of a series in words."""
    points = series["points"]
    if not points:
        return ""
    first, last = points[0], points[-1]
    changes = "; ".join(
        f"{boards.changed(series, one['change'])} on {boards.day(one['at'])}" for one in series["changes"]
    )
    ends = f"{boards.value_text(series, first['value'])} to {boards.value_text(series, last['value'])}"
    return f"{boards.number_of(series)} from {boards.day(first['at'])} to {boards.day(last['at'])}: {ends}. {changes}"


def _marks(series: Series, chart: nights.Chart) -> Iterator[dict[str, Any]]:
    """Yield the values of the template for the marks of changes and events in a chart; near ones go one row down."""
    changes = [
        (one["at"], boards.tone(one["state"]), _size(series, one), f"change-{number}")
        for number, one in enumerate(series["changes"], 1)
    ]
    events = [(one["at"], "event", one["kind"], f"event-{number}") for number, one in enumerate(series["events"], 1)]
    for marks in (changes, events):
        row, before = 0, -math.inf
        for time, tone, text, anchor in sorted(marks):
            at = min(100.0, max(0.0, chart.share(time)))
            left = at > LAST
            row, before = (row + 1) % MARK_ROWS if at - before < NEAR * (1 + left) else 0, at
            yield {"at": at, "tone": tone, "text": text, "anchor": anchor, "left": left, "row": row}


def _size(series: Series, change: Change) -> str:
    creeps = " little by little" if change.get("creep") else ""
    return f"{boards.changed(series, change['change'])}{creeps}"


def _change(series: Series, number: int) -> dict[str, str]:
    """Return the values of the template for a change."""
    change = series["changes"][number]
    before, after = _versions(series, change["at"])
    ends = [boards.changed(series, change[end]) for end in ("low", "high")]
    return {
        "anchor": f"change-{number + 1}",
        "day": boards.day(change["at"]),
        "state": change["state"],
        "tone": boards.tone(change["state"]),
        "change": _size(series, change),
        "interval": UNKNOWN if UNKNOWN in ends else f"{ends[0]} to {ends[1]}",
        "p": f"{change['p']:.2g}" if boards.known(change["p"]) else UNKNOWN,
        "versions": "several" if change.get("creep") else "..".join(filter(None, (before, after))) or UNKNOWN,
        "pairs": {True: "agree", False: "disagree", None: "not measured"}[change["confirmed"]],
    }


def _versions(series: Series, at: str) -> tuple[str, str]:
    """Return the labels of the last judged night before a time and of the first from it on."""
    time = nights.seconds(at)
    judged = [point for point in series["points"] if not point["doubt"] and boards.known(point["value"])]
    before = [point["label"] for point in judged if nights.seconds(point["at"]) < time]
    after = [point["label"] for point in series["points"] if nights.seconds(point["at"]) >= time]
    return boards.short_label(before[-1]) if before else "", boards.short_label(after[0]) if after else ""


def _event(series: Series, number: int) -> dict[str, str]:
    event = series["events"][number]
    return {
        "anchor": f"event-{number + 1}",
        "day": boards.day(event["at"]),
        "kind": event["kind"],
        "text": event["text"],
    }


def _nights(series: Series) -> Iterator[str]:
    """Yield the rows of the table of nights, the latest first; the first night of a level is marked."""
    points, parts = series["points"], nights.segments(series)
    for part in reversed(parts):
        for number in reversed(range(part.first, part.last)):
            point = points[number]
            address = boards.report_address(series, point["run"], below=True)
            at = point["at"][:16].replace("T", " ")
            night = f'<a href="{_escape(address)}">{at}</a>' if address else at
            of_level = boards.changed(series, boards.against(series, point["value"], part.level))
            new = ' class="new"' if number == part.first and number else ""
            yield (
                f"<tr{new}><th>{night}<td>{_escape(boards.short_label(point['label']))}"
                f"<td>{boards.value_text(series, point['value'], unit=False)}"
                f"<td>{boards.interval_text(series, point['low'], point['high'])}"
                f"<td>{of_level}<td>{_escape(point['doubt'])}"
            )
