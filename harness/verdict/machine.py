"""Judge what happened to the machine under test: swapping, throttling, other work on its GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.store.manifest import TrialEntry
from harness.telemetry.gpus.gauges import SLOWED_DOWN, named
from harness.verdict import thresholds
from harness.verdict.load import OF_REQUESTS as _ALL
from harness.verdict.reason import Level, Reason


def machine_reasons(trial: TrialEntry, facts: Mapping[str, Any], seconds: float) -> Iterator[Reason]:
    """Yield what happened to the machine under test for a part of the window of so many seconds (D12)."""
    window = (facts.get("telemetry") or {}).get("window") or {}
    if seconds > 0:
        yield from _swapping(window, seconds)
        yield from _throttled(window, seconds)
    yield from _gpus_throttled(facts)
    others = trial.others_on_gpus or 0
    sentence = f"Up to {others} other process{'es' * (others != 1)} computed on the GPUs."
    yield from thresholds.OTHERS_ON_GPUS.reasons(others, sentence, "Stop them: they take GPU time and memory.", _ALL)


def notes(facts: Mapping[str, Any], seconds: float) -> Iterator[Reason]:
    """Yield remarks on the readings of the machine, which change no verdict."""
    energy, telemetry = facts.get("energy") or {}, facts.get("telemetry") or {}
    sentence = f"The energy of the GPUs is unknown: {energy.get('reason')}."
    advice = "Measure longer, and without resetting the GPU or its driver."
    yield from thresholds.ENERGY_COUNTER.reasons(bool(energy.get("broken")), sentence, advice, note=True)
    window, sampler = telemetry.get("window") or {}, telemetry.get("sampler") or {}
    share, interval_s = window.get("sampler_cpu_share"), sampler.get("interval_s")
    if share is not None and interval_s and seconds >= thresholds.LEAST_READINGS.value * interval_s:
        threshold = thresholds.SAMPLER_CPU_WITH_GPUS if telemetry.get("gpus") else thresholds.SAMPLER_CPU
        as_usual = share / max(1.0, thresholds.USUAL_INTERVAL_S.value / interval_s)
        sentence = f"Taking readings used {share:.1%} of a processor core."
        yield from threshold.reasons(as_usual, sentence, "Read less often (`telemetry: {interval: 1s}`).", note=True)


def _swapping(window: Mapping[str, Any], seconds: float) -> Iterator[Reason]:
    swapped, faults = window.get("swapped_bytes") or 0.0, window.get("engine_major_faults") or 0.0
    sentence = f"The machine moved {swapped / 2**20:.0f} MiB to or from its swap during the window."
    advice = "Free memory, or take a smaller model or quantization."
    yield from thresholds.SWAPPED_BYTES_PER_S.reasons(swapped / seconds, sentence, advice, _ALL)
    sentence = f"The engine waited {faults:.0f} times for a page from the disk during the window."
    advice = "Free memory, or set a longer `warmup` until the weights have been read."
    yield from thresholds.MAJOR_FAULTS_PER_S.reasons(faults / seconds, sentence, advice, _ALL)


def _throttled(window: Mapping[str, Any], seconds: float) -> Iterator[Reason]:
    throttled_s = window.get("throttled_s") or 0.0
    share = throttled_s / seconds
    sentence = f"The engine's processor quota was used up for {throttled_s:.2f} s of the window ({share:.0%})."
    advice = "Raise the CPU limit of its container, unless it is to be measured with so little."
    yield from thresholds.THROTTLED.reasons(share, sentence, advice, _ALL)


def _gpus_throttled(facts: Mapping[str, Any]) -> Iterator[Reason]:
    told = facts.get("throttling") or {}
    held = {gpu: one for gpu, one in told.items() if thresholds.GPU_THROTTLED.level(one["share"]) is not Level.VALID}
    if held:
        each = "; ".join(f"{gpu} for {one['share']:.1%} of the window ({_causes(one)})" for gpu, one in held.items())
        advice = "Cool the GPUs, or look for what limits their power. Compare with no other run."
        share = max(one["share"] for one in held.values())
        yield from thresholds.GPU_THROTTLED.reasons(share, f"GPUs were slowed down: {each}.", advice, _ALL)


def _causes(one: Mapping[str, Any]) -> str:
    causes = {name for bit in (1 << place for place in range(16)) if bit & SLOWED_DOWN for name in named(bit)}
    return ", ".join(name for name in one["reasons"] if name in causes)
