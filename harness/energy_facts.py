"""What the GPUs used while a trial measured: the facts, the metrics made of them, and why there are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness import energy, thresholds
from harness.columns import Flags
from harness.energy import Energy, NoEnergy
from harness.machine import NO_GPU, SERVER, engines_gpus, without_others_gpus
from harness.machine_metrics import ENERGY
from harness.rates import Rate
from harness.reasons import Level, Reason
from harness.stats import Estimate
from harness.window import NS_PER_S, Window

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN_AVERAGED_S = 1.0
_GAUGES = ("energy_j", "power_w", "power_averaged_s", "utilisation_share")


def energy_facts(
    cell: Mapping[str, Any], trial: Mapping[str, Any], window: Window, samples: pd.DataFrame
) -> dict[str, Any]:
    """The energy of the engine's GPUs in the window, together; none where it computes on the processor. Which GPUs are
    the engine's, `machine.without_others_gpus` says.

    samples: of the cell.   j, low, high: joules, None without a number.   seconds: of the window.   sensor: what they
    come from.   uncertainty_share.   power_w: mean of the power readings, added up.   power_sensor: what those are.
    utilisation_share: mean.   gpus: per GPU {gpu, j, power_w, utilisation_share, reason}.   reason: why there is no
    number, or what is to be known about it.   broken: a counter cannot be trusted.   Empty where no GPU was read.
    """
    gauges = _gauges(cell, trial, samples)
    if not gauges:
        return {}
    entries, parts, broken = [], [], False
    ends_s = window.start_ns / NS_PER_S, window.end_ns / NS_PER_S
    exported = (cell.get("sampler") or {}).get("scope", SERVER) != SERVER  # what was read here is not the server's
    for gpu, read in gauges.items():
        entry, found, failed = _of_one(gpu, read, *ends_s, exported=exported)
        entries.append(entry)
        parts += [found] if found else []
        broken = broken or failed
    total = energy.together(parts) if len(parts) == len(entries) else None
    powers = [entry["power_w"] for entry in entries]
    busy = [entry["utilisation_share"] for entry in entries]
    averaged = [_averaged_s(read) for read in gauges.values() if "power_w" in read]
    return {
        "j": total.j if total else None,
        "low": total.low if total else None,
        "high": total.high if total else None,
        "seconds": window.seconds,
        "sensor": total.sensor if total else None,
        "uncertainty_share": total.uncertainty_share if total else None,
        "power_w": None if None in powers else sum(powers),
        "power_sensor": energy.power_sensor(max(averaged)) if averaged else None,
        "utilisation_share": None if None in busy else sum(busy) / len(busy),
        "gpus": entries,
        "reason": _reason(cell, trial, entries, samples),
        "broken": broken,
    }


def _of_one(
    gpu: str, read: Mapping[str, energy.Gauge], start_s: float, end_s: float, *, exported: bool
) -> tuple[dict[str, Any], Energy | None, bool]:
    """A GPU's entry, its energy, and whether its counter is broken."""
    entry: dict[str, Any] = {"gpu": gpu, "j": None, "reason": None}
    for name in ("power_w", "utilisation_share"):
        entry[name] = energy.mean(read[name], start_s, end_s) if name in read else None
    try:
        found = _energy(read, start_s, end_s, exported=exported)
    except NoEnergy as error:
        if error.stale:
            entry |= {"power_w": None, "utilisation_share": None}
        return entry | {"reason": f"{gpu}: {error}"}, None, error.broken
    return entry | {"j": found.j}, found, False


def energy_readings(
    facts: Mapping[str, Any] | None, rates: Mapping[str, Rate], shares: Mapping[str, Flags]
) -> dict[str, float | Estimate]:
    """The metrics of energy that are known. facts: of the trial.   rates, shares: of all its requests."""
    told = (facts or {}).get("energy") or {}
    found: dict[str, float | Estimate] = {}
    if told.get("power_w") is not None:
        found["gpu_power_w"] = told["power_w"]
    if told.get("utilisation_share") is not None:
        found["gpu_utilisation_share"] = told["utilisation_share"]
    if told.get("j") is None:
        return found
    found["energy_j"] = _per(told, 1)
    tokens = rates["output_tokens_per_s"]
    if tokens.amount > 0 and not tokens.at_least:
        found["energy_j_per_output_token"] = _per(told, tokens.amount)
    good = int(shares["goodput"].sum()) if "goodput" in shares else 0
    if good:
        found["energy_j_per_good_request"] = _per(told, good)
    return found


