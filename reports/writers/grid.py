"""Grid: as many columns of an overview as fit a terminal, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.cells import cell_len
from rich.text import Text

from reports.format import UNKNOWN, for_terminal, shortened_inside
from reports.tables.base import Cell, Table
from reports.tables.overview import Line, Overview

STYLES = {"good": "green", "bad": "bold red", "doubtful": "yellow", "": ""}
BETWEEN_GROUPS, BETWEEN = 3, 2
LONGEST_SHARE = 0.35
IN_LINE = 7  # highest rank of the figures in a line
SIGNS = "~*)"


@dataclass(frozen=True, slots=True)
class Column:
    """Column of the grid, its texts ready to print."""

    over: str
    head: str
    cells: tuple[Cell, ...]
    number: bool = True

    @property
    def width(self) -> int:
        """Width of the head's lower line and of the cells."""
        return max(cell_len(text) for text in (self.head, *(cell.text for cell in self.cells)))


def grid(found: Overview, width: int) -> list[Text]:
    """Return heads, rule and lines of the table; figures of the lowest rank come first until the width is used."""
    columns = fitted(found, width)
    return _drawn(columns, len(found.lines))


def grid_of_table(table: Table, width: int, left_out: Sequence[str], page: str = "report.html") -> list[Text]:
    """Return a table; columns without a value are missing, and without room those of `left_out`, in their order."""
    cells = [tuple(row[number] for row in table.rows) for number in range(len(table.head))]
    named = {
        name: _column(name, column, width, number=table.texts <= number < len(table.head) - table.remarks)
        for number, (name, column) in enumerate(zip(table.head, cells, strict=True))
        if any(cell.text not in ("", UNKNOWN) for cell in column)
    }
    known = len(named)
    for name in left_out:
        if total(list(named.values())) > width:
            named.pop(name, None)
    missing = known - len(named)
    more = [Text(f" {missing} more column{'' if missing == 1 else 's'} in {page}", style="dim")] if missing else []
    return [*_drawn(list(named.values()), len(table.rows)), *more]


def _column(name: str, cells: Sequence[Cell], width: int, *, number: bool) -> Column:
    """Return a column of a table, the head of a number in two lines: "speed, tokens/s", "size on disk"."""
    if not number:
        texts = _texts(name, [cell.text for cell in cells], width)
        return replace(
            texts, cells=tuple(replace(cell, text=text.text) for cell, text in zip(cells, texts.cells, strict=True))
        )
    over, comma, head = name.rpartition(", ")
    if not comma:
        over, _, head = name.rpartition(" ")
    return Column(over, head, tuple(cells))


def in_line(found: Overview, line: Line) -> list[str]:
    """Return the most important numbers of a line of the table, with their names: "TTFT p50 84.1 p95 95.0 ms"."""
    numbers = [number for number, one in enumerate(found.figures) if one.rank <= IN_LINE and line.cells[number].text]
    texts = []
    for over, members in groupby(numbers, lambda number: (found.figures[number].over, found.units[number])):
        pairs = ((found.figures[number].head, line.cells[number].text) for number in members)
        each = (f"{text} {head}" if "/" in head else f"{head} {text}" for head, text in pairs)
        texts.append(" ".join(part for part in (over[0], *each, over[1]) if part))
    return texts


def fitted(found: Overview, width: int) -> list[Column]:
    """Return the columns that fit: texts, the figures of lowest rank, then their intervals, and the marks."""
    places = _once([line.place for line in found.lines])
    texts = [_texts(head, [place[i] for place in places], width) for i, head in enumerate(found.heads)]
    marks = Column("", "", tuple(line.mark for line in found.lines), number=False)
    ends = [marks] if any(line.mark.text for line in found.lines) else []
    steps = sorted(
        [(one.rank, number, False) for number, one in enumerate(found.figures)]
        + [(one.spread, number, True) for number, one in enumerate(found.figures) if one.spread]
    )
    shown: dict[int, bool] = {}
    for _, number, spread in steps:
        if spread and number not in shown:
            continue
        wider = shown | {number: spread}
        columns = [*texts, *(_figure(found, one, wider[one]) for one in sorted(wider)), *ends]
        if not shown or total(columns) <= width:
            shown = wider
    return [*texts, *(_figure(found, number, shown[number]) for number in sorted(shown)), *ends]


