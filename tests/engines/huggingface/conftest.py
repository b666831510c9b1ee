"""Tests of the engine `transformers`."""

from __future__ import annotations

import needs
import pytest


@pytest.fixture(autouse=True)
def transformers_is_here() -> None:
    """Skip the tests of this folder without the library."""
    needs.library("transformers")
