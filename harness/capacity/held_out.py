"""Held-out points: where a plan's predictions are tested, as the command is told, and the scenario to measure one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from zlib import crc32

from harness.capacity.measured import Candidate
from harness.errors import UsageError
from harness.store.manifest import TrialEntry
from harness.units import format_duration, parse_duration_s

KEYS = ("rate", "cv", "output", "replicas", "url", "for")
ALL = ("rate=0.85", "rate=1.15", "cv=2", "output=1.2")
"""Points that need no other server than the one that was measured."""
BOUNDS = {"rate": (0.05, 2.0), "cv": (0.05, 20.0), "output": (0.5, 2.0)}
"""Least and largest value: a plan is no claim about loads that are far from what was measured."""
SEARCH = "search"
"""`rate` of a point where the largest rate is searched for."""
SEARCH_FOR_S = 900.0
_POINTS = 1000  # seeds of the points of a run
_LENGTHS = ("value", "values", "mean", "sd", "median", "p95", "min", "max")
"""Keys of a distribution of lengths that are in tokens."""
_OF_A_SEARCH = frozenset({"within", "measure", "attainment", "width", "first_rate", "largest_rate"})


class Kind(StrEnum):
    """What a held-out point has that was not measured before."""

    REPLICAS = "replicas"
    MIX = "mix"
    BURSTINESS = "burstiness"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Point to predict and then to measure.

    Attributes:
        text: As the command was given it.
        rate: Factor on what the plan says that the replicas hold; None: search for the largest rate.
        cv: Coefficient of variation of the gaps between arrivals; None: arrivals as measured.
        output: Factor on the lengths of the replies.
        url: Address of the replicas; None: the server or engine that was measured.
        seconds: Length of the measurement; None: as measured, and `SEARCH_FOR_S` for a search.
    """

    text: str
    rate: float | None = 1.0
    cv: float | None = None
    output: float = 1.0
    replicas: int = 1
    url: str | None = None
    seconds: float | None = None

    @property
    def kind(self) -> Kind:
        if self.replicas > 1:
            return Kind.REPLICAS
        if self.output != 1:
            return Kind.MIX
        return Kind.RATE if self.cv is None else Kind.BURSTINESS


def is_point(text: str) -> bool:
    """Return whether a value of `--validate` is a held-out point, and not a stored run with its replicas."""
    return text == "all" or text.partition("=")[0] in KEYS


def points_of(text: str) -> list[HeldOut]:
    """Return the points of a value of `--validate`. Raises UsageError for what is none."""
    return [_point(one) for one in (ALL if text == "all" else (text,))]


def _point(text: str) -> HeldOut:
    given: dict[str, str] = {}
    for part in text.split(","):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if key not in KEYS or not sign or not value or key in given:
            raise _wrong(text, f"write KEY=VALUE once for each of {', '.join(KEYS[:-1])} and {KEYS[-1]}")
        given[key] = value
    found = HeldOut(
        text,
        None if given.get("rate") == SEARCH else _factor(given, "rate", text) or 1.0,
        _factor(given, "cv", text),
        _factor(given, "output", text) or 1.0,
        _replicas(given, text),
        given.get("url"),
        _seconds(given, text),
    )
    if found.rate is None and found.cv is not None:
        raise _wrong(text, f"the largest rate of burstier arrivals is not predicted; leave `cv` or `rate={SEARCH}` out")
    if found.replicas > 1 and found.url is None:
        raise _wrong(text, "several replicas have a balancer; add its address, such as `url=http://127.0.0.1:8080`")
    return found


def _factor(given: Mapping[str, str], key: str, text: str) -> float | None:
    if key not in given:
        return None
    low, high = BOUNDS[key]
    try:
        found = float(given[key])
    except ValueError:
        found = 0.0
    if not low <= found <= high:
        or_search = f" or `{SEARCH}`," if key == "rate" else ""
        raise _wrong(text, f"`{key}` is a number from {low:g} to {high:g},{or_search} such as `{key}=1.15`")
    return found


def _replicas(given: Mapping[str, str], text: str) -> int:
    number = given.get("replicas", "1")
    if not number.isdecimal() or not int(number):
        raise _wrong(text, "`replicas` is a whole number, such as `replicas=2`")
    return int(number)


