"""Looking something up in a run costs the same however many trials it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from reports.data import ReportData
from reports.writers import prometheus


class Counted(list[Any]):
    """A list that counts how often it is gone through."""

    times = 0

    def __iter__(self) -> Iterator[Any]:
        self.times += 1
        return super().__iter__()


def test_rows_of_the_summary_do_not_go_through_all_trials_each(full: ReportData) -> None:
    """The cells, the judgements and the facts are gone through a few times, not once per row."""
    validity, facts, cells = Counted(full.validity), Counted(full.facts), Counted(full.manifest.cells)
    data = replace(full, manifest=full.manifest.model_copy(update={"cells": cells}), validity=validity, facts=facts)
    prometheus.render(data)
    assert len(full.summary) > 100
    assert max(one.times for one in (cells, validity, facts)) <= 5
