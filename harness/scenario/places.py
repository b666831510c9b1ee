"""Where a key belongs that stands in the wrong section, such as an option of an engine outside of `options`."""

from __future__ import annotations

import json
from difflib import get_close_matches

from engines import engine_class
from engines.base import EngineError, EngineSpec, ModelReference, UnknownOption
from harness.scenario.base import StrictModel
from harness.scenario.engines import EngineBlock
from harness.scenario.limits import Slo
from harness.scenario.loads.kinds import KINDS
from harness.scenario.model import Budget, Scenario, Telemetry
from harness.scenario.quality import Quality
from harness.scenario.workload import Sampling, Workload

_NO_OPTION = ""  # of any engine
_OF_ENGINES = (EngineBlock, "in a block of `engines`, as `engines: [{{engine: ..., {given}}}]`")
_OF_TOP = (Scenario, "at the top level, as `{given}`")
_OF_WORKLOAD = (Workload, "under `workload`, as `workload: {{{given}}}`")
_OF_SAMPLING = (Sampling, "under `sampling`, as `workload: {{sampling: {{{given}}}}}`")
_OF_LOADS = tuple((kind, f"in a load, as `load: [{{{{kind: {name}, {{given}}}}}}]`") for name, kind in KINDS.items())
_OF_OTHERS = (
    (Slo, "under `slo`, as `slo: {{{given}}}`"),
    (Quality, "under `quality`, as `quality: {{{given}}}`"),
    (Telemetry, "under `telemetry`, as `telemetry: {{{given}}}`"),
    (Budget, "under `budget`, as `budget: {{{given}}}`"),
)
_HOMES: tuple[tuple[type[StrictModel], str], ...] = (
    *(_OF_TOP, _OF_WORKLOAD, _OF_SAMPLING),
    *sorted(_OF_LOADS, key=lambda one: one[0] is not KINDS["sustained"]),
    *(_OF_ENGINES, *_OF_OTHERS),
)


def right_place(path: str, value: object, engines: tuple[str, ...]) -> str | None:
    """Return what to do with an unknown key that belongs elsewhere, as the end of a sentence; None if it does nowhere.

    Args:
        path: Dotted key as it stands, such as "engines.0.ttft_ms".
        engines: Name of the engine of that block, or of all of them for a key that stands in none.
    """
    section, _, key = path.rpartition(".")
    if key == "engine":
        return None  # `engines` is what is meant
    shown = value if isinstance(value, str) else json.dumps(value) if isinstance(value, bool | int | float) else "..."
    given = f"{key}: {shown}"
    of_engine = section.split(".")[0] in ("engines", "") and key not in EngineBlock.known_keys()
    if of_engine and any(key in options_of(name) for name in engines):
        return f"write it under `options` of the engine, as `options: {{{given}}}`"
    in_load = "load" in section.split(".")
    homes = (text for kind, text in _HOMES if key in kind.known_keys() and not (in_load and kind in KINDS.values()))
    home = next(homes, "").format(given=given)
    if home:
        return f"write it {home}"
    options = [option for name in engines for option in options_of(name)] if of_engine else []
    nearest = get_close_matches(key, [*EngineBlock.known_keys(), *options], n=1)
    return f"did you mean `{nearest[0]}` under `options` of the engine?" if {*nearest} & {*options} else None


def options_of(engine: str) -> tuple[str, ...]:
    """Return the names of an engine's own options; none if it does not tell."""
    try:
        engine_class(engine)(EngineSpec(engine, ModelReference("tiny"), options={_NO_OPTION: 0}))
    except UnknownOption as error:
        return error.known
    except EngineError:
        return ()
    return ()
