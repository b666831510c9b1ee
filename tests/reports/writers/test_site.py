"""The site of a nightly history: what is wrong stands first, every link leads somewhere, it fits and stays small."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from reports import write_site
from reports.board import Board
from reports.writers import feed
from reports.writers.site import page_of
from tests import browser
from tests.boards import alert, change, many, night, point, series, story
from tests.browser import Page

ATOM = "{http://www.w3.org/2005/Atom}"
HOSTILE = '"><script>document.title = "owned"</script>'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a hundred nights."""
    folder = tmp_path_factory.mktemp("site")
    write_site(story(), folder)
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser for all tests of this file."""
    with browser.opened(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def text_of(page: str) -> str:
    """The words of a page, without styles and script."""
    bare = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", bare))


def test_what_is_wrong_stands_first(site: Path) -> None:
    """New alerts, then the series that are not ok, then all of them."""
    page = (site / "index.html").read_text()
    words = text_of(page.partition("</header>")[2])
    assert "2 new alerts: regressed, no data" in text_of(page.partition("</header>")[0])
    places = [
        "TTFT p95 of chat is 12 % slower",
        "No data of memory for 3 nights",
        "3 told before, or refuted by pairs",
        "Not ok",
        "All series",
    ]
    found = [words.index(place) for place in places]
    assert found == sorted(found)
    assert words.index("+12.0\u202f% [+10.8\u202f%, +13.2\u202f%]") < words.index("Not ok")
    assert "suspects 4f04028616..bac63a105d" in words


def test_every_link_leads_to_a_page_or_a_place_on_one(site: Path) -> None:
    """Those to the runs' reports alone lead out of the site, each to the run of its night."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        out = []
        for link in re.findall(r'href="([^"]+)"', text):
            target, _, anchor = html.unescape(link).partition("#")
            if target.startswith("data:"):
                continue
            if "/runs/" in target:
                out.append(target)
                continue
            other = (page.parent / target) if target else page
            assert other.exists(), link
            assert not anchor or f'id="{anchor}"' in other.read_text(), link
        assert all(link.startswith("../../runs/2026") and link.endswith("Z-nightly/report.html") for link in out)
        assert len(out) in ((0,) if page.name == "index.html" else (90, 100))


def test_a_page_has_changes_events_and_nights(site: Path) -> None:
    """With their intervals, versions, notes, and what pairs said."""
    told = story()
    words = text_of((site / page_of(told["series"][0])).read_text())
    for expected in ("+8.0\u202f%", "agree", "not measured", "Known: --cache-reuse is off since #812", "slow client"):
        assert " ".join(expected.split()) in " ".join(words.split()), expected
    assert "4f04028616..bac63a105d" in words
    missing = text_of((site / page_of(told["series"][3])).read_text())
    assert "The last 3 nights are missing." in missing


def test_unknown_numbers_are_no_numbers(tmp_path: Path) -> None:
    """A night without a value, a series without nights, a change without an interval."""
    bare: Any = {"at": night(1), "change": None, "low": None, "high": None, "p": None, "state": "ok", "confirmed": None}
    points = [point(0, 1.0), point(1, None), point(2, float("nan"))]
    shown = [series("gaps", points, changes=[bare]), series("none", [], "no data"), series("dark", [point(0, None)])]
    told = Board(made=night(3), series=shown, alerts=[alert("what", "regressed", 1, ["gaps", "gone"])])
    write_site(told, tmp_path)
    for page in tmp_path.rglob("*.html"):
        words = text_of(page.read_text())
        assert not re.search(r"\bnan\b|\bNone\b|\binf\b", words), page
    assert "No night has a value." in text_of((tmp_path / page_of(shown[2])).read_text())
    write_site(Board(made=night(3), series=[], alerts=[]), tmp_path)
    assert "No series yet" in text_of((tmp_path / "index.html").read_text())
    assert list((tmp_path / "series").iterdir()) == []


def test_a_p_value_has_two_digits(tmp_path: Path) -> None:
    """0.01 would stand for 0.006 as well as for 0.014."""
    found: Any = change(1, 1.1, "regressed")
    shown = series("a", [point(0, 1.0), point(1, 1.1)], "regressed", changes=[found | {"p": 0.0123}])
    write_site(Board(made=night(2), series=[shown], alerts=[]), tmp_path)
    assert "0.012" in text_of((tmp_path / page_of(shown)).read_text()).split()


