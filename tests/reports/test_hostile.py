"""Names and error texts come from servers and files: they are shown, never obeyed."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

import reports
from reports import ReportData, html, junit, markdown, plots, terminal


class Tags(HTMLParser):
    """Collects the tags of a page and its references to elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag and what it refers to."""
        self.tags.append(tag)
        names = ("src", "href", "xlink:href")
        self.references += [value for name, value in attrs if name in names and value and not value.startswith("#")]


def test_html_runs_nothing_and_loads_nothing(hostile: ReportData) -> None:
    """No script, no handler, no reference to a file or the network, with names that try."""
    page = html.render(hostile)
    parsed = Tags()
    parsed.feed(page)
    assert "script" not in parsed.tags
    assert all(reference.startswith("data:") for reference in parsed.references)
    assert "&lt;script&gt;" in page
    assert not re.search(r"<[^>]+\son\w+=", page)


def test_pictures_run_nothing(hostile: ReportData) -> None:
    """Labels in plots are text, and no formula."""
    drawn = plots.overview(replace(hostile, validity=()))  # invalid trials are compared with nothing
    assert drawn
    for plot in drawn:
        tree = ET.fromstring(plot.standalone()[plot.standalone().index("<svg") :])
        assert not [element for element in tree.iter() if element.tag.endswith("script")]
        assert "\\frac" in plot.svg


def test_markdown_keeps_its_table(hostile: ReportData) -> None:
    """A bar in a name adds no column, a tag is no tag."""
    text = markdown.render(hostile)
    tables = [
        list(lines) for is_table, lines in groupby(text.splitlines(), lambda line: line.startswith("| ")) if is_table
    ]
    assert len(tables) > 2
    for table in tables:
        assert not any(re.search(r"(?<!\\)<script", line) for line in table)
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_junit_stays_well_formed(hostile: ReportData) -> None:
    """Control characters are replaced, markup is escaped."""
    suite = ET.fromstring(junit.render(hostile).split("\n", 1)[1])
    assert suite.get("name") == '<script>document.title="owned"</script>'


def test_terminal_shows_escapes_as_text(hostile: ReportData) -> None:
    """An escape sequence in an error does not reach the terminal, brackets are no markup."""
    out = io.StringIO()
    terminal.show(hostile, Console(file=out, width=300))
    assert "\x1b" not in out.getvalue()
    assert "]]> $x^" in out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "hostile"])
def test_a_browser_shows_the_page(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Chromium loads the page without a complaint, runs nothing, and gives every picture a size."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is missing")
        pytest.skip("chromium is missing")
    reports.write(request.getfixturevalue(name), tmp_path, ["html"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # the page itself forbids scripts; a copy that allows one measures the pictures
    probe = "<script>document.body.dataset.sizes=[...document.querySelectorAll('figure svg')].map(s=>{const b=s.getBoundingClientRect();return b.width>50&&b.height>50}).join()</script>"  # noqa: E501
    (tmp_path / "probe.html").write_text(
        page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'").replace(
            "</body>", probe + "</body>"
        ),
        encoding="utf-8",
    )
    log, dom = _visit(chromium, tmp_path / "report.html", tmp_path)
    assert not re.search(r"CONSOLE|SEVERE|Refused", log), log
    assert "owned" not in re.findall(r"<title>(.*?)</title>", dom)[0] or "&lt;script&gt;" in dom
    _, measured = _visit(chromium, tmp_path / "probe.html", tmp_path)
    sizes = re.findall(r'data-sizes="([^"]*)"', measured)[0].split(",")
    assert len(sizes) == page.count("<svg ") > 0
    assert set(sizes) == {"true"}


def _visit(chromium: str, page: Path, folder: Path) -> tuple[str, str]:
    """(log, document) after loading a page."""
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
        "--v=0",
    ]
    command = [chromium, *arguments, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stderr, done.stdout
