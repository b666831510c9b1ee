"""A start, in real time: the plug-in `known-times` sleeps, writes weights of known size, shares memory with a child,
and notes at which moments it was asked for what. Two of these moments lie within what is measured, two around it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.known_answers.case import Case
from tests.known_answers.measured import Measured
from tests.known_answers.running import READ_OFTEN, measured
from tests.known_answers.virtual import spoken

LOAD = "start"
START_S, WEIGHTS, SHARED = 0.4, 3_000_000, 32 << 20
SECONDS = 4  # of which PSS is read each


def run(folder: Path) -> Measured:
    """The run, and the engine's notes, in their order."""
    log, weights = folder / "log.jsonl", {"path": str(folder / "weights.bin"), "bytes": WEIGHTS}
    options = {"replies": [spoken(50, 10, 6)], "weights": weights, "start_s": START_S, "shared_bytes": SHARED}
    scenario = {
        "engines": [{"engine": "known-times", "options": options | {"log": str(log)}}],
        "load": [{"kind": "single_user", "name": LOAD, "duration": f"{SECONDS}s", "timeout": "30s"}],
    }
    found = measured(folder, scenario, READ_OFTEN)
    for line in log.read_text().splitlines():
        what, at_ns, own = json.loads(line)
        found.log.append({"what": what, "at_ns": at_ns, "own": own})
    return found


def start(number: int) -> Callable[[Measured], tuple[float, float]]:
    """Seconds of one of the starts: at least from its first line to its last; at most from what was noted before until
    what was noted after.
    """

    def bounds(run: Measured) -> tuple[float, float]:
        begin = [place for place, one in enumerate(run.log) if one["what"] == "start"][number]
        at = [one["at_ns"] / 1e9 for one in run.log]
        assert run.log[begin + 1]["what"] == "started"
        assert at[begin + 1] - at[begin] >= START_S
        return at[begin + 1] - at[begin], at[begin + 2] - at[begin - 1]

    return bounds


def shared_once(run: Measured) -> tuple[float, float]:
    """At least what is its own and what is shared; at most resident memory, which has the shared part twice, less one
    of the two.
    """
    own = min(one["own"] for one in run.log if one["what"] == "asked")
    return own + SHARED, run.value("rss_peak_bytes", LOAD) - SHARED


def as_pss(run: Measured) -> tuple[float, float]:
    """Between two readings of PSS there is as much as at them."""
    pss = run.value("pss_peak_bytes", LOAD)
    return pss - (4 << 20), pss + (4 << 20)


CASES = (
    Case("load_s", LOAD, "at least as long as it slept, 0.4 s; at most from prepared until asked", bounds=start(0)),
    Case("load_warm_s", LOAD, "as before; at most from asked until asked again", bounds=start(1)),
    Case("weight_bytes", LOAD, "the file's size", WEIGHTS),
    Case(
        "memory_peak_bytes",
        LOAD,
        "what is shared counts once, and nothing changes: as `pss_peak_bytes`, ± 4 MiB",
        bounds=as_pss,
    ),
    Case(
        "pss_peak_bytes",
        LOAD,
        "32 MiB are shared with a child: at least 32 MiB and what it has alone, at most `rss_peak_bytes` - 32 MiB",
        bounds=shared_once,
    ),
)
