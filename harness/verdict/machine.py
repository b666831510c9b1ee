"""Judge what the machine did to a trial: throttling, swapping, sampling, energy counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.store.manifest import ClientEntry
from harness.telemetry.gpus.gauges import SLOWED_DOWN, named
from harness.verdict import thresholds
from harness.verdict.client import Readings
from harness.verdict.reason import Level, Reason


def energy_reasons(facts: Mapping[str, Any] | None) -> Iterator[Reason]:
    """A counter that cannot be trusted leaves the latencies as they are, so it only warns: there is no energy then."""
    told = (facts or {}).get("energy") or {}
    sentence = f"The energy of the GPUs is not known: {told.get('reason')}."
    advice = "Measure for longer, and without resetting the GPU or its driver."
    yield from thresholds.ENERGY_COUNTER.reasons(bool(told.get("broken")), sentence, advice)


def throttling_reasons(facts: Mapping[str, Any] | None) -> Iterator[Reason]:
    """A GPU that was held back is what was measured, so it warns; beyond what compares, it says that, too."""
    told = (facts or {}).get("throttling") or {}
    held = {gpu: one for gpu, one in told.items() if thresholds.GPU_THROTTLED.level(one["share"]) is not Level.VALID}
    if not held:
        return
    worst = max(one["share"] for one in held.values())
    each = "; ".join(f"{gpu} for {one['share']:.1%} of the window ({_causes(one)})" for gpu, one in held.items())
    advice = "Cool the GPUs, or look for what limits their power."
    if worst > thresholds.THROTTLED_BEYOND_COMPARISON.value:
        advice = f"Do not compare these numbers with those of other runs. {advice}"
    yield Reason("gpu_throttled", Level.WARN, f"GPUs were slowed down: {each}.", advice)


def _causes(one: Mapping[str, Any]) -> str:
    causes = {name for bit in (1 << place for place in range(16)) if bit & SLOWED_DOWN for name in named(bit)}
    return ", ".join(name for name in one["reasons"] if name in causes)


def telemetry_reasons(facts: Mapping[str, Any] | None, client: ClientEntry | None, seconds: float) -> Iterator[Reason]:
    """Whether the machine swapped, held the engine back, or was kept from its work by the readings.

    client: its report about itself.   seconds: of the measuring window.
    """
    told = (facts or {}).get("telemetry") or {}
    window = told.get("window") or {}
    if seconds > 0 and window:
        yield from _swapping(window, seconds)
        yield from _throttled(window, client)
        yield from _sampler(told, window, seconds)


def _swapping(window: Mapping[str, Any], seconds: float) -> Iterator[Reason]:
    swapped, faults = window.get("swapped_bytes") or 0.0, window.get("engine_major_faults") or 0.0
    found = []
    if thresholds.SWAPPED_BYTES_PER_S.level(swapped / seconds) is not Level.VALID:
        found.append(f"the machine moved {swapped / 2**20:.0f} MiB to or from its swap")
    if thresholds.MAJOR_FAULTS_PER_S.level(faults / seconds) is not Level.VALID:
        found.append(f"the engine waited {faults:.0f} times for a page from the disk")
    if found:
        sentence = " and ".join(found)
        advice = "Free memory, or take a smaller model or level; warm up until the weights have been read."
        yield Reason("swapping", Level.WARN, f"{sentence[0].upper()}{sentence[1:]} while it was measured.", advice)


def _throttled(window: Mapping[str, Any], client: ClientEntry | None) -> Iterator[Reason]:
    """Of the engine's control group; where it is the client's, too, the client's own reading has said so."""
    periods = window.get("throttled_periods") or 0.0
    if Readings.of(client)["throttled_periods"] > 0 or thresholds.THROTTLED.level(periods) is Level.VALID:
        return
    sentence = f"The engine's processor quota was used up in {periods:.0f} periods"
    sentence += f", {window['throttled_s']:.2f} s in all." if window.get("throttled_s") is not None else "."
    advice = "Give its container more processor time, unless it is to be measured with so little."
    yield Reason("engine_throttled", Level.WARN, sentence, advice)


def _sampler(told: Mapping[str, Any], window: Mapping[str, Any], seconds: float) -> Iterator[Reason]:
    sampler, share = told.get("sampler") or {}, window.get("sampler_cpu_share")
    interval_s = sampler.get("interval_s")
    if share is None or not interval_s or seconds < thresholds.LEAST_READINGS.value * interval_s:
        return
    threshold = thresholds.SAMPLER_CPU_WITH_GPUS if told.get("gpus") else thresholds.SAMPLER_CPU
    as_usual = share / max(1.0, thresholds.USUAL_INTERVAL_S.value / interval_s)
    sentence = f"Taking readings used {share:.1%} of a processor core."
    yield from threshold.reasons(as_usual, sentence, "Read less often (`telemetry: {interval: 1s}`).")
