"""Cases of the battery: healthy loads that deserve no doubt, and sick ones with the doubts that name their sickness.

Half of the cases are held out. Thresholds are tuned on the others alone; a case never changes its side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

WORKLOAD = "{prompt_tokens: 20, output_tokens: 32}"
LONG = "{prompt_tokens: 400, output_tokens: 32}"
EXACT = "{prompt_tokens: 20, output_tokens: {dist: fixed, value: 32, exact: true}}"
SIMULATED = MappingProxyType({"ttft_ms": 50.0, "tpot_ms": 10.0})
CLASSES = """classes:
  short: {weight: 3, workload: {prompt_tokens: 20, output_tokens: 16}}
  long: {weight: 1, workload: {prompt_tokens: 60, output_tokens: 64}}
"""
OBJECTIVES = "slo: {ttft: 500ms, tpot: 50ms}\nlimits: [error_rate <= 0.01]\n"
TIGHT_LIMIT = "limits: [ttft_ms p95 <= 90]\n"
LOOSE_LIMIT = "limits: [ttft_ms p95 <= 200]\n"
FROZEN = MappingProxyType({"freeze_at_s": 4.0, "freeze_s": 2.0})
WARMING_UP = MappingProxyType({"warm_s": 6.0, "warm_factor": 4.0})
LATE = ("client_late", "client_slow", "arrivals")
CHANGES = ("not_steady", "warm_up")
COUNTS = ("token_counts", "lengths")


@dataclass(frozen=True)
class Case:
    """One run of one load.

    Attributes:
        load: The load of the scenario, as YAML.
        server: Settings of the truth server; see truth_server.cpp.
        expected: Codes of which one must be the first doubt; none for a healthy case.
        held_out: No threshold is tuned on it.
        workload: As YAML; "" if `more` has classes.
        more: Further lines of the scenario.
        hardship: What happens to the machine or the load generator; see hardship.py.
        simulated: Exact times of an engine in the load generator's process, instead of a server.
        runs: How often one pass runs it.
    """

    name: str
    load: str
    server: Mapping[str, float] = field(default_factory=dict)
    expected: tuple[str, ...] = ()
    held_out: bool = False
    workload: str = WORKLOAD
    more: str = ""
    hardship: str = ""
    simulated: Mapping[str, float] | None = None
    runs: int = 1

    @property
    def users(self) -> int | None:
        """Users who do not think: so many requests are in flight if the load generator loses no time."""
        if "think_time" in self.load:
            return None
        found = re.search(r"users: (\d+)", self.load)
        return int(found[1]) if found else 1 if "single_user" in self.load else None

    def scenario(self, port: int) -> str:
        """Return the scenario file, for a truth server on this port."""
        engine = f'{{engine: http, url: "http://127.0.0.1:{port}", dialect: openai-completions, served_model: truth}}'
        if self.simulated is not None:
            options = ", ".join(f"{name}: {value:g}" for name, value in self.simulated.items())
            engine = f"{{engine: simulated, options: {{{options}}}}}"
        workload = f"workload: {self.workload}\n" if self.workload else ""
        return f"name: battery\nengines: [{engine}]\n{workload}{self.more}load: [{self.load}]\n"


def _sustained(what: str, duration_s: int = 10) -> str:
    return f"{{kind: sustained, {what}, duration: {duration_s}s}}"


def _reply(tokens: int) -> str:
    return f"{{prompt_tokens: 20, output_tokens: {tokens}}}"


def _step(rate: int) -> str:
    return f"{{rate: {rate}, for: 4s}}"


EIGHT = _sustained("users: 8", 8)
TWENTY = "{kind: single_user, requests: 20}"
IN_SAMPLE = (
    Case("single user, 40 requests", "{kind: single_user, requests: 40}"),
    Case("8 users", _sustained("users: 8")),
    Case("64 users", _sustained("users: 64")),
    Case("512 users", "{kind: sustained, users: 512, requests: 1024}", {"itl_ms": 20}, workload=_reply(64)),
    Case("open, 50/s", _sustained("rate: 50")),
    Case("open, 1000/s", _sustained("rate: 1000"), {"ttft_ms": 20, "itl_ms": 1}, workload=_reply(4)),
    Case("open, 50/s at equal distances", _sustained("rate: 50, arrivals: constant")),
    Case("open, 50/s, lognormal TTFT", _sustained("rate: 50", 12), {"sigma": 0.4}),
    Case("open, 16 slots half used", _sustained("rate: 22", 15), {"slots": 16, "sigma": 0.3}),
    Case("32 users on 16 slots", _sustained("users: 32", 12), {"slots": 16, "sigma": 0.3}),
    Case("spike of 100", "{kind: burst, spike: {requests: 100, within: 0s}}"),
    Case("steps of 5, 20, 50/s", f"{{kind: steps, steps: [{_step(5)}, {_step(20)}, {_step(50)}]}}"),
    Case("warm-up, objectives, a limit", "{kind: sustained, rate: 30, warmup: 3s, duration: 10s}", more=OBJECTIVES),
    Case("a server with a metrics page", _sustained("rate: 30", 12), {"page": 1}),
    Case("simulated, 64 users", _sustained("users: 64", 8), simulated=SIMULATED),
    Case("one core with two hogs, open, 50/s", _sustained("rate: 50"), expected=LATE, hardship="one core"),
    Case("nice 19 beside hogs on all cores, open, 50/s", _sustained("rate: 50"), expected=LATE, hardship="nice"),
    Case("stopped for 2 s, open, 50/s", _sustained("rate: 50"), expected=LATE, hardship="stopped"),
    Case("frozen for 2 s, open, 50/s", _sustained("rate: 50", 12), FROZEN, expected=("stall", "not_steady")),
    Case("2 %/s slower, open, 30/s", _sustained("rate: 30", 15), {"drift_per_s": 0.02}, expected=CHANGES),
    Case("overload of 1.3, open", _sustained("rate: 57", 12), {"slots": 16}, expected=("overload", "not_steady")),
    Case("usage says twice the tokens", EIGHT, {"usage_factor": 2}, expected=COUNTS, workload=EXACT),
    Case("replies half as long", EIGHT, {"reply_share": 0.5}, expected=("lengths",), workload=EXACT),
    Case("3 % errors", _sustained("rate: 50"), {"errors": 0.03}, expected=("errors",)),
    Case("20 requests, tight limit on p95", TWENTY, {"sigma": 0.4}, expected=("limit_open",), more=TIGHT_LIMIT),
)
_HELD_OUT = (
    Case("single user for 10 s", "{kind: single_user, duration: 10s}", {"ttft_ms": 20, "itl_ms": 3}),
    Case("256 users", _sustained("users: 256"), {"itl_ms": 20}),
    Case("32 users who think", _sustained("users: 32, think_time: {dist: exponential, mean: 0.5s}")),
    Case("open, 5/s", _sustained("rate: 5", 20)),
    Case("open, 300/s", _sustained("rate: 300"), workload=_reply(8)),
    Case("32 users, lognormal TTFT", _sustained("users: 32"), {"sigma": 0.4}),
    Case("open, 16 slots at 0.8", _sustained("rate: 35", 15), {"slots": 16, "sigma": 0.3}),
    Case("bursts", "{kind: burst, rate: 5, burst_rate: 50, burst_for: 2s, every: 8s, duration: 16s}"),
    Case("classes, 20/s", "{kind: mixed, rate: 20, duration: 12s}", workload="", more=CLASSES),
    Case("conversations", "{kind: sessions, rate: 4, turns: 3, duration: 12s}"),
    Case("chunks of three tokens", _sustained("users: 16"), {"chunk_tokens": 3}),
    Case("simulated, open, 50/s", _sustained("rate: 50", 8), simulated=SIMULATED),
    Case("16 users, continuous batching", _sustained("users: 16"), {"itl_ms": 5, "batch_ms": 0.5}),
    Case("open, 10/s, continuous batching", _sustained("rate: 10", 15), {"itl_ms": 5, "batch_ms": 1}),
    Case("open, 16 slots, exponential service", _sustained("rate: 25", 15), {"slots": 16, "exponential": 1}),
    Case("one core with two hogs, 64 users", _sustained("users: 64"), expected=LATE, hardship="one core"),
    Case("three hogs for each core, open, 100/s", _sustained("rate: 100"), expected=LATE, hardship="hogs"),
    Case("stopped for 60 ms twice a second, open, 50/s", _sustained("rate: 50"), expected=LATE, hardship="stuttering"),
    Case("5 %/s slower, 16 users", _sustained("users: 16", 15), {"drift_per_s": 0.05}, expected=CHANGES),
    Case("warming up for 6 of 18 s, 16 users", _sustained("users: 16", 18), WARMING_UP, expected=CHANGES),
    Case("usage says half the tokens", EIGHT, {"usage_factor": 0.5}, expected=COUNTS, workload=EXACT),
    Case("prompts cut from 400 tokens to 100", EIGHT, {"prompt_cut": 100}, expected=("prompts",), workload=LONG),
    Case("nothing but errors", _sustained("rate: 20", 5), {"errors": 1}, expected=("errors",)),
    Case("a proxy that holds the stream back", EIGHT, {"buffered": 1}, expected=("not_streamed",), workload=EXACT),
    Case("a second client", _sustained("rate: 20"), {"page": 1}, expected=("books",), hardship="second client"),
)
IDENTICAL = Case(
    "identical runs beside two hogs", _sustained("users: 8", 5), more=LOOSE_LIMIT, hardship="two hogs", runs=10
)
CASES = (*IN_SAMPLE, *(replace(case, held_out=True) for case in _HELD_OUT), IDENTICAL)
