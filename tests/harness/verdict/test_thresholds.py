"""The table of thresholds: one place, and the pages say what the code does."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.verdict import thresholds
from harness.verdict.reason import Level
from harness.verdict.thresholds import GRADES, PAGES, TABLE, Criterion, Threshold, inserted, path_of

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "harness").rglob("*.py"))
MOST = Threshold("client", "late", "x", "ms", 1.0, 5.0)
WRITTEN_SHORT = {"abs(value) >= 999.5", "0.1 <= number < 100", "seconds >= 10", "seconds < 120", "rate >= 1000"}
LEAST = Threshold("client", "few", "x", "share", 0.99, 0.5, below=True)


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_say_what_the_code_does(name: str) -> None:
    """The tables stand in docs as they are; `python -m harness.verdict.thresholds` writes them there."""
    marked, made = PAGES[name]
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert inserted(page, marked, made()) == page


def test_each_is_listed_once_and_named_where_it_is_used() -> None:
    """The modules that the table names compare with it, and no others."""
    named = {name: one for name, one in vars(thresholds).items() if isinstance(one, Threshold | Criterion)}
    assert len({one.subject for one in TABLE}) == len(TABLE) == len(named)
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in SOURCES if path.stem != "thresholds"}
    for name, one in named.items():
        use = re.compile(rf"\b{name}\.\w|\bthresholds\.{name}\b")
        using = {path for path, text in texts.items() if name in text and use.search(text)}
        assert using == {path_of(used) for used in one.used.split(", ")}, name


def test_grades_go_from_the_best_to_the_worst() -> None:
    """The first that holds is the best."""
    assert [grade.kl for grade in GRADES] == sorted(grade.kl for grade in GRADES)


@pytest.mark.parametrize(
    ("one", "value", "level"),
    [
        (MOST, 1.0, Level.VALID),
        (MOST, 1.1, Level.WARN),
        (MOST, 5.0, Level.WARN),
        (MOST, 5.1, Level.INVALID),
        (MOST, math.nan, Level.VALID),
        (LEAST, 0.99, Level.VALID),
        (LEAST, 0.98, Level.WARN),
        (LEAST, 0.4, Level.INVALID),
        (LEAST, math.nan, Level.VALID),
        (Threshold("client", "few", "x", "", 2, below=True), 0, Level.WARN),
    ],
)
def test_levels(one: Threshold, value: float, level: Level) -> None:
    """Beyond, not at; what is not known speaks against nothing."""
    assert one.level(value) is level
    assert [reason.level for reason in one.reasons(value, "seen", "do")] == [level] * (level is not Level.VALID)


def test_a_page_without_marks_is_refused() -> None:
    """The table has its place."""
    with pytest.raises(ValueError, match="thresholds: begin"):
        inserted("# Page", "thresholds", "")


def defined(path: Path) -> Iterator[tuple[str, ast.expr]]:
    """The constants of a module."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield ast.unparse(target), node.value


def numbers(node: ast.AST) -> list[float]:
    """The numbers that are written out below a node."""
    found = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
    return [value for value in found if isinstance(value, int | float) and not isinstance(value, bool)]


@pytest.mark.parametrize("path", sorted((ROOT / "harness" / "verdict").glob("*.py")), ids=lambda path: path.stem)
def test_judgement_has_its_numbers_from_the_table(path: Path) -> None:
    """No other module of the verdict has a constant that is a number, or compares with one beside none and one;
    how many digits a text shows is no judgement.
    """
    if path.stem == "thresholds":
        return
    constants = {name: value for name, value in defined(path) if numbers(value)}
    assert set(constants) <= {"GIB", "LOOK_S"}, "state it in harness/verdict/thresholds.py"
    compared = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Compare)]
    literals = {
        ast.unparse(node)
        for node in compared
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Constant) and numbers(side) and side.value not in (0, 1)
    }
    assert literals <= WRITTEN_SHORT, "state it in harness/verdict/thresholds.py"


LEVELS_KNOWN = ("results.py", "capacity/measured.py")
"""Where results are put together, and where a trial that was not the planned load measures no capacity."""


def test_only_the_verdict_gives_reasons() -> None:
    """Elsewhere nothing is made that speaks against a trial; levels are known in few places."""
    for path in SOURCES:
        own, text = path.relative_to(ROOT / "harness").as_posix(), path.read_text()
        if not own.startswith("verdict/"):
            assert not re.search(r"\b(Reason|Threshold|Criterion|Grade)\(", text), own
            assert own == "cli/examination.py" or not re.search(r"\bCheck\(", text), own
            assert own in LEVELS_KNOWN or "verdict.reason" not in text, own
