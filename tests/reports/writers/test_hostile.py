"""Names and error texts come from servers and files: they are shown, never obeyed."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import groupby
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from reports import plots
from reports.data import ReportData
from reports.writers import html, junit, markdown, terminal
from tests.fabricated import again


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


def test_html_runs_nothing_of_theirs_and_loads_nothing(hostile: ReportData) -> None:
    """Our script only, which the page's policy names; no handler, no reference to a file or the network, with names
    that try.
    """
    page = html.render(hostile)
    parsed = Tags()
    parsed.feed(page)
    assert parsed.tags.count("script") == 1
    script = page[page.index("<script>") + len("<script>") : page.index("</script>")]
    assert script == (html.TEMPLATES / "report.js").read_text(encoding="utf-8")
    assert f"default-src 'none'; script-src '{html.script_hash(script)}';" in page
    assert not re.search(r"eval|innerHTML|fetch|XMLHttp|import\(|Function\(|https?:", script)
    assert all(reference.startswith("data:") for reference in parsed.references)
    assert "&lt;script&gt;" in page
    assert not re.search(r"<[^>]+\son\w+=", page)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", page)


def test_pictures_run_nothing(hostile: ReportData) -> None:
    """Labels in plots are text, and no formula."""
    for plot in (*plots.of_loads(hostile), *plots.of_trial(hostile, hostile.manifest.cells[0].id, "001")):
        tree = ET.fromstring(plot.standalone()[plot.standalone().index("<svg") :])
        assert not [element for element in tree.iter() if element.tag.endswith("script")]
    (system,) = plots.of_loads(hostile)
    assert ">$\\frac</text>" in system.svg


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("$x$ &lt;b&gt;", r"\$x\$ \&lt;b\&gt;"),
        ("https://a.example www.b.example", "https:&#8203;//a.example www.&#8203;b.example"),
        ("a\x1b[31m", "a\ufffd\\[31m"),
        ("2.5 ms", "2.5 ms"),
        ("`run http://a:80` www.b.c", "`run http://a:80` www.&#8203;b.c"),
    ],
)
def test_markdown_makes_nothing_of_signs(text: str, shown: str) -> None:
    """No formula, no character by its name, no link, no escape sequence."""
    assert markdown.escape(text) == shown


def test_junit_stays_well_formed(hostile: ReportData) -> None:
    """Control characters are replaced, markup is escaped."""
    suite = ET.fromstring(junit.render(hostile).split("\n", 1)[1])
    assert suite.get("name") == '<script>document.title="owned"</script>'


@pytest.mark.parametrize("width", [60, 300])
def test_terminal_shows_escapes_as_text(hostile: ReportData, width: int) -> None:
    """Escape sequences in errors, in names and in notes do not reach the terminal, brackets are no markup."""
    out = io.StringIO()
    cells = [again(cell, model="m\x1b[31m [bold]m[/bold]") for cell in hostile.manifest.cells]
    scored = again(cells[0], quality={"reason": "\x1b]0;owned\x07 \x9b31m"}, trials=[])
    named = replace(hostile, manifest=again(hostile.manifest, cells=[*cells, scored]))
    terminal.show(named, Console(file=out, width=width))
    assert not {"\x1b", "\x9b", "\x07"} & set(out.getvalue())
    assert "]]> $x^" in " ".join(out.getvalue().split())
    assert "[bold]m[/bold]" in out.getvalue()
