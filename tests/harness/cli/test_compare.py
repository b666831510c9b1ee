"""One baseline against several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harness.cli.commands.compare import _each
from harness.errors import RunUnreadable, UsageError


class Sides:
    """Reads and compares runs by their names: "damaged" cannot be read, nor "other" be compared."""

    def prepare(self, names: Sequence[str]) -> None:
        """Derive nothing."""

    def opened(self, name: str) -> str:
        """Return the name."""
        if name == "damaged":
            raise RunUnreadable("damaged cannot be read")
        return name

    def compared(self, base: str, head: str) -> str:
        """Return both names."""
        if head == "other":
            raise UsageError(f"{base} and {head} are not comparable")
        return f"{base} {head}"


def test_one_of_several_runs_that_is_not_comparable_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    """As one that cannot be read: the others are compared, and its error decides the exit code."""
    how: Any = Sides()
    found, skipped = _each("main", ["a", "other", "damaged", "b"], how)
    assert [str(one) for one in found] == ["main a", "main b"]
    assert [type(one) for one in skipped] == [UsageError, RunUnreadable]
    assert "harness: other is skipped: main and other are not comparable" in capsys.readouterr().err
    with pytest.raises(UsageError, match="not comparable"):
        _each("main", ["other"], how)
