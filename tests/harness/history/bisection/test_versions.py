"""Versions between a good and a bad one: commits along first parents, or lines of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.history.bisection.versions import Version, of_file, of_git
from tests.repository import commit, git, repository


def test_commits_along_first_parents(tmp_path: Path) -> None:
    """The good one first; commits of a merged branch are not steps of their own, whatever their subjects contain."""
    folder = repository(tmp_path)
    first = commit(folder, "speed", "1", "First")
    second = commit(folder, "speed", "2", "Second: a\ttab, \u2028 and another line")
    git(folder, "checkout", "-q", "-b", "side", first)
    commit(folder, "other", "1", "Aside")
    git(folder, "checkout", "-q", "main")
    git(folder, "merge", "-q", "--no-ff", "-m", "Merge side", "side")
    merged = git(folder, "rev-parse", "HEAD")
    assert of_git(folder, first[:10], "main") == [
        Version(first, "First"),
        Version(second, "Second: a\ttab, \u2028 and another line"),
        Version(merged, "Merge side"),
    ]
    assert Version(first).short == first[:10]


def test_what_is_no_range_is_a_sentence(tmp_path: Path) -> None:
    """Unknown names, the wrong order, equal ends, no repository."""
    folder = repository(tmp_path)
    first, second = (commit(folder, "speed", text, text) for text in ("1", "2"))
    for good, bad, sentence in (
        (second, first, "is not an ancestor of"),
        (first, first, "are the same commit"),
        (first, "nobody", "git rev-parse: "),
        ("--output=x", second, "git rev-parse: "),
    ):
        with pytest.raises(UsageError, match=sentence):
            of_git(folder, good, bad)
    with pytest.raises(UsageError, match="not a git repository"):
        of_git(tmp_path.parent, first, second)


def test_lines_of_a_file(tmp_path: Path) -> None:
    """Comments and empty lines are left out; what lies outside of both ends, too."""
    path = tmp_path / "steps"
    path.write_text("# oldest first\nb1\n\nb2\nv3.1-rc+x\nb4\n")
    assert of_file(path, "b2", "b4") == [Version("b2"), Version("v3.1-rc+x"), Version("b4")]
    for good, bad, sentence in (
        ("b4", "b2", "has b4 before b2|has b2 before b4"),
        ("b2", "b5", "has b5 0 times"),
    ):
        with pytest.raises(UsageError, match=sentence):
            of_file(path, good, bad)
    path.write_text("b1\nb2; rm -rf x\n")
    with pytest.raises(UsageError, match=r"steps:2: 'b2; rm -rf x' is no version"):
        of_file(path, "b1", "b2")
    with pytest.raises(UsageError, match="No such file"):
        of_file(tmp_path / "none", "a", "b")
