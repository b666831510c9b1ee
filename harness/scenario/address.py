"""Scenario for a running server that only its address names: `harness run http://127.0.0.1:8000`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from harness.errors import UsageError
from harness.scenario.base import as_name
from harness.scenario.limits import parse_limit
from harness.units import parse_duration_s

LADDER = (1, 4, 16)  # users, where no load is stated
LADDER_S = 15.0
USUAL_TOKENS = 128
DURATION_S = 60.0
LONGEST_WARMUP_S = 10.0
WARMUP_SHARE = 0.2  # of the duration, before it
_ADDRESS = re.compile(r"(https?|http\+unix|unix):", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Return True for the address of a server, False for the path or name of a scenario."""
    return _ADDRESS.match(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Load and limits that options of the command state; None or empty: not stated.

    Attributes:
        rate: Requests per second, several separated by commas; one load for each.
        users: Numbers of users at a time, alike.
        max_concurrency: Most requests in flight beside a rate, alike.
        prompt_tokens, output_tokens: Lengths of the requests, alike.
        retries: How often a failed request is sent again.
        duration: Time to measure each load, such as 60s.
        limits: Limits as a scenario writes them.
        api_key_env: Environment variable with the key.
    """

    rate: str | None = None
    users: str | None = None
    max_concurrency: str | None = None
    retries: int | None = None
    duration: str | None = None
    prompt_tokens: str | int | None = None
    output_tokens: str | int | None = None
    limits: Sequence[str] = ()
    dialect: str | None = None
    served_model: str | None = None
    api_key_env: str | None = None

    @property
    def stated(self) -> list[str]:
        """Options of the command that are stated."""
        names = {"limits": "limit"}
        given = [names.get(one.name, one.name) for one in fields(self) if getattr(self, one.name) not in (None, (), [])]
        return [f"--{name.replace('_', '-')}" for name in given]


def scenario_text(url: str, dialect: str, served_model: str | None, wanted: Wanted) -> str:
    """Return the scenario as YAML: a short ladder of users where no load is stated.

    Raises UsageError, naming the option, for a value that is none.
    """
    engine: dict[str, object] = {"engine": "http", "url": url, "dialect": dialect}
    engine |= {"served_model": served_model} if served_model is not None else {}
    engine |= {"api_key_env": wanted.api_key_env} if wanted.api_key_env is not None else {}
    lines = [f"name: {_quoted(as_name(url.partition('://')[2]) or 'server')}", "engines:", f"  - {_flow(engine)}"]
    lengths = {"prompt_tokens": wanted.prompt_tokens, "output_tokens": wanted.output_tokens}
    asked = {name: _lengths(name, given) for name, given in lengths.items()}
    loads = _loads(wanted, {name: several for name, several in asked.items() if len(several) > 1})
    lines += [
        f"workload: {_flow({name: several[0] for name, several in asked.items()})}",
        "load:",
        *(f"  - {one}" for one in loads),
    ]
    limits = [_limit(one) for one in wanted.limits]
    return "\n".join([*lines, *(["limits:", *(f"  - {_quoted(one)}" for one in limits)] if limits else [])]) + "\n"


def _lengths(name: str, given: str | int | None) -> list[float]:
    return [USUAL_TOKENS] if given is None else _numbers(f"--{name.replace('_', '-')}", str(given), whole=True)


def _loads(wanted: Wanted, lengths: Mapping[str, list[float]]) -> Iterator[str]:
    """Yield one load for the rates and one for the users; each takes the lengths, warm-up and duration."""
    rates = None if wanted.rate is None else _numbers("--rate", wanted.rate)
    users = None if wanted.users is None else _numbers("--users", wanted.users, whole=True)
    caps = None if wanted.max_concurrency is None else _numbers("--max-concurrency", wanted.max_concurrency, whole=True)
    if caps is not None and rates is None:
        raise UsageError("--max-concurrency goes with --rate; --users have one request each in flight")
    usual_s = DURATION_S
    if rates is None and users is None:
        users, usual_s = [*LADDER], LADDER_S
    measured_s = usual_s if wanted.duration is None else _seconds(wanted.duration)
    warmup_s = min(LONGEST_WARMUP_S, WARMUP_SHARE * measured_s)
    times: dict[str, object] = {"warmup": f"{warmup_s:g}s", "duration": f"{measured_s:g}s"}
    times |= {"retries": wanted.retries} if wanted.retries is not None else {}
    for stated in ({"rate": rates, "max_concurrency": caps}, {"users": users}):
        load = {name: values[0] if len(values) == 1 else values for name, values in stated.items() if values}
        if load:
            yield _flow({"kind": "sustained", **load, **lengths, **times})


def _numbers(option: str, text: str, *, whole: bool = False) -> list[float]:
    try:
        return [(int if whole else float)(one) for one in text.split(",")]
    except ValueError:
        example = "4 or 1,4,16" if whole else "2 or 1,2,4.5"
        raise UsageError(
            f"{option} {text}: write one number, or several separated by commas, such as {example}"
        ) from None


def _seconds(text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"--duration: {error}") from error


def _limit(text: str) -> str:
    try:
        parse_limit(text)
    except ValueError as error:
        raise UsageError(f"--limit: {error}") from error
    return text


def _flow(values: Mapping[str, object]) -> str:
    """Return a mapping in one line; texts are quoted where YAML or a reader might take them for something else."""
    return "{" + ", ".join(f"{key}: {_shown(value)}" for key, value in values.items()) + "}"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int):
        return str(value)
    return f"[{', '.join(map(_shown, value))}]" if isinstance(value, list) else f"{value:g}"


def _quoted(text: str) -> str:
    """Return a text as YAML; a plain word as it is."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*|[0-9.]+s", text) and text.lower() not in ("true", "false", "null")
    return text if plain else json.dumps(text.replace("${", "$${"), ensure_ascii=False)
