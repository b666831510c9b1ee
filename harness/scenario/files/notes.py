"""Remarks on the files of a scenario: what was not read of them."""

from __future__ import annotations

from harness.scenario.checks import loads_by_key
from harness.scenario.loads.kinds import Trace
from harness.scenario.model import Scenario


def file_notes(scenario: Scenario) -> list[str]:
    """Return a sentence on each kind of key or line that was not read of prompt files and traces."""
    from harness.scenario.files.prompts import summary  # numpy is heavy, and `harness list` does not need it
    from harness.scenario.files.traces import read_trace

    workloads = [scenario.workload, *(each.workload for each in scenario.classes.values() if each.workload)]
    found = [note for one in workloads if one.prompts is not None for note in summary(one.prompts).notes]
    traces = [load.file for load in loads_by_key(scenario).values() if isinstance(load, Trace)]
    found += [note for file in traces for note in read_trace(file).notes]
    return list(dict.fromkeys(found))
