"""Git repositories of a few commits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

WHO = {f"GIT_{role}_{what}": "t@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path, *arguments: str) -> str:
    """What git prints; settings of the user do not count."""
    env = {**os.environ, **WHO, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def repository(folder: Path) -> Path:
    """A new one, on `main`."""
    made = folder / "repository"
    made.mkdir()
    git(made, "init", "-q", "-b", "main")
    return made


def commit(folder: Path, name: str, text: str, subject: str) -> str:
    """A commit that writes a file; its hash."""
    (folder / name).write_text(text)
    git(folder, "add", name)
    git(folder, "commit", "-q", "--allow-empty", "-m", subject)
    return git(folder, "rev-parse", "HEAD")
