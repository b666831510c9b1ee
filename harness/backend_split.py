"""Which backend answered: the measured requests of each, for results of their own."""

from __future__ import annotations

import numpy as np

from harness.columns import Columns, Flags
from harness.limits import BACKEND_CLASS

MOST = 8


def backend_split(columns: Columns) -> dict[str, Flags]:
    """Flags of requests by `backend:` and the name that replies gave; none unless several answered measured requests.

    Servers that a scenario lists under `url` are no backends in this sense: reports have a table of those. Of more
    than MOST names, which are then no names of engines, none is split off.
    """
    if columns.backend is None:
        return {}
    named = columns.backend[columns.measured_rows].unique().dropna()
    names = sorted(str(name) for name in named if "://" not in str(name))
    if not 1 < len(names) <= MOST:
        return {}
    return {f"{BACKEND_CLASS}{name}": np.asarray(columns.backend == name) for name in names}