def test_pages_of_series_that_are_gone_are_removed_and_other_files_kept(tmp_path: Path) -> None:
    """Addresses of those that stay are the same, wherever they stand on the board."""
    told = story()
    write_site(told, tmp_path)
    (tmp_path / "series" / "mine.html").write_text("mine")
    before = {path.name for path in (tmp_path / "series").iterdir()}
    write_site(Board(made=told["made"], series=list(reversed(told["series"][1:])), alerts=[]), tmp_path)
    after = {path.name for path in (tmp_path / "series").iterdir()}
    assert before - after == {page_of(told["series"][0]).removeprefix("series/")}
    assert "mine.html" in after


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A folder that is one is refused, a page that is one is replaced."""
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").symlink_to(other / "index.html")
    write_site(story(), tmp_path / "site")
    assert list(other.iterdir()) == []
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "series").symlink_to(other)
    with pytest.raises(OSError, match="symbolic link"):
        write_site(story(), tmp_path / "second")


def test_a_large_board_stays_small() -> None:
    """500 series with 365 nights each: below 50 MB, no page above 300 kB."""
    from reports.writers.site import _Site

    year = many(10, 365)
    pages = [len(_Site(year).series(one).encode()) for one in year["series"]]
    assert max(pages) < 300_000
    assert sum(pages) / len(pages) * 500 < 49_000_000
    small, large = (len(_Site(all_wrong(number)).index().encode()) for number in (60, 80))
    assert large + 21 * (large - small) < 300_000


def all_wrong(number: int) -> Board:
    """A board in a night in which the machine changed: every row of it is as long as can be."""
    told: Any = many(number, 70)
    for one in told["series"]:
        one |= {"state": "machine changed", "changes": [change(30, 1.1, "regressed")], "wants_run": True}
    board: Board = told
    return board


def test_the_feed_is_atom(site: Path) -> None:
    """Each entry has its identity, a time as RFC 3339 has it, and a link to the alert on the board."""
    root = ET.fromstring((site / "feed.xml").read_text())
    assert root.tag == f"{ATOM}feed"
    for part in ("id", "title", "updated", "author"):
        assert len(root.findall(f"{ATOM}{part}")) == 1
    entries = root.findall(f"{ATOM}entry")
    assert len(entries) == 5
    board = (site / "index.html").read_text()
    for entry in entries:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry.findtext(f"{ATOM}updated", ""))
        link = entry.find(f"{ATOM}link")
        assert link is not None
        assert f'id="{link.attrib["href"].partition("#")[2]}"' in board
        assert entry.findtext(f"{ATOM}summary")
    ids = [entry.findtext(f"{ATOM}id") for entry in entries]
    assert len(set(ids)) == 5
    assert all(str(one).startswith("urn:uuid:") for one in ids)
    times = [datetime.fromisoformat(entry.findtext(f"{ATOM}updated", "")) for entry in entries]
    assert times == sorted(times, reverse=True)
    again = ET.fromstring(feed.render(story()))
    assert [entry.findtext(f"{ATOM}id") for entry in again.findall(f"{ATOM}entry")] == ids


def hostile() -> Board:
    """Names, notes, labels and addresses that would like to be code."""
    told: Any = story()
    one = told["series"][0]
    one |= {"id": HOSTILE, "name": HOSTILE, "why": HOSTILE, "report": "javascript:alert(1)//{run}"}
    one["key"] |= {"load": HOSTILE, "metric": HOSTILE, "variant": "a\x00b\x1b[31m"}
    one["events"] = [{"at": night(33), "kind": HOSTILE, "text": HOSTILE}]
    one["points"][0] |= {"label": HOSTILE, "doubt": HOSTILE, "run": HOSTILE}
    told["alerts"][0] |= {"title": HOSTILE, "cause": HOSTILE, "series": [HOSTILE], "suspects": [HOSTILE, HOSTILE]}
    board: Board = told
    return board


@pytest.mark.slow
@pytest.mark.parametrize("name", ["story", "hostile"])
def test_nothing_is_complained_of_and_nothing_asked_for(tab: Page, tmp_path: Path, name: str) -> None:
    """No error, no refused script, no request but for the file itself, and no name runs as a script."""
    told = story() if name == "story" else hostile()
    write_site(told, tmp_path)
    for page in (tmp_path / "index.html", tmp_path / page_of(told["series"][0])):
        tab.visit(page)
        assert tab.complaints == []
        assert tab.requests == [page.as_uri()]
        assert tab.value("document.title") != "owned"
        assert tab.value("document.scripts.length") == 1
        assert tab.value("document.querySelectorAll('a[href^=javascript]').length") == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1600])
def test_pages_fit(tab: Page, site: Path, width: int, scheme: str) -> None:
    """Only tables scroll sideways; charts and sparklines have a size."""
    tab.show_as(width, scheme)
    for page in (site / "index.html", site / page_of(story()["series"][0])):
        tab.visit(page)
        assert tab.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), page
        boxes = tab.value("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)")
        assert boxes
        assert min(boxes) > 200


@pytest.mark.slow
def test_the_board_is_filtered_by_any_word_of_a_row_or_its_group(tab: Page, site: Path) -> None:
    """Heads of groups without a row that shows are hidden as well."""
    tab.show_as(1440, "light")
    tab.visit(site / "index.html")
    tab.value("document.querySelector('input[type=search]').focus()")
    tab.type("summaries regressed")
    shown = "[...document.querySelector('table[data-filter]').tBodies[0].rows].filter(r => !r.hidden)"
    assert tab.value(f"{shown}.map(r => r.cells[0].textContent.trim())") == ["summaries", "E2E p50"]
    assert tab.value("document.querySelector('output').textContent") == "1 series"


@pytest.mark.slow
def test_the_night_under_the_pointer_is_told(tab: Page, site: Path) -> None:
    """The row of the table that belongs to it."""
    tab.show_as(1440, "light")
    tab.visit(site / page_of(story()["series"][0]))
    box = tab.value("(b => [b.x, b.y, b.width, b.height])(document.querySelector('.chart').getBoundingClientRect())")
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] - 2, y=box[1] + box[3] / 2)
    assert tab.value("document.querySelector('.tip b').textContent").startswith("2026-11-27 02:00 · ")
