"""The result of a search, from the stored records of its trial."""

from __future__ import annotations

import pytest

from harness.analysis.reading import read
from harness.saturation.result import as_fact, saturation_of
from tests.caveats import searching
from tests.fabricated import noisy, trial_of

SLO = {"ttft_ms": 500.0}


def test_a_stored_search_without_a_requirement_has_no_result() -> None:
    """Such as one with `attainment >= 100%`, which an earlier version accepted: its report goes on without it."""
    search = searching(60.0)
    assert saturation_of(read(trial_of(noisy(1), search=search, slo=SLO, limits=["attainment >= 100%"]))) is None
    assert saturation_of(read(trial_of(noisy(1), search=search, slo=SLO))) is not None


@pytest.mark.parametrize(("limits", "share"), [((), 0.95), (("attainment >= 99%",), 0.99)])
def test_the_result_says_which_share_of_the_requests_must_be_good(limits: tuple[str, ...], share: float) -> None:
    """A plan judges the rates that were tried by it."""
    found = saturation_of(read(trial_of(noisy(1), search=searching(60.0), slo=SLO, limits=list(limits))))
    assert found is not None
    assert as_fact(found)["share"] == share
