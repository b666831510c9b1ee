"""report.html in a browser: it complains of nothing, asks for nothing, fits, sorts, filters, and needs no mouse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reports.data import ReportData
from reports.writers import html
from tests import browser
from tests.browser import Page

pytestmark = pytest.mark.slow

WIDTHS = (375, 768, 1440)
SCHEMES = ("light", "dark")
RESULTS = "#results table[data-tools]"
TABBABLE = """[...document.querySelectorAll('a[href], button, input, summary, [tabindex="0"]')].filter(element =>
    element.checkVisibility() && !(element.tagName !== 'SUMMARY' && element.closest('details:not([open])')))"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser for all tests of this file."""
    with browser.opened(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def page(tab: Page) -> Page:
    """As wide as a desk allows, whatever the test before asked for."""
    tab.show_as(1440, "light")
    return tab


@pytest.fixture(scope="module")
def files(
    full: ReportData,
    hostile: ReportData,
    sweep: ReportData,
    single: ReportData,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """The pages of the runs; that of the hostile one also as if its trials were valid."""
    folder = tmp_path_factory.mktemp("pages")
    shown = {"full": full, "hostile": hostile, "sweep": sweep, "single": single}
    shown["believed"] = replace(hostile, validity=())
    for name, data in shown.items():
        (folder / f"{name}.html").write_text(html.render(data), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in shown}


def column(page: Page, table: str, number: int) -> list[str]:
    """The texts of a column as they stand, of the rows that show."""
    rows = f"[...document.querySelector({json.dumps(table)}).tBodies[0].rows]"
    found: list[str] = page.value(f"{rows}.filter(r => !r.hidden).map(r => r.cells[{number}].textContent.trim())")
    return found


def focused(page: Page) -> Any:
    """Which of the elements that the keyboard should reach has the focus; -1 for none of them."""
    return page.value(f"{TABBABLE}.indexOf(document.activeElement)")


def follow(page: Page, selector: str) -> Any:
    """Click a link within the page; where it led, once the page has taken notice."""
    page.value("void (window.led = new Promise(done => addEventListener('hashchange', done, {once: true})))")
    page.click(selector)
    return page.value("window.led.then(() => location.hash)")


@pytest.mark.parametrize("name", ["full", "hostile", "believed"])
def test_nothing_is_complained_of_and_nothing_asked_for(page: Page, files: dict[str, Path], name: str) -> None:
    """No error, no warning, no refused script, no request but for the file itself, and no name runs as a script."""
    page.visit(files[name])
    page.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.complaints == []
    assert page.requests == [files[name].as_uri()]
    assert page.value("document.title") != "owned"
    assert page.value("document.scripts.length") == 1


def test_only_the_script_of_the_page_may_run(page: Page, files: dict[str, Path]) -> None:
    """Its policy refuses any other, and text as code."""
    page.visit(files["full"])
    page.value("""(() => { const other = document.createElement('script');
        other.textContent = 'document.title = "owned"'; document.body.append(other); })()""")
    assert page.value("document.title") != "owned"
    assert (
        page.value("(() => { const b = document.body; b.setAttribute('onclick', 'this.id = 1'); b.click(); })()")
        is None
    )
    assert page.value("document.body.id") == ""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_every_picture_has_a_size(
    page: Page, files: dict[str, Path], width: int, scheme: str
) -> None:
    """Only tables scroll sideways, and no picture collapses, on a telephone as on a desk, in light as in dark."""
    page.show_as(width, scheme)
    for name in ("full", "believed"):
        page.visit(files[name])
        page.value("dispatchEvent(new Event('beforeprint'))")  # opens what is folded
        assert page.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), name
        boxes = "[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect())"
        sizes = page.value(f"{boxes}.map(b => [b.width, b.height])")
        assert sizes
        assert all(across > 200 and down > 80 for across, down in sizes)


def test_a_table_that_goes_on_to_the_right_fades_there(page: Page, files: dict[str, Path]) -> None:
    """Until it has been moved to its end; one that has room does not."""
    page.show_as(390, "light")
    page.visit(files["full"])
    frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    page.value(frames)
    fading = "getComputedStyle(document.querySelector('#results .scroll')).maskImage !== 'none'"
    assert page.value(fading)
    page.value("void (document.querySelector('#results .scroll').scrollLeft = 9999)")
    page.value(frames)
    assert not page.value(fading)
    page.show_as(1600, "light")
    page.visit(files["sweep"])
    page.value(frames)
    assert not page.value(fading)


@pytest.mark.parametrize("width", [390, 1600])
def test_no_text_of_a_picture_is_cut_off_or_too_small(page: Page, files: dict[str, Path], width: int) -> None:
    """Every letter lies within its picture, and has at least nine pixels, in this browser's font."""
    page.show_as(width, "light")
    for name in ("full", "believed"):
        page.visit(files[name])
        page.value("dispatchEvent(new Event('beforeprint'))")  # opens what is folded
        words = "[...document.querySelectorAll('figure svg text')].filter(t => t.checkVisibility())"
        inside = """(t => { const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();
            return Math.min(a.left - b.left, b.right - a.right, a.top - b.top, b.bottom - a.bottom) >= -1; })"""
        assert page.value(f"{words}.length") > 50
        assert page.value(f"{words}.filter(t => !{inside}(t)).map(t => t.textContent)") == []
        assert page.value(f"Math.min(...{words}.map(t => 11 * t.getScreenCTM().d))") >= 9


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "height"), [(1024, 700), (1600, 900)])
@pytest.mark.parametrize("name", ["full", "sweep", "single"])
def test_the_first_screen_answers(
    page: Page, files: dict[str, Path], name: str, width: int, height: int, scheme: str
) -> None:
    """Verdict, numbers and limits are in sight, and at least the upper half of the first picture."""
    page.show_as(width, scheme, height=height)
    page.visit(files[name])
    last = "(s => { const all = [...document.querySelectorAll(s)]; return all.at(-1).getBoundingClientRect().bottom; })"
    for selector in (".badges", ".subject", ".tiles", *([".limits"] if name != "single" else [])):
        assert page.value(f"{last}('{selector}')") <= height, selector
    box = page.value("(b => [b.top, b.height])(document.querySelector('.first svg').getBoundingClientRect())")
    assert box[0] + box[1] / 2 <= height
    if name == "sweep":
        assert page.value(f"{last}('.said p:first-child')") <= height


