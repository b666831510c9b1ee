"""What the machine and the server said of themselves during a trial, and how it fits what the client saw."""

from __future__ import annotations

from typing import Any

from reports.data import ReportData
from reports.tables import Table


def of_trial(data: ReportData, cell: dict[str, Any], trial: dict[str, Any]) -> list[Table]:
    """The tables of one trial; those about which nothing is known are left out."""
    return []
