"""What `harness run` was asked for: its options, and the command that repeats it."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

_KEY_OF_MAPPING = re.compile(r"""\b(?P<name>\w[\w-]*+)(?:["']\s*:|\s*:(?=\s|$))""")
_OF_VARIABLES = ("api_key_env", "headers_env")
"""Keys of the scenario that take names of environment variables."""


class Driver(StrEnum):
    """Load generators that `--driver` names."""

    INPROCESS = "inprocess"
    LOCUST = "locust"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Options of the command as they were typed; a command without one of them leaves it out."""

    scenario: str | None
    rate: str | None = None
    users: str | None = None
    max_concurrency: str | None = None
    retries: int | None = None
    duration: str | None = None
    prompt_tokens: str | int | None = None
    output_tokens: str | int | None = None
    limits: list[str]
    dialect: str | None = None
    served_model: str | None = None
    api_key_env: str | None = None
    out: Path | None
    sets: list[str]
    labels: list[str]
    only: str | None
    resume: str | None = None
    formats: list[str]
    exports: list[str]
    columns: str | None = None
    dry_run: bool
    quiet: bool
    as_json: bool
    yes: bool
    wait: str
    driver: Driver | None = None
    expect_workers: int = 0
    workers_within: str = "2m"
    master_bind_host: str = "127.0.0.1"
    master_bind_port: int = 5557
    against: str | None = None
    base_sets: list[str] = field(default_factory=list)
    base_url: str | None = None
    base_command: str | None = None
    base_python: str | None = None
    pairs: str | None = None
    budget: str | None = None
    fail_on: list[str] = field(default_factory=list)
    inconclusive: str | None = None
    across: list[str] = field(default_factory=list)
    alternate: bool = False
    web: bool = False
    cache_audit: bool = False

    @property
    def of_url(self) -> dict[str, Any]:
        """Options for a server by its address (`Wanted`)."""
        load = ("rate", "users", "max_concurrency", "retries", "duration")
        names = (*load, "prompt_tokens", "output_tokens", "limits", "dialect", "served_model", "api_key_env")
        return {name: getattr(self, name) for name in names}

    @property
    def changes(self) -> dict[str, Any]:
        """Other options that change the scenario or its run, by their names."""
        found = {"--out": self.out, "--set": self.sets, "--label": self.labels, "--only": self.only}
        return {**found, "--columns": self.columns, "--driver": self.driver}


def command_line() -> str:
    """Return the command that repeats this run; values that `--set` gives to a secret's name are left out."""

    def shown(argument: str) -> str:
        option, sign, value = argument.partition("=")
        if sign and option.startswith("--"):
            return f"{option}={without_secret(value)}"
        return without_secret(argument)

    return shlex.join(["harness", *map(shown, sys.argv[1:])])


def without_secret(text: str) -> str:
    """Return a `--set` without its value if a key of it, or a key of a mapping in the value, is a secret's name.

    The name of an environment variable is none, and stays.
    """
    from engines.secrets import MASK, looks_secret

    key, sign, value = text.partition("=")
    keys = key.split(".")
    if not sign or any(one in _OF_VARIABLES for one in keys[-2:]):
        return text
    inner = {one["name"] for one in _KEY_OF_MAPPING.finditer(value)}.difference(_OF_VARIABLES)
    return f"{key}={MASK}" if any(map(looks_secret, (*keys, *inner))) else text
