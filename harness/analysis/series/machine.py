"""Gauges over the time of a trial: memory, processors, GPUs, and the queue that the server reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.columns import Columns
from harness.analysis.samples.gauges import during
from harness.analysis.stats import Flags
from harness.store.categories import one_of
from harness.store.manifest import TrialEntry

if TYPE_CHECKING:
    import pandas as pd

MAX_POINTS = 160
SHOWN = {
    "engine": ("rss_bytes", "pss_bytes", "cpu_share"),
    "host": ("memory_used_bytes", "cpu_share"),
    "client": ("cpu_share",),
    "gpu": (
        *("memory_used_bytes", "memory_total_bytes", "engine_memory_bytes", "utilisation_share", "power_w"),
        *("power_limit_w", "temperature_c", "sm_clock_mhz", "throttled"),
    ),
    "server": ("running_requests", "waiting_requests", "kv_cache_share"),
}
_OF_PARTS = ("least", "mean", "greatest")


def gauges_over_time(trial: TrialEntry, samples: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Return at_s, source, name, value, least, mean and greatest of the gauges SHOWN, at most MAX_POINTS of each.

    With more readings each row is a part of the time: value is its greatest for bytes and throttling, else its mean.
    """
    import pandas as pd

    inside, at_s = during(samples, trial, columns)
    shown = inside & _shown(samples)
    if not shown.any():
        return pd.DataFrame({name: [] for name in ("at_s", "source", "name", "value", *_OF_PARTS)})
    texts = {name: samples[name].array[shown].astype(str) for name in ("source", "name")}
    values = samples["value"].to_numpy(dtype=np.float64)[shown]
    return _thinned(pd.DataFrame({"at_s": at_s[shown], **texts, "value": values}))


def _shown(samples: pd.DataFrame) -> Flags:
    """Return which readings are finite and of the gauges SHOWN."""
    sources = {str(source) for source in samples["source"].unique()}
    wanted = np.zeros(len(samples), dtype=np.bool_)
    for kind, names in SHOWN.items():
        own = [source for source in sources if source.rstrip("0123456789") == kind]
        if own:
            wanted |= one_of(samples["source"], own) & one_of(samples["name"], names)
    finite: Flags = np.isfinite(samples["value"].to_numpy(dtype=np.float64))
    return wanted & finite


def _thinned(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    thinned = []
    for (source, name), own in frame.groupby(["source", "name"], sort=True, observed=True):
        if len(own) <= MAX_POINTS:
            thinned.append(own.assign(**dict.fromkeys(_OF_PARTS, own["value"])))
            continue
        first, last = float(own["at_s"].min()), float(own["at_s"].max())
        part = ((own["at_s"] - first) * (MAX_POINTS / max(last - first, 1e-9))).clip(0, MAX_POINTS - 1).astype("int64")
        parts = own.groupby(part)
        found = {"least": parts["value"].min(), "mean": parts["value"].mean(), "greatest": parts["value"].max()}
        value = found["greatest" if str(name) == "throttled" or str(name).endswith("_bytes") else "mean"]
        columns = {"at_s": parts["at_s"].mean(), "source": source, "name": name, "value": value, **found}
        thinned.append(pd.DataFrame(columns))
    return pd.concat(thinned, ignore_index=True) if thinned else frame
