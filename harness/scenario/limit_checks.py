"""Mistakes between limits or margins and the rest of a scenario: those that nobody could ever check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import Problem
from harness.metrics import COSTS, QUALITY, find
from harness.scenario.base import near
from harness.scenario.engines import EngineBlock
from harness.scenario.limits import Limit, Slo, override, parse_limit
from harness.scenario.loads.kinds import Load
from harness.scenario.margins import margin_of
from harness.scenario.model import Scenario

_NEED_SLO = ("attainment", "goodput_rps", "energy_j_per_good_request", "cost_per_1k_requests_usd")


@dataclass(frozen=True, slots=True)
class _Trial:
    """An engine block under a load, with the load's key in the file."""

    place: str
    block: EngineBlock
    load: Load


def limit_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield the limits that name a class, an SLO, a reference or a variant which some of their trials lack."""
    trials = list(_trials(scenario))
    yield from _searches_for_nothing(scenario, trials)
    for key, texts, under in _limits(scenario, trials):
        for i, limit in enumerate(map(parse_limit, texts)):
            why = (
                _class_problem(limit, scenario, under)
                or _slo_problem(limit, scenario, under)
                or _search_problem(limit, scenario, under)
                or _quality_problem(limit, scenario)
                or _base_problem(limit, under)
                or _price_problem(limit, scenario)
            )
            if why:
                yield Problem(why, key=f"{key}.{i}")


def _searches_for_nothing(scenario: Scenario, trials: Sequence[_Trial]) -> Iterator[Problem]:
    """Yield the searches for the largest rate that have no SLO to keep."""
    for place, load in {one.place: one.load for one in trials}.items():
        slos = [scenario.slo.overridden_by(load.slo), *(one.slo for one in scenario.classes.values() if one.slo)]
        if load.kind == "saturate" and not any(map(_is_set, slos)):
            why = "`kind: saturate` needs an `slo` to keep; write for example `slo: {ttft: 500ms}`"
            yield Problem(why, key=place)


def gate_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield the margin of a gate on quality that nothing measures."""
    section = scenario.compare
    if section is None or scenario.quality is not None:
        return
    if section.quality is not None:
        yield Problem("needs `quality`; write `quality: {}` beside `compare`", key="compare.quality")
    for name in section.margins:
        if margin_of(name, section.margins[name]).of_quality:
            yield Problem("needs `quality`; write `quality: {}` beside `compare`", key="compare.margins")


def _trials(scenario: Scenario) -> Iterator[_Trial]:
    for i, block in enumerate(scenario.engines):
        beginning = "load" if block.load is None else f"engines.{i}.load"
        for j, load in enumerate(scenario.load if block.load is None else block.load):
            yield _Trial(f"{beginning}.{j}", block, load)


def _limits(scenario: Scenario, trials: Sequence[_Trial]) -> Iterator[tuple[str, Sequence[str], list[_Trial]]]:
    """Yield the key of each list of limits, its limits, and the trials that it applies to."""
    yield "limits", scenario.limits, list(trials)
    for place, load in {one.place: one.load for one in trials}.items():
        yield f"{place}.limits", load.limits, [one for one in trials if one.place == place]


def _class_problem(limit: Limit, scenario: Scenario, under: Sequence[_Trial]) -> str | None:
    if limit.class_name not in scenario.classes or any(one.load.mixes_classes for one in under):
        return None
    return f"no load here has the class `{limit.class_name}`; write `kind: mixed`, or leave `{limit.class_name}.` out"


def _slo_problem(limit: Limit, scenario: Scenario, under: Sequence[_Trial]) -> str | None:
    if limit.metric not in _NEED_SLO or all(_has_slo(limit, scenario, one.load) for one in under):
        return None
    return f"`{limit.metric}` needs an `slo`; write for example `slo: {{ttft: 500ms}}`"


def _search_problem(limit: Limit, scenario: Scenario, under: Sequence[_Trial]) -> str | None:
    """Return why a limit makes no requirement of a search for the largest rate: it asks for all requests, or none."""
    if limit.metric != "attainment" or limit.op[0] != ">" or 0 < limit.value < 1 or limit.class_name or limit.base:
        return None
    searches = [one.load for one in under if one.load.kind == "saturate"]
    if not any(limit in map(parse_limit, override(scenario.limits, one.limits)) for one in searches):
        return None
    why = "no number of requests shows 100 %" if limit.value else "every rate keeps it"
    return f"{why}; write `attainment >= {'99.9%' if limit.value else '95%'}`"


def _has_slo(limit: Limit, scenario: Scenario, load: Load) -> bool:
    """Return whether the requests of a limit have an SLO under a load; True if the load has none of its class."""
    if not load.mixes_classes:
        return limit.class_name in scenario.classes or _is_set(scenario.slo.overridden_by(load.slo))
    named = [one for name, one in scenario.classes.items() if limit.class_name in (None, name)]
    return _is_set(scenario.slo.overridden_by(load.slo)) or any(one.slo and _is_set(one.slo) for one in named)


def _is_set(slo: Slo) -> bool:
    return any(value is not None for _, value in slo)


def _quality_problem(limit: Limit, scenario: Scenario) -> str | None:
    metric = find(limit.metric)
    if metric is None or metric.name not in QUALITY or scenario.quality is not None:
        return None
    return f"`{limit.metric}` needs `quality`; write `quality: {{}}`"


def _price_problem(limit: Limit, scenario: Scenario) -> str | None:
    if limit.metric not in COSTS or scenario.instance is not None:
        return None
    return f"`{limit.metric}` needs the machine's price; name it, such as `instance: g5.xlarge`"


def _base_problem(limit: Limit, under: Sequence[_Trial]) -> str | None:
    """Return why a limit refers to no variant of the same engine, quantization and load."""
    lacking = next((one.block for one in under if limit.base not in one.block.variants), None)
    if limit.base is None or lacking is None:
        return None
    if lacking.variants:
        return f"`{lacking.engine}` has no variant `{limit.base}`; {near(limit.base, lacking.variants)}"
    return f"`{lacking.engine}` has no `variants`, and so no `{limit.base}`; add them, or write a number"