@pytest.mark.parametrize("name", ["full", "hostile", "sweep", "single"])
def test_no_words_lie_on_others(page: Page, files: dict[str, Path], name: str) -> None:
    """Captions and what unfolds the numbers share a line where there is room, on a telephone too."""
    for width in (390, 1024, 1600):
        page.show_as(width, "light")
        page.visit(files[name])
        pairs = "[...document.querySelectorAll('.first figure')].filter(f => f.querySelector('summary'))"
        boxes = page.value(
            f"{pairs}.map(f => ['figcaption', 'summary'].map(s => f.querySelector(s).getBoundingClientRect()))"
            ".map(([a, b]) => [a.right, a.bottom, b.left, b.top])"
        )
        assert all(right <= left + 1 or bottom <= top + 1 for right, bottom, left, top in boxes)
        clipped = "[...document.querySelectorAll('.tiles li, .badge')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        assert page.value(f"{clipped}.map(e => e.textContent)") == []


def test_light_and_dark_differ(page: Page, files: dict[str, Path]) -> None:
    """The colours follow the reader's choice, those of texts in pictures too."""
    seen = {}
    for scheme in SCHEMES:
        page.show_as(768, scheme)
        page.visit(files["full"])
        ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
        seen[scheme] = page.value(f"[getComputedStyle(document.body).backgroundColor, {ink}]")
    assert seen["light"][0] == "rgb(255, 255, 255)"
    assert not set(seen["light"]) & set(seen["dark"])


def test_a_click_sorts_and_the_third_restores(page: Page, files: dict[str, Path]) -> None:
    """By the number behind the text; up, down, and as it was. What is unknown stays last."""
    page.visit(files["full"])
    written = column(page, RESULTS, 6)
    button = f"{RESULTS} th:nth-child(7) button"
    page.click(button)
    up = column(page, RESULTS, 6)
    values = page.value(f"[...document.querySelector('{RESULTS}').tBodies[0].rows].map(r => r.cells[6].dataset.value)")
    assert [float(value) for value in values if value] == sorted(float(value) for value in values if value)
    assert page.value(f"document.querySelector('{RESULTS} th:nth-child(7)[aria-sort]').ariaSort") == "ascending"
    page.click(button)
    down = column(page, RESULTS, 6)
    assert up != down
    known = [text for text in up if text]
    assert [text for text in down if text] == known[::-1]
    assert up[len(known) :] == down[len(known) :]
    page.click(button)
    assert column(page, RESULTS, 6) == written


def test_the_keyboard_sorts(page: Page, files: dict[str, Path]) -> None:
    """Enter and the space bar do what a click does, by text too."""
    page.visit(files["full"])
    page.value(f"document.querySelector('{RESULTS} th:nth-child(2) button').focus()")
    page.press("Enter")
    assert column(page, RESULTS, 1) == sorted(column(page, RESULTS, 1))
    page.press("Space")
    assert column(page, RESULTS, 1) == sorted(column(page, RESULTS, 1), reverse=True)


def test_a_filter_hides_rows_and_says_how_many_are_left(page: Page, files: dict[str, Path]) -> None:
    """All words must be in a row, whatever their case; emptied, it shows everything again."""
    page.visit(files["full"])
    metrics = "#trial-1 article > details:last-of-type"
    page.value(f"['#trial-1', '{metrics}'].map(d => document.querySelector(d).open = true)")
    everything = column(page, f"{metrics} table", 0)
    page.value(f"document.querySelector('{metrics} .filter input').focus()")
    page.type("TTFT ms")
    left = column(page, f"{metrics} table", 0)
    assert 0 < len(left) < len(everything)
    assert all("ttft" in text for text in left)
    said = f"document.querySelector('{metrics} .filter output').textContent"
    assert page.value(said) == f"{len(left)} of {len(everything)} rows"
    page.value(
        f"(f => {{ f.value = ''; f.dispatchEvent(new Event('input')); }})"
        f"(document.querySelector('{metrics} .filter input'))"
    )
    assert column(page, f"{metrics} table", 0) == everything


