"""Versions between a good and a bad one, oldest first: commits of a repository, or the lines of a file."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

_NAME = re.compile(r"[\w.@:/+~^-]+")
_SHORT = 10


@dataclass(frozen=True, slots=True)
class Version:
    """Version of what is measured.

    Attributes:
        name: Hash of the commit, or the line of the file.
        subject: First line of the commit's message; "" if there is none.
    """

    name: str
    subject: str = ""

    @property
    def short(self) -> str:
        """Its name, a hash by its first digits."""
        return self.name[:_SHORT] if re.fullmatch(r"[0-9a-f]{40,64}", self.name) else self.name


def of_git(repository: Path, good: str, bad: str) -> list[Version]:
    """Return the good commit and those after it up to the bad one, along first parents.

    Raises UsageError if the good one is not an ancestor of the bad one, or if either is unknown.
    """
    ends = [_git(repository, "rev-parse", "--verify", "--end-of-options", f"{one}^{{commit}}") for one in (good, bad)]
    if ends[0] == ends[1]:
        raise UsageError(f"{good} and {bad} are the same commit; name two between which the number changed")
    if ends[0] != _git(repository, "merge-base", *ends):
        raise UsageError(f"{good} is not an ancestor of {bad}; name a good commit of the same line")
    line = ("log", "--first-parent", "--format=%H%x09%s")
    first = _git(repository, *line, "-1", ends[0])
    rest = _git(repository, *line, "--reverse", f"{ends[0]}..{ends[1]}")
    return [Version(*text.split("\t", 1)) for text in (first, *filter(None, rest.split("\n")))]


def _git(repository: Path, *arguments: str) -> str:
    """Return what git prints. Raises UsageError with its first line if it fails."""
    try:
        command = ["git", "-C", str(repository), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        why = "install git, or name the versions with --steps FILE"
        raise UsageError(f"cannot run git: {error.strerror}; {why}") from error
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
        raise UsageError(f"git {arguments[0]}: {lines[0].removeprefix('fatal: ')}; name commits of --repo {repository}")
    return ended.stdout.strip()


def of_file(path: Path, good: str, bad: str) -> list[Version]:
    """Return the lines of a file from the good version to the bad one.

    Raises UsageError if the file cannot be read, lacks one of them, or has a line that is no version.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"--steps {path}: {why}; name a file with a version a line") from error
    lines = [(number, text.strip()) for number, text in enumerate(texts, 1) if text.strip() and text[0] != "#"]
    for number, text in lines:
        if not _NAME.fullmatch(text):
            raise UsageError(f"{path}:{number}: {text!r} is no version; write letters, digits and . _ - + @ : / only")
    names = [text for _, text in lines]
    for name in (good, bad):
        if names.count(name) != 1:
            raise UsageError(f"{path} has {name} {names.count(name)} times; write each version once, oldest first")
    first, last = names.index(good), names.index(bad)
    if first >= last:
        raise UsageError(f"{path} has {bad} before {good}; write the oldest version first")
    return [Version(name) for name in names[first : last + 1]]