def _per(told: Mapping[str, Any], amount: float) -> Estimate:
    return Estimate(told["j"] / amount, told["low"] / amount, told["high"] / amount, n=1)


def energy_sources(facts: Mapping[str, Any] | None) -> dict[str, str]:
    """The sensor of each metric of energy, for the summary's column `source`."""
    told = (facts or {}).get("energy") or {}
    named = {metric.name: str(told.get("sensor") or "") for metric in ENERGY if metric.name.startswith("energy")}
    return named | {"gpu_power_w": str(told.get("power_sensor") or ""), "gpu_utilisation_share": "gpu"}


def missing_energy(told: Mapping[str, Any], slo: Mapping[str, Any], no_gpu: str = NO_GPU) -> dict[str, str]:
    """Why a metric of energy may have no value. told: the facts.   no_gpu: why no GPU counts, where none does."""
    of_energy = [metric.name for metric in ENERGY]
    if not told:
        return dict.fromkeys(of_energy, no_gpu)
    if told["j"] is None:
        return dict.fromkeys(of_energy, told["reason"])
    found = dict.fromkeys(of_energy, "the GPU does not tell it")
    found["energy_j_per_output_token"] = "no output token was counted in the window"
    no_slo = not any(limit is not None for limit in slo.values())
    found["energy_j_per_good_request"] = "the scenario sets no slo" if no_slo else "no request was good"
    return found


def energy_reasons(facts: Mapping[str, Any] | None) -> Iterator[Reason]:
    """A counter that cannot be trusted leaves the latencies as they are, so it only warns: there is no energy then."""
    told = (facts or {}).get("energy") or {}
    if thresholds.ENERGY_COUNTER.level(float(told.get("broken", False))) is not Level.VALID:
        sentence = f"The energy of the GPUs is not known: {told['reason']}."
        yield Reason(
            "energy_counter", Level.WARN, sentence, "Measure for longer, and without resetting the GPU or its driver."
        )


def _gauges(
    cell: Mapping[str, Any], trial: Mapping[str, Any], samples: pd.DataFrame
) -> dict[str, dict[str, energy.Gauge]]:
    """Gauges of each GPU by name, in seconds from T0; of the engine's GPUs."""
    t0_ns = trial.get("t0_ns")
    if t0_ns is None or not any(str(source).startswith("gpu") for source in samples["source"].unique()):
        return {}
    samples = without_others_gpus(cell, samples)
    of_gpu = samples["source"].astype(str).str.startswith("gpu") & (samples["scope"] == SERVER)
    own = samples[of_gpu & samples["name"].isin(_GAUGES)].sort_values("at_ns", kind="stable")
    found: dict[str, dict[str, energy.Gauge]] = {}
    for (source, name), readings in own.groupby([own["source"].astype(str), own["name"].astype(str)], sort=True):
        at_s = (readings["at_ns"].to_numpy(dtype="int64") - t0_ns) / NS_PER_S
        found.setdefault(str(source), {})[str(name)] = energy.Gauge(
            at_s, readings["value"].to_numpy(dtype="float64"), readings["width_ns"].to_numpy(dtype="float64") / NS_PER_S
        )
    return found


def _energy(read: Mapping[str, energy.Gauge], start_s: float, end_s: float, *, exported: bool) -> Energy:
    if end_s <= start_s:
        raise NoEnergy("nothing was measured")
    if "energy_j" in read:
        return energy.by_counter(read["energy_j"], start_s, end_s, exported=exported)
    if "power_w" not in read:
        raise NoEnergy("it tells neither energy nor power")
    return energy.by_power(read["power_w"], _averaged_s(read), start_s, end_s)


def _averaged_s(read: Mapping[str, energy.Gauge]) -> float:
    """Over what time the power readings average; a second where they do not say, as those of exporters."""
    told = read.get("power_averaged_s")
    return float(told.values.max()) if told is not None else UNKNOWN_AVERAGED_S


def _reason(
    cell: Mapping[str, Any], trial: Mapping[str, Any], each: list[dict[str, Any]], samples: pd.DataFrame
) -> str | None:
    without = [str(entry["reason"]) for entry in each if entry["reason"]]
    if without:
        return "; ".join(without)
    if trial.get("others_on_gpus"):
        return "other processes computed on the GPUs: what they used is in it"
    if len(each) > 1 and not cell.get("devices") and not engines_gpus(samples):
        unknown = "it is not known which GPUs the engine uses"
        return f"{unknown}: all {len(each)} that were read are in it; name its own in `devices`"
    return None
