"""Notes on how an engine was used, and what to know of its build and level."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.reading import read
from harness.store.manifest import CellEntry, EngineEntry
from harness.verdict.decision.notes import setting_notes
from harness.verdict.decision.rows import Row
from harness.verdict.engine import notes
from harness.verdict.reason import Level
from tests.fabricated import streamed, trial_of


def told(**trial: Any) -> dict[str, str]:
    """The notes of a trial in which 8 requests of a second each are in flight all the time."""
    records = [streamed(i, (i // 8) * 1000.0, ttft_ms=100, gap_ms=100, tokens=10) for i in range(480)]
    made = trial_of(records, **trial)
    found = list(notes(made.trial, read(made)))
    assert all(note.level is Level.VALID for note in found)
    return {reason.code: reason.sentence for reason in found}


@pytest.mark.parametrize(
    ("slots", "users", "sentence"),
    [
        (4, 8, "Requests queue in the engine: 8 users, 4 slots."),
        (1, 8, "Requests queue in the engine: 8 users, 1 slot."),
        (4, None, "Requests queue in the engine: 8 requests in flight, 4 slots."),
        (8, 8, None),
        (16, 8, None),
        (8, None, None),
        (None, 8, None),
        (4, 4, None),
        (9, 64, None),  # users who think most of the time
    ],
)
def test_more_in_flight_than_slots_is_a_queue(slots: int | None, users: int | None, sentence: str | None) -> None:
    """Closed loops by their users, where those do not think; open ones by what was in flight on average."""
    assert told(slots=slots, users=users).get("engine_queue") == sentence


def test_a_server_that_is_not_greedy_is_told() -> None:
    """Once, with what to do; silence where it took the temperature or nothing is known."""
    refused = told(start={"temperature_refused": "no temperature here"})
    assert refused["temperature_refused"].startswith("The server refuses temperature 0 and used its own")
    assert told(start={"temperature_refused": None}) == told() == {}


def row(engine: str, level: str = "q4_k_m", **info: Any) -> Row:
    """A row whose engine says this of itself."""
    cell = CellEntry(engine_info=EngineEntry(**info), status="complete")
    return Row(("m", engine, level, ""), [cell], label=f"{engine} · {level}")


def test_a_narrow_build_is_told_where_other_engines_stand_beside_it() -> None:
    """Alone there is nothing to compare it with, and on a GPU it does not matter."""
    narrow = row("llama-server", device="cpu", unused_instructions=["AVX512", "AVX512_VNNI"])
    other = row("transformers", "int8", device="cpu")
    (note,) = setting_notes([narrow, other])
    assert note.startswith("this build of llama.cpp does not use AVX512, AVX512_VNNI, which the processor has")
    assert note.endswith("llama-server · q4_k_m")
    assert setting_notes([narrow, row("llama-server", "q8_0", device="cpu")]) == []
    assert setting_notes([row("llama-server", device="cuda:0", unused_instructions=["AVX512"]), other]) == []


def test_levels_made_here_without_imatrix_are_told() -> None:
    """Not of files that have one, or of which it is not known."""
    rows = [row("llama-server", imatrix=False), row("llama-cpp", imatrix=True), row("llama-cpp", "q8_0", imatrix=None)]
    (note,) = setting_notes(rows)
    assert note.startswith("quantized here without an importance matrix (imatrix)")
    assert note.endswith("have: llama-server · q4_k_m")
