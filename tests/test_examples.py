"""docs/examples.md shows what its commands print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples import PAGE, outputs, parts, words

PARTS = parts(PAGE.read_text(encoding="utf-8"))
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("part", sorted(PARTS))
def test_the_outputs_are_those_of_the_commands(part: str, tmp_path: Path) -> None:
    """In virtual time character by character; behind a real server the same words, in other figures."""
    for example, printed in outputs(PARTS[part], tmp_path, ("exact", "alike")):
        if example.how == "exact":
            assert printed == example.output, example.commands
        else:
            assert words(printed) == words(example.output), example.commands


def test_every_output_says_how_it_was_made() -> None:
    """A test, or the date and the machine at the top of the page, stand for each."""
    examples = [one for listed in PARTS.values() for one in listed]
    assert {one.how for one in examples} == {"exact", "alike", "made"}
    assert all(one.commands and one.output for one in examples)
