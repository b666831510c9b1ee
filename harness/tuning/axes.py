"""Axes of a tuning, as `--over` writes them: a key of the engine with the values to try; pure."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from engines.secrets import looks_secret
from harness.errors import UsageError
from harness.scenario.base import near
from harness.scenario.engines import EngineBlock

EXAMPLE = "options.n_parallel=1,2,4"
MOST_CANDIDATES = 64
_KEY = re.compile(r"(?:engines\.\d+\.)?(?P<kind>options|env)\.(?P<name>.+)")
_FLAG = re.compile(r"--?[A-Za-z][\w.-]*")
_OPENING, _CLOSING = "[{", "]}"
_PLAN = (
    "load",
    "workload",
    "classes",
    "slo",
    "limits",
    "seed",
    "repetitions",
    "order",
    "telemetry",
    "budget",
    "request",
)
_ANSWER = ("model", "quantization", "quality", "served_model")


class Kind(StrEnum):
    """What an axis changes: an option of the engine, its environment, or a flag of the command that starts it."""

    OPTION = "options"
    VARIABLE = "env"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Axis:
    """Key of the engine with the values to try.

    Attributes:
        name: Below `options` or `env`; of a flag with its dashes.
        values: As written.
    """

    kind: Kind
    name: str
    values: tuple[str, ...]

    @property
    def key(self) -> str:
        """Key as a user writes it."""
        return self.name if self.kind is Kind.FLAG else f"{self.kind}.{self.name}"


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    """Return the axes of `--over`. Raises UsageError, one sentence, for a text that is none, or too many values."""
    if not texts:
        raise UsageError(f"name what to tune and its values: --over {EXAMPLE}")
    axes = [_parse(text) for text in texts]
    keys = [axis.key for axis in axes]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UsageError(f"--over {twice}: given twice; write all its values in one")
    if (count := math.prod(len(axis.values) for axis in axes)) > MOST_CANDIDATES:
        many = f"{len(axes)} keys make {count} combinations" if len(axes) > 1 else f"{count} values"
        raise UsageError(f"--over: {many}, and at most {MOST_CANDIDATES} are tried; leave out values")
    return axes


def settings(axes: Sequence[Axis]) -> Iterator[dict[str, str]]:
    """Yield every combination of the values by key, the last key changing fastest."""
    for values in itertools.product(*(axis.values for axis in axes)):
        yield dict(zip((axis.key for axis in axes), values, strict=True))


def _parse(text: str) -> Axis:
    key, equals, written = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UsageError(f"--over {text}: write KEY=VALUE,VALUE, such as {EXAMPLE}")
    values = [value.strip() for value in _split(written)]
    if "" in values:
        raise UsageError(f"--over {key}: a value is empty; write KEY=VALUE,VALUE, such as {EXAMPLE}")
    if len(values) < 2:
        raise UsageError(f"--over {key}: {values[0]} is one value; write two or more, such as {EXAMPLE}")
    if twice := next((value for value in values if values.count(value) > 1), None):
        raise UsageError(f"--over {key}: {twice} is given twice; write each value once")
    return Axis(*_named(key), tuple(values))


def _split(text: str) -> list[str]:
    """Return the values between commas; those within brackets or quotes separate nothing."""
    found, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        depth += not quote and (sign in _OPENING) - (sign in _CLOSING)
        if sign == "," and not depth and not quote:
            found.append("")
        else:
            found[-1] += sign
    return found


def _named(key: str) -> tuple[Kind, str]:
    """Return kind and name of a key. Raises UsageError for a key that tunes nothing."""
    if _FLAG.fullmatch(key):
        return Kind.FLAG, key
    if (match := _KEY.fullmatch(key)) is not None:
        if match["kind"] == Kind.VARIABLE and looks_secret(match["name"]):
            raise UsageError(f"--over {key}: secrets are not tuned; set it in the environment")
        return Kind(match["kind"]), match["name"]
    parts = [part for part in key.split(".") if part not in ("engines",) and not part.isdecimal()]
    first = parts[0] if parts else key
    if first in _PLAN:
        raise UsageError(f"--over {key}: this changes the requests, not the server; tune keys such as {EXAMPLE}")
    if first in _ANSWER:
        instead = "compare levels and models with `harness run` (docs/matrix.md)"
        raise UsageError(f"--over {key}: this changes the answers, not only their speed; {instead}")
    if first in ("options", "env"):
        raise UsageError(f"--over {key}: name an option below it, such as {EXAMPLE}")
    what = "only options, env and flags of the command are tuned"
    if first in EngineBlock.known_keys():
        raise UsageError(f"--over {key}: {what}, such as {EXAMPLE}")
    close = near(first, ("options", "env")) if len(parts) > 1 else f"write options.{key}"
    raise UsageError(f"--over {key}: {what}; {close}")


def with_flag(command: str, flag: str, value: str) -> str:
    """Return a command with the value of a flag replaced, or with the flag at its end."""
    written = re.compile(rf"(?<!\S){re.escape(flag)}(?P<between>=|\s+)(?P<value>'[^']*'|\"[^\"]*\"|(?:-\d|[^\s-])\S*)")
    if (match := written.search(command)) is not None:
        return f"{command[: match.start('value')]}{value}{command[match.end('value') :]}"
    return f"{command} {flag} {value}"


def label(given: Mapping[str, str]) -> str:
    """Return settings as people name a candidate: `n_parallel=4, --threads 2`."""
    return ", ".join(_named_value(key, value) for key, value in given.items())


def _named_value(key: str, value: str) -> str:
    if key.startswith("-"):
        return f"{key} {value}"
    return f"{key.removeprefix('options.').removeprefix('env.')}={value}"