def _once(places: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the names of configurations and loads, a configuration in the first of its lines only."""
    shown = []
    for before, place in zip([None, *places], places, strict=False):
        same = before is not None and before[:-1] == place[:-1]
        shown.append((*[""] * (len(place) - 1), place[-1]) if same else place)
    return shown


def total(columns: Sequence[Column]) -> int:
    """Return the width of the table."""
    return sum(_widths(columns)) + sum(map(len, _gaps(columns)))


def _texts(head: str, texts: Sequence[str], width: int) -> Column:
    longest = max(12, int(width * LONGEST_SHARE))
    return Column("", head, tuple(Cell(shortened_inside(for_terminal(text), longest)) for text in texts), number=False)


def _figure(found: Overview, number: int, spread: bool) -> Column:
    figure, unit = found.figures[number], found.units[number]
    cells = _aligned([line.cells[number] for line in found.lines])
    if spread:
        intervals = [f" [{one.detail.replace(' to ', ', ')}]" if one.detail else "" for one in cells]
        longest = max(map(len, intervals))
        cells = [
            Cell(f"{one.text}{text:<{longest}}", tone=one.tone) for one, text in zip(cells, intervals, strict=True)
        ]
    return Column(*figure.heads(unit), tuple(cells))


def _aligned(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with spaces instead of the signs that others have behind their digits."""
    behind = [len(cell.text) - len(cell.text.rstrip(SIGNS)) for cell in cells]
    return [
        replace(cell, text=cell.text + " " * (max(behind) - own)) if cell.text else cell
        for cell, own in zip(cells, behind, strict=True)
    ]


def _groups(columns: Sequence[Column]) -> list[list[int]]:
    """Return the numbers of neighbours with a common upper head."""
    numbers = range(len(columns))
    grouped = groupby(numbers, lambda number: columns[number].over or f" {number}")
    return [list(members) for _, members in grouped]


def _widths(columns: Sequence[Column]) -> list[int]:
    """Return the width of each column; a long upper head widens the first of its group."""
    widths = [column.width for column in columns]
    for first, *others in _groups(columns):
        have = widths[first] + sum(BETWEEN + widths[other] for other in others)
        widths[first] += max(0, cell_len(columns[first].over) - have)
    return widths


def _gaps(columns: Sequence[Column]) -> list[str]:
    """Return the space before each column."""
    begins = {members[0] for members in _groups(columns)}
    gaps = [" " * (BETWEEN_GROUPS if number in begins else BETWEEN) for number in range(len(columns))]
    return [" ", *gaps[1:]]


def _drawn(columns: Sequence[Column], lines: int) -> list[Text]:
    """Return rule, heads, rule-less lines and rule."""
    widths, gaps = _widths(columns), _gaps(columns)
    rule = Text("─" * total(columns), style="dim")
    over = Text("", style="dim")
    for members in _groups(columns):
        first = members[0]
        room = sum(widths[one] + len(gaps[one]) for one in members) - len(gaps[first])
        right = len(members) == 1 and columns[first].number
        over.append(gaps[first] + _padded(columns[first].over, room, right=right))
    heads, body = Text("", style="dim"), [Text("") for _ in range(lines)]
    for one, width, gap in zip(columns, widths, gaps, strict=True):
        heads.append(gap + _padded(one.head, width, right=one.number))
        for text, cell in zip(body, one.cells, strict=True):
            text.append(gap).append(_padded(cell.text, width, right=one.number), STYLES[cell.tone])
    for line in (over, heads, *body):
        line.rstrip()
    return [rule, *([over] if over.plain else []), heads, *body, rule]


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space
