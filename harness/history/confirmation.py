"""Confirmation of a change: the gate of the builds on both sides of it, from the scenario of a night; pure.

A night's scenario can start another build if its command names a label of the run, as in `out/{label.commit}/serve`,
or if it has a variant for each value of the label.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from engines.process.placeholders import labels_in
from harness.comparison.change import Change
from harness.history.board import Alert
from harness.history.detector.states import State
from harness.history.detector.steps import BOTH_ENDS
from harness.history.series import Key, Series
from harness.metrics import METRICS, SCALAR
from harness.scenario.loads.kinds import load_names
from harness.scenario.margins import Scale, scale_of
from harness.scenario.model import Scenario

_OTHER_SECTIONS = ("compare", "quality")
"""Sections that would make a gate another comparison than that of the one number."""
_SMALLEST = 0.001
"""Least margin of a gate."""


def gate_options(alert: Alert, lead: Series, scenario: Scenario) -> list[str]:
    """Return the options of `harness run` that make a gate of both builds; none if they cannot be started.

    Exit code 5 of that gate says that the change is there: for an improvement the sides are swapped. Its margin is half
    of the least change that the nights agree with.

    Args:
        lead: Series that changed most.
        scenario: Scenario of a night.
    """
    swapped = alert.state is State.IMPROVED
    suspects = {
        name: (after, before) if swapped else (before, after)
        for name, before, after in alert.suspects
        if before and after
    }
    margin = "" if alert.change is None else _margin(lead, alert.change, swapped=swapped)
    sides = _by_label(suspects, lead.key, scenario) or _by_variant(suspects, lead.key, scenario)
    return [*sides, "--fail-on", margin] if sides and margin else []


def scenario_text(scenario: Scenario, key: Key) -> str:
    """Return the text of a scenario with the load of one series."""
    resolved = {name: value for name, value in scenario.resolved().items() if name not in _OTHER_SECTIONS}
    loads = [load for load, name in zip(resolved["load"], load_names(scenario.load), strict=True) if name == key.load]
    text = json.dumps(resolved | ({"load": loads} if loads else {}), indent=2)
    return text.replace("${", "$${")  # variables have been filled in already


def _by_label(suspects: Mapping[str, tuple[str, str]], key: Key, scenario: Scenario) -> list[str]:
    """Return the options that start both builds by the labels in the command."""
    named = [name for name in dict.fromkeys(_labels(key, scenario)) if name in suspects]
    sides = [  # not by `--label`, which holds for both sides
        word
        for name in named
        for option, value in zip(("--base-set", "--set"), suspects[name], strict=True)
        for word in (option, f"labels.{name}={json.dumps(value)}")
    ]
    return [*sides, *_only(key)] if named else []


def _labels(key: Key, scenario: Scenario) -> Iterator[str]:
    """Yield the labels in the commands of a series' engine."""
    for block in scenario.engines:
        if block.engine == key.engine:
            variant = block.variants.get(key.variant)
            command = block.command if variant is None or variant.command is None else variant.command
            yield from labels_in(command or "")


def _by_variant(suspects: Mapping[str, tuple[str, str]], key: Key, scenario: Scenario) -> list[str]:
    """Return the options that start both builds as variants, named as the values of a label."""
    variants = {name for block in scenario.engines if block.engine == key.engine for name in block.variants}
    for base, head in suspects.values():
        if {base, head} <= variants:
            return ["--against", base, *_only(replace(key, variant=head))]
    return []


def _only(key: Key) -> Sequence[str]:
    """Return the option that chooses the configuration of a series."""
    parts = {"engine": key.engine, "model": key.model, "quantization": key.level, "variant": key.variant}
    return "--only", ",".join(f"{name}={value}" for name, value in parts.items() if value)


def _logarithm(value: float, scale: Scale) -> float:
    """Return the logarithm of a ratio; a difference itself."""
    return value if scale is Scale.DIFFERENCE or not value > 0 else math.log(value)


def _margin(lead: Series, change: Change, *, swapped: bool) -> str:
    """Return half of the least change that the nights agree with, as a margin; "" without a margin of that kind.

    swapped: The gate compares the sides the other way around.
    """
    key, metric = lead.key, METRICS.get(lead.key.metric)
    least = min(change.interval(BOTH_ENDS), key=lambda end: abs(_logarithm(end, change.scale)))
    half = _logarithm(least, change.scale) / (-2 if swapped else 2)
    size = abs(half if change.scale is Scale.DIFFERENCE else math.expm1(half))
    if metric is None or scale_of(metric) is not change.scale or not math.isfinite(size):
        return ""
    name = " ".join((".".join(filter(None, (key.class_name, key.metric))), key.statistic)).removesuffix(f" {SCALAR}")
    unit = "pp" if change.scale is Scale.DIFFERENCE else "%"
    return f"{name} {'+' if lead.better == 'lower' else '-'}{100 * max(size, _SMALLEST):.2f}{unit}"
