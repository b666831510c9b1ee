"""The result of a search, from the stored records of its trial."""

from __future__ import annotations

from harness.analysis.reading import read
from harness.saturation.result import saturation_of
from tests.caveats import searching
from tests.fabricated import noisy, trial_of

SLO = {"ttft_ms": 500.0}


def test_a_stored_search_without_a_requirement_has_no_result() -> None:
    """Such as one with `attainment >= 100%`, which an earlier version accepted: its report goes on without it."""
    search = searching(60.0)
    assert saturation_of(read(trial_of(noisy(1), search=search, slo=SLO, limits=["attainment >= 100%"]))) is None
    assert saturation_of(read(trial_of(noisy(1), search=search, slo=SLO))) is not None
