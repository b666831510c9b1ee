"""What a reader must know of how engines were built before comparing their rows, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.verdict.decision_rows import Row


def setting_notes(rows: Sequence[Row]) -> list[str]:
    """One sentence for each kind of thing, with the rows that it is about."""
    return [*_of_builds(rows), *_of_levels(rows)]


def _of_builds(rows: Sequence[Row]) -> Iterator[str]:
    """Builds that leave instructions of the processor unused, where rows of other engines stand beside them."""
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