def _seconds(given: Mapping[str, str], text: str) -> float | None:
    try:
        return parse_duration_s(given["for"]) if "for" in given else None
    except ValueError as error:
        raise _wrong(text, f"`for`: {error}") from None


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"--validate {text}: {why}")


def scenario_of(point: HeldOut, one: Candidate, rate_rps: float | None, earlier: int = 0) -> dict[str, Any]:
    """Return the scenario, as resolved, that measures a point: that of the candidate with another load and seed.

    Args:
        rate_rps: Requests per second to all replicas; None: a search for the largest rate.
        earlier: Measurements of this point that are kept; each has arrivals and prompts of its own.

    Raises UsageError if the candidate's scenario cannot be changed so.
    """
    assert one.capacity is not None
    trial = next(trial for _, trial in one.manifest.trials() if trial.load == one.capacity.load)
    given: dict[str, Any] = copy.deepcopy(dict(one.manifest.scenario))
    given |= {
        "name": f"{given.get('name') or one.manifest.name}-held-out",
        "load": [_load(point, one, trial, rate_rps)],
        "repetitions": 1,
    }
    if trial.workload:
        given["workload"] = trial.workload_in(given)
    given["seed"] += 1 + crc32(point.text.encode()) % _POINTS + _POINTS * earlier
    if point.output != 1:
        given["workload"] = given["workload"] | {"output_tokens": _longer(point, given)}
    if point.url is not None:
        given["engines"] = [_server(point.url, given)]
    return given


def _load(point: HeldOut, one: Candidate, trial: TrialEntry, rate_rps: float | None) -> dict[str, Any]:
    """Return the load of a point; what the measured load says of the workload stands there."""
    loads = one.manifest.scenario.get("load")
    if not isinstance(loads, list) or trial.index >= len(loads):
        raise _wrong(point.text, f"the engine of {one.run} has loads of its own; measure the point with `harness run`")
    without = {"name", "requests", "ramp", *trial.workload}
    load = {key: value for key, value in loads[trial.index].items() if key not in without}
    if point.cv is not None:
        load |= {"arrivals": "gamma", "cv": point.cv}
    return _search(point, load) if rate_rps is None else _sustained(point, load, rate_rps)


def _search(point: HeldOut, load: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in load.items() if key not in ("warmup", "duration", "rate", "max_concurrency")}
    return kept | {"kind": "saturate", "within": format_duration(point.seconds or SEARCH_FOR_S)}


def _sustained(point: HeldOut, load: dict[str, Any], rate_rps: float) -> dict[str, Any]:
    kept = {key: value for key, value in load.items() if key not in _OF_A_SEARCH}
    seconds = load.get("duration", load.get("measure")) if point.seconds is None else format_duration(point.seconds)
    if seconds is None:
        raise _wrong(point.text, "the measured load has no `duration`; add one, such as `for=5m`")
    warmup = {"warmup": "10s"} if load["kind"] == "saturate" else {}
    kind = "sustained" if load["kind"] == "saturate" else load["kind"]
    return kept | warmup | {"kind": kind, "rate": rate_rps, "duration": seconds}


def _longer(point: HeldOut, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lengths of the replies, made longer or shorter by the point's factor."""
    lengths = given["workload"].get("output_tokens")
    if given.get("classes") or not isinstance(lengths, dict):
        raise _wrong(
            point.text, "`output` needs a single `workload.output_tokens`; the requests have lengths elsewhere"
        )
    found = dict(lengths)
    for key in _LENGTHS:
        if key == "min" and found.get("dist") != "uniform":
            continue
        if isinstance(found.get(key), list):
            found[key] = [max(1, round(one * point.output)) for one in found[key]]
        elif found.get(key) is not None:
            found[key] = max(1, round(found[key] * point.output))
    return found


def _server(url: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine of an address: the measured one if that was a server, with its dialect and headers."""
    engines = given["engines"]
    known = dict(engines[0]) if len(engines) == 1 and engines[0]["engine"] == "http" else {"engine": "http"}
    for key in ("urls", "command", "metrics_urls"):
        known.pop(key, None)
    return known | {"url": url}
