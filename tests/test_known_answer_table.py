"""The table of known answers in docs/known-answers.md names every such test, and every test named is there."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (\d+) \|.*\|(.*)\|$")
NAMED = re.compile(r"Known answers? (\d+)(?: and (\d+))?:")


def in_the_table() -> dict[str, set[int]]:
    """The numbers of each test, by `file::name`, as the page has them."""
    page = (ROOT / "docs" / "known-answers.md").read_text()
    table = page.split("<!-- known answers: begin -->")[1].split("<!-- known answers: end -->")[0]
    found: dict[str, set[int]] = defaultdict(set)
    for row in filter(None, map(ROW.match, table.splitlines())):
        for test in re.findall(r"`([^`]+)`", row[2]):
            found[test].add(int(row[1]))
    return dict(found)


def in_the_tests() -> dict[str, set[int]]:
    """The same as the first words of the tests' docstrings say."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            said = NAMED.match(ast.get_docstring(node) or "") if isinstance(node, ast.FunctionDef) else None
            if said is not None and isinstance(node, ast.FunctionDef):
                numbers = {int(number) for number in said.groups() if number}
                found[f"{path.relative_to(ROOT)}::{node.name}"] = numbers
    return found


def test_the_table_and_the_tests_agree() -> None:
    """Each way round: no number without a test, no such test that the page does not tell of."""
    assert in_the_table() == in_the_tests()


def test_all_are_there() -> None:
    """Twenty-two."""
    assert set().union(*in_the_table().values()) == {*range(1, 23)}
