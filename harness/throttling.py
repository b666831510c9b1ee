"""How long something held a GPU back while a trial measured, and what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import thresholds
from harness.gpu_gauges import SLOWED_DOWN, named
from harness.machine import SERVER
from harness.reasons import Level, Reason
from harness.texts import one_of
from harness.window import NS_PER_S, Window

if TYPE_CHECKING:
    import pandas as pd

MAX_GAP_NS = 2 * NS_PER_S


def throttling_facts(trial: Mapping[str, Any], window: Window, samples: pd.DataFrame) -> dict[str, Any]:
    """Per GPU: {share, reasons}. share: of the time read in the window with heat or a fault of power holding it back.

    reasons: share of each reason by its name, harmless ones too. samples: of the cell; each reading stands for the
    time until the next. GPUs that do not tell are absent.
    """
    t0_ns = trial.get("t0_ns")
    if t0_ns is None or not len(samples):
        return {}
    told = samples[one_of(samples["name"], ["throttle_reasons"]) & one_of(samples["scope"], [SERVER])]
    if not len(told):
        return {}
    told = told[told["source"].astype(str).str.startswith("gpu")].sort_values("at_ns", kind="stable")
    found = {}
    for source, readings in told.groupby(told["source"].astype(str), sort=True):
        at_ns = readings["at_ns"].to_numpy(dtype="float64") - t0_ns
        inside = window.holds(at_ns)
        if inside.any():
            until = np.append(at_ns[1:], window.end_ns)[inside].clip(max=window.end_ns)
            lasted = (until - at_ns[inside]).clip(0.0, MAX_GAP_NS)
            masks = readings["value"].to_numpy(dtype="float64")[inside].astype(np.int64)
            found[str(source)] = shares_of_time(masks, lasted)
    return found


def shares_of_time(
    masks: np.ndarray[Any, np.dtype[np.int64]], lasted: np.ndarray[Any, np.dtype[np.float64]]
) -> dict[str, Any]:
    """The facts of one GPU from its masks of reasons and how long each lasted."""
    weights = lasted / lasted.sum() if lasted.sum() > 0 else np.full(len(lasted), 1 / len(lasted))
    bits = [1 << place for place in range(int(np.bitwise_or.reduce(masks)).bit_length())]
    reasons = {named(bit)[0]: float(weights[(masks & bit) != 0].sum()) for bit in bits if (masks & bit).any()}
    return {"share": float(weights[(masks & SLOWED_DOWN) != 0].sum()), "reasons": reasons}


def throttling_reasons(facts: Mapping[str, Any] | None) -> Iterator[Reason]:
    """A GPU that was held back is what was measured, so it warns; beyond what compares, it says that, too."""
    told = (facts or {}).get("throttling") or {}
    held = {gpu: one for gpu, one in told.items() if thresholds.GPU_THROTTLED.level(one["share"]) is not Level.VALID}
    if not held:
        return
    worst = max(one["share"] for one in held.values())
    each = "; ".join(f"{gpu} for {one['share']:.1%} of the window ({_causes(one)})" for gpu, one in held.items())
    advice = "Cool the GPUs, or look for what limits their power."
    if worst > thresholds.THROTTLED_BEYOND_COMPARISON:
        advice = f"Do not compare these numbers with those of other runs. {advice}"
    yield Reason("gpu_throttled", Level.WARN, f"GPUs were slowed down: {each}.", advice)


def _causes(one: Mapping[str, Any]) -> str:
    causes = {name for bit in (1 << place for place in range(16)) if bit & SLOWED_DOWN for name in named(bit)}
    return ", ".join(name for name in one["reasons"] if name in causes)
