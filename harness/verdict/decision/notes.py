"""Remarks on a decision that a reader needs before comparing its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.analysis.samples.memory import SHARED_IN_EACH, SHARED_ONCE
from harness.schedule.cells import is_full
from harness.verdict.decision.dominance import Figure
from harness.verdict.decision.memory_need import RESERVED, UNRESERVED, WHILE_LOADING
from harness.verdict.decision.rows import Row, RowKey


def notes_on(rows: Sequence[Row], figures: Mapping[RowKey, Mapping[str, Figure]]) -> list[str]:
    """Return a sentence for each remark, with the rows that it is about; `figures`: those of comparable rows."""
    notes = list(_of_quality([row for row in rows if row.key in figures], figures))
    if {"memory_peak_bytes", "gpu_memory_peak_bytes"} <= {name for own in figures.values() for name in own}:
        notes.append("memory of GPUs and of the host is not compared")
    return [*notes, *_of_memory(rows), *setting_notes(rows)]


def setting_notes(rows: Sequence[Row]) -> list[str]:
    """Return the remarks on how engines and levels were built."""
    return [*_of_builds(rows), *_of_levels(rows)]


def _of_quality(rows: Sequence[Row], figures: Mapping[RowKey, Mapping[str, Figure]]) -> Iterator[str]:
    """Yield which rows are compared without their quality, and why."""
    levels = {row.reference_level for row in rows if row.reference_level}
    quantized = sorted(level for level in levels if not is_full(level))
    if quantized and any(row.values[name].shown for row in rows for name in ("kl_mean", "kl_bound")):
        yield f"the reference is itself quantized ({', '.join(quantized)}): the distance from it is not compared"
        return
    without = [row for row in rows if "quality" not in figures[row.key]]
    bounded = [row for row in without if row.values["kl_mean"].shown]
    unmeasured = [row for row in without if row not in bounded]
    if rows and len(unmeasured) == len(rows):
        yield "quality was not measured: rows are compared by speed and memory only"
        return
    same = "not compared with rows of known quality"
    if bounded:
        yield f"{same}, for of their KL a lower bound is known: {_labels(bounded)}"
    if unmeasured:
        yield f"{same}, for theirs is unknown: {_labels(unmeasured)}"


def _of_memory(rows: Sequence[Row]) -> Iterator[str]:
    """Yield where the memory that rows are compared by is not what was read while they served, or read otherwise."""
    inside = [row for row in rows if row.info.in_process]
    if inside and len(inside) < len(rows):
        yield f"the memory of engines in process holds Python and our own client too: {_labels(inside)}"
    if growing := [row for row in rows if _keeps_prompts(row)]:
        what = "the peak memory of llama-server holds the prompts that it keeps for reuse, up to 8 GiB"
        yield f"{what} (`cache_ram_mib: 0` keeps none): {_labels(growing)}"
    needs = [(row, row.values["memory_needed_bytes"]) for row in rows]
    if reserved := [row for row, need in needs if need.reason.startswith(RESERVED)]:
        yield f"the memory of these is reserved by a setting, so it is not compared: {_labels(reserved)}"
    if unreserved := [row for row, need in needs if need.source == UNRESERVED]:
        yield f"the memory of these is compared {UNRESERVED}: {_labels(unreserved)}"
    if loading := [row for row, need in needs if need.source == WHILE_LOADING]:
        yield f"these take more memory while they load, and are compared by that: {_labels(loading)}"
    sources = [(row, row.values["memory_peak_bytes"].source) for row in rows if "memory_peak_bytes" in row.values]
    if {SHARED_ONCE, SHARED_IN_EACH} <= {source for _, source in sources}:
        summed = [row for row, source in sources if source == SHARED_IN_EACH]
        yield f"of these, pages that processes share are counted in each, for no PSS was read: {_labels(summed)}"


def _keeps_prompts(row: Row) -> bool:
    """Return whether the prompts that it keeps fill memory, whatever the level."""
    options = row.info.options
    return row.key[1] == "llama-server" and bool(options.get("prefix_cache")) and options.get("cache_ram_mib") is None


def _of_builds(rows: Sequence[Row]) -> Iterator[str]:
    """Yield builds that leave instructions of the processor unused, beside rows of other engines."""
    on_cpu = [row for row in rows if row.info.device in (None, "cpu")]
    narrow = [row for row in on_cpu if row.info.unused_instructions]
    if narrow and len({row.key[1] for row in rows if not row.info.is_empty}) > 1:
        lacking = ", ".join(dict.fromkeys(name for row in narrow for name in row.info.unused_instructions))
        what = f"this build of llama.cpp does not use {lacking}, which the processor has"
        yield f"{what}; another build may read prompts faster (docs/engines.md): {_labels(narrow)}"


def _of_levels(rows: Sequence[Row]) -> Iterator[str]:
    made = [row for row in rows if row.info.imatrix is False]
    if made:
        yield f"quantized here without an importance matrix (imatrix), which most published files have: {_labels(made)}"


def _labels(rows: Sequence[Row]) -> str:
    return ", ".join(row.label for row in rows)
