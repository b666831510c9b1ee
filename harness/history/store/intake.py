"""Intake: the night of a stored run, or of a result of another tool."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.comparison.comparison import SHOWN
from harness.comparison.foreign.imports import import_labels
from harness.comparison.foreign.reading import files_of
from harness.comparison.measured import Measurement
from harness.comparison.opening import open_side
from harness.comparison.sides import Side
from harness.errors import UsageError
from harness.history.store.night import Night, Row, Setup, What, clean, digest
from harness.metrics import SCALAR
from harness.scenario.limits import is_split
from harness.store.manifest import METHOD, Machine, Manifest

Selection = Collection[tuple[str, str]]
"""Metrics and statistics."""
UNKNOWN_MACHINE = "unknown"
OF_SLO = ("attainment", "goodput_rps")
"""Metrics whose meaning depends on the SLO."""
_GIB = 2**30
_MACHINE = ("cpu", "cores", "usable_cores", "memory_bytes", "memory_limit_bytes", "architecture", "gpus")
"""Facts of the hardware; another list would split all series."""
_GPU_FACTS = (
    *("persistence", "ecc", "mig", "power_limit_w", "sm_clock_max_mhz", "memory_clock_max_mhz"),
    *("sm_clock_set_mhz", "memory_clock_set_mhz", "pcie_generation_max", "pcie_width_max"),
)
_NOISE_WORDS = re.compile(r"\((r|tm)\)|\b(intel|amd|cpu|processor|\d+-core|@.*)\b|@.*", re.IGNORECASE)


def night_of(
    name: str,
    selection: Selection = (),
    labels: Mapping[str, str] | None = None,
    *,
    at: datetime | None = None,
    scenario: str | None = None,
) -> Night:
    """Return the night of a run.

    Args:
        name: As `open_side` reads it: folder, name, age or label of a run or an import, or a file of another tool.
        selection: Further numbers beside SHOWN.
        labels: Labels to add.
        at: When it ran, if it is a result of another tool that does not say.
        scenario: Name of the scenario of a result of another tool.

    Raises UsageError for a run that is not over, measured nothing, or does not say when it ran; RunUnreadable.
    """
    side = open_side(name, {one for one in selection if one[1] != SCALAR})
    manifest = side.manifest
    if manifest.status == "running":
        raise UsageError(f"{side.path} is not over: `harness run --resume {side.path}` measures the rest")
    rows = tuple(row for one in side.measurements for row in _rows(side, one, {*SHOWN, *selection}))
    if not rows:
        raise UsageError(f"{side.path} measured nothing, so it has no number for the history")
    tool = "" if side.origin is None else side.origin.tool
    given = {clean(key): clean(value) for key, value in {**_labels(side), **(labels or {})}.items()}
    return Night(
        at=_begin(side, at),
        run=_run_name(side),
        identity=_identity(side),
        scenario=manifest.name if not tool else scenario or tool,
        machine=machine_id(manifest.provenance.must_match) or given.get("machine", UNKNOWN_MACHINE),
        method=METHOD,
        rows=rows,
        labels=given,
        state=state_of(manifest),
        sessions=max(1, len(manifest.sessions)),
        tool=tool,
        harness_version=str(manifest.harness_version or ""),
    )


def machine_id(facts: Machine) -> str:
    """Return the identity of the hardware: readable words and a hash; "" if nothing is known.

    Memory counts in whole GiB: the system of the same machine takes a little more or less of it after an update.
    """
    known = {name: value for name in _MACHINE if (value := getattr(facts, name)) not in (None, "", [])}
    if not known:
        return ""
    if facts.memory_bytes:
        known["memory_bytes"] = round(facts.memory_bytes / _GIB)
    gpus = [str(one.get("name", "gpu")) if isinstance(one, dict) else str(one) for one in facts.gpus]
    words = [f"{len(gpus)}x {gpus[0]}"] if gpus else []
    words += [
        " ".join(_NOISE_WORDS.sub(" ", facts.cpu or "").split()[:3]),
        str(facts.usable_cores or facts.cores or ""),
    ]
    text = re.sub(r"[^a-z0-9.]+", "-", " ".join(words).lower()).strip("-")
    return f"{text[:40].strip('-')}-{digest(known)[:6]}".strip("-")


def state_of(manifest: Manifest) -> dict[str, str]:
    """Return the facts of the machine that can change on the same hardware; unknown ones are left out."""
    context = manifest.provenance.context
    found = {name: context.get(name) for name in ("governor", "kernel")}
    gpus = context.get("gpus")
    if isinstance(gpus, dict):
        found |= {f"GPU {name}": gpus.get(name) for name in ("driver", "cuda")}
        cards = gpus.get("gpus")
        for card in filter(_is_mapping, cards if isinstance(cards, list) else []):
            found |= {f"GPU {card.get('index', 0)} {name}": card.get(name) for name in _GPU_FACTS}
    return {name: str(value) for name, value in found.items() if value not in (None, "", "unknown")}


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict)


def _rows(side: Side, one: Measurement, selection: Selection) -> Iterator[Row]:
    """Yield the numbers of a measurement, of all and of each class; an end of an interval that is open is unknown."""
    model, engine, level, variant, load = one.keys
    for (class_name, metric, statistic), number in one.pooled.items():
        if (metric, statistic) not in selection or is_split(class_name):
            continue
        named = "" if class_name == "all" else class_name
        value, low, high = (one if math.isfinite(one) else math.nan for one in (number.value, number.low, number.high))
        doubt = one.poor_because(metric) or ("" if math.isfinite(value) else "only a bound is known")
        what = What(load, named, metric, statistic, model, engine, level, variant)
        figure = (class_name, metric, statistic)
        yield Row(what, value, low, high, one.n[figure], len(one.starts), doubt, _setup(side, one, metric))


def _setup(side: Side, one: Measurement, metric: str) -> Setup:
    cell, trial, info = one.cell, one.trial, one.cell.engine_info
    version = side.origin.version if side.origin is not None else info.version
    return Setup(
        plan=_plan(side, one),
        slo=json.dumps([trial.slo, trial.class_slo], sort_keys=True) if metric in OF_SLO else "",
        clock="" if trial.client is None else trial.client.clock or "",
        driver=trial.driver or "",
        weights=(info.model_hash or "")[:12] if cell.level in (None, info.level) else "",
        version=" ".join(filter(None, (info.name or cell.engine, version))) if version else "",
        options=_options(info.options),
    )


def _options(options: Mapping[str, Any]) -> str:
    """Return options as JSON. A server that we start has another free port each night, which is no change of it."""
    kept = {name: value for name, value in options.items() if name != "url" or not options.get("command")}
    return json.dumps(kept, sort_keys=True, default=str) if kept else ""


def _plan(side: Side, one: Measurement) -> str:
    """Return the hash of the plan of each repetition. That of another tool is what its file says of the load."""
    if side.origin is not None:
        loads = side.manifest.scenario.get("load")
        own = loads[one.trial.index] if isinstance(loads, list) and one.trial.index < len(loads) else None
        return f"1:{digest(own)[:12]}"
    plans = {start.cell.repetition: start.trial.plan_hash for start in one.starts if start.trial.plan_hash}
    return " ".join(f"{repetition}:{plan[:12]}" for repetition, plan in sorted(plans.items()))


def _begin(side: Side, given: datetime | None) -> datetime:
    """Return when a run began. Raises UsageError if neither it nor the user says so."""
    text = side.manifest.created_utc
    try:
        found = given if text is None or (given and side.origin) else datetime.fromisoformat(text)
    except ValueError:
        found = given
    if found is None:
        raise UsageError(f"{side.path} does not say when it ran; add --at, such as --at 2026-11-30")
    return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)


def _labels(side: Side) -> Mapping[str, Any]:
    return side.manifest.labels if side.origin is None else import_labels(side.path.parent)


def _run_name(side: Side) -> str:
    """Return the name of a run: of its folder, or of the file of another tool."""
    return side.path.name if side.origin is not None else Path(side.path).resolve().name


def _identity(side: Side) -> str:
    """Return a hash that is the same wherever the run is stored, and however often it was resumed."""
    if side.origin is not None:
        return digest(sorted(digest(file.read_bytes().hex()) for file in files_of(side.path)))
    manifest = side.manifest
    trials = [[cell.id, trial.id, trial.seed] for cell, trial in manifest.trials()]
    return digest([manifest.name, manifest.created_utc, manifest.provenance.must_match.stored(), _sorted(trials)])


def _sorted(trials: Sequence[Sequence[Any]]) -> list[str]:
    return sorted(map(str, trials))
