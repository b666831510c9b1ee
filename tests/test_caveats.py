"""The page about caveats: each doubt has its place, and quotes what the tool says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.caveats import EXAMPLES, example

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "caveats.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_page_quotes_the_sentence(code: str) -> None:
    """Under the heading of the code stands what the tool says of the example."""
    _, _, below = PAGE.partition(f"\n### {code}\n")
    assert below.strip().splitlines()[0] == f"> {example(code).sentence}"


def test_every_doubt_of_the_code_has_a_heading() -> None:
    """Codes of reasons that are no notes."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "harness" / "verdict").glob("*.py"))
    text = "\n".join(sources)
    headings = set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))
    named = set(re.findall(r'Reason\(\s*"(\w+)", (?:Level\.(?:WARN|INVALID)|level|worst)', text))
    assert named <= headings
    assert headings == {*EXAMPLES, "books", "hysteresis"}