def test_tab_reaches_everything_in_order(page: Page, files: dict[str, Path]) -> None:
    """Every link, button, field and scrolling table, each once, in the order of the page, with a mark around it."""
    page.show_as(1440, "light")
    page.visit(files["full"])
    count = page.value(f"{TABBABLE}.length")
    assert count > 50
    reached, unmarked = [], []
    for _ in range(count):
        page.press("Tab")
        reached.append(focused(page))
        if page.value("getComputedStyle(document.activeElement).outlineStyle") == "none":
            unmarked.append(page.value("document.activeElement.outerHTML"))
    assert reached == list(range(count))
    assert unmarked == []


def test_a_metric_leads_to_its_definition_and_back(page: Page, files: dict[str, Path]) -> None:
    """One click there, one back, each to a place that is in view."""
    page.show_as(1440, "light")
    page.visit(files["full"])
    assert follow(page, f"{RESULTS} a[href='#metric-ttft_ms']") == "#metric-ttft_ms"
    assert follow(page, "#metric-ttft_ms a.back") == "#use-ttft_ms"
    assert page.value("document.querySelectorAll('#use-ttft_ms').length") == 1
    missing = "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.getElementById(a.hash.slice(1)))"
    assert page.value(f"{missing}.map(a => a.hash)") == []


def test_a_link_into_something_folded_opens_it(page: Page, files: dict[str, Path]) -> None:
    """Otherwise it would lead nowhere."""
    page.visit(files["full"])
    target = "document.querySelector('article details [id^=\"use-\"]')"
    led = f"addEventListener('hashchange', done, {{once: true}}); location.hash = {target}.id;"
    page.value(f"new Promise(done => {{ {led} }}).then(() => null)")
    assert page.value(f"{target}.closest('details').open")


def test_print_shows_what_is_folded(page: Page, files: dict[str, Path]) -> None:
    """Paper cannot be clicked; afterwards all is folded again."""
    page.visit(files["full"])
    folded = "document.querySelectorAll('details:not([open])').length"
    before = page.value(folded)
    assert before > 0
    page.value("dispatchEvent(new Event('beforeprint'))")
    assert page.value(folded) == 0
    page.value("dispatchEvent(new Event('afterprint'))")
    assert page.value(folded) == before


def test_the_printed_page_fits_the_paper(page: Page, files: dict[str, Path]) -> None:
    """A sheet lying down, with everything unfolded; dark ink on white whatever the reader's setting."""
    page.show_as(1030, "dark")
    page.visit(files["full"])
    try:
        page.call("Emulation.setEmulatedMedia", media="print")
        page.value("dispatchEvent(new Event('beforeprint'))")
        assert page.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


def test_the_first_number_is_in_sight_on_a_telephone(page: Page, files: dict[str, Path]) -> None:
    """Load and data quality then stand below the cell's name, in the same words."""
    page.visit(files["full"])
    try:
        page.show_as(375, "light")
        first = "[...document.querySelector('#results table[data-tools]').tBodies[0].rows[2].cells]"
        assert page.value(f"{first}[3].getBoundingClientRect().right") <= 375
        assert page.value(f"{first}.slice(0, 3).map(c => c.getClientRects().length)") == [1, 0, 0]
        assert "sustained · usable · ✗" in page.value(f"getComputedStyle({first}[0], '::after').content")
        page.show_as(1440, "light")
        assert page.value(f"{first}.slice(0, 3).map(c => c.getClientRects().length)") == [1, 1, 1]
        assert page.value(f"getComputedStyle({first}[0], '::after').content") == "none"
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


def test_headings_and_regions_are_in_order(page: Page, files: dict[str, Path]) -> None:
    """One first heading, no level left out; one header, main and contents; names for tables and pictures."""
    page.visit(files["full"])
    levels = page.value("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.tagName[1]))")
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.value("['header', 'main', 'nav', 'footer'].map(t => document.querySelectorAll(t).length)") == [1] * 4
    assert page.value("[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent)")
    pictures = "[...document.querySelectorAll('figure svg')]"
    assert page.value(f"{pictures}.every(s => s.getAttribute('role') === 'img' && s.ariaLabel)")
    assert page.value("[...document.querySelectorAll('th')].every(h => h.scope)")
    ids = page.value("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_without_scripts_everything_is_there(page: Page, files: dict[str, Path]) -> None:
    """A reader who allows none loses the tools and nothing else."""
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.visit(files["full"])
        controls = page.call("DOM.getDocument")["root"]["nodeId"]
        for selector in (".sort", ".filter", ".copy"):
            assert page.call("DOM.querySelectorAll", nodeId=controls, selector=selector)["nodeIds"] == []
        assert len(page.call("DOM.querySelectorAll", nodeId=controls, selector=f"{RESULTS} tr")["nodeIds"]) > 3
        assert page.complaints == []
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
