"""Largest number of users that keep the SLO: by the share of requests that met it at each number of users tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

DEFAULT_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Tried:
    """Number of users tried. attainment: share of the requests that met the SLO, with its 95 % interval."""

    users: int
    attainment: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class UsersWithinSlo:
    """Largest number of users at which a share of the requests meets the SLO.

    Attributes:
        share: Share of the requests that must meet it.
        meets: Largest number of users that surely meets it, as all smaller ones may: the one to plan with. None if
            none does.
        misses: Smallest number of users that surely misses it; None if none does.
        unsure: Numbers of users between them that were tried; neither is sure.
        value: Number of users at which the share is reached, between the two neighbours; NaN if it is not between two.
    """

    share: float
    meets: int | None
    misses: int | None
    unsure: tuple[int, ...]
    value: float


def users_within_slo(tried: Sequence[Tried], share: float = DEFAULT_SHARE) -> UsersWithinSlo:
    """Return the largest number of users that keeps the SLO.

    Surely met: the whole interval of the attainment is at least `share`. Surely missed: the whole interval is below.
    """
    ordered = sorted(tried, key=lambda one: one.users)
    misses = next((one.users for one in ordered if one.high < share), None)
    below = [one for one in ordered if misses is None or one.users < misses]
    meets = max((one.users for one in below if one.low >= share), default=None)
    unsure = tuple(one.users for one in below if meets is None or one.users > meets)
    return UsersWithinSlo(share, meets, misses, unsure, _crossing(ordered, share))


def _crossing(ordered: Sequence[Tried], share: float) -> float:
    """Return where the attainment first falls below the share: by a line between the log odds of two neighbours."""
    for below, above in pairwise(ordered):
        if below.attainment >= share > above.attainment:
            first, last, wanted = (_log_odds(one) for one in (below.attainment, above.attainment, share))
            return below.users + (above.users - below.users) * (first - wanted) / (first - last)
    return math.nan


def _log_odds(share: float) -> float:
    """Return log(share / (1 - share)), finite for 0 and 1 too."""
    inside = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(inside / (1 - inside))
