"""Stored runs as sides by the value of a label: all runs of `branch=main` are starts of one side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from harness.comparison.comparison import check_alike
from harness.comparison.sides import Side, joined
from harness.errors import UsageError
from harness.scenario.base import near

PREFIX = "label:"


def by_label(
    sides: Sequence[Side], key: str, across: Collection[str] = frozenset()
) -> tuple[dict[str, Side], list[Side]]:
    """Return the runs of each value of a label as one side, in the order of the values, and the runs without it.

    Starts of a side are in the order in which they were made. Raises UsageError for fewer than two values, and if runs
    of a value differ in what must be the same.

    Args:
        across: Kinds of differences that are meant, see `differences.MUST_MATCH`.
    """
    groups: dict[str, list[Side]] = {}
    without = []
    for side in sides:
        value = (side.manifest.labels or {}).get(key)
        if value is None:
            without.append(side)
        else:
            groups.setdefault(str(value), []).append(side)
    if not groups:
        known = dict.fromkeys(str(name) for side in sides for name in side.manifest.labels or {})
        hint = near(key, known) if known else "the runs have no labels; give them some with `--label KEY=VALUE`"
        raise UsageError(f"--by {PREFIX}{key}: no run has this label; {hint}")
    if len(groups) < 2:
        only = f"all runs that have it are {key}={next(iter(groups))}"
        raise UsageError(f"--by {PREFIX}{key}: {only}; there is nothing to compare")
    return {value: _one(f"{key}={value}", own, across) for value, own in groups.items()}, without


def _one(name: str, sides: Sequence[Side], across: Collection[str]) -> Side:
    """Return the runs of a value as one side."""
    if len(sides) == 1:
        return replace(sides[0], name=name)
    check_alike(name, sides, across)
    return joined(name, sorted(sides, key=lambda side: side.manifest.created_utc or ""))
