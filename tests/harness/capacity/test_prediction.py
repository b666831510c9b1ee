"""What a plan's rule predicts at a point that was not measured, and where it predicts nothing."""

from __future__ import annotations

import numpy as np
import pytest

from harness.capacity.measured import Candidate
from harness.capacity.prediction import UNSURE_ABOVE, Predicted, Setting, largest_rate, predict
from harness.seeding import generator
from tests.planned import FAILS, candidate, point

SEED = 1


def predicted(setting: Setting, one: Candidate | None = None) -> Predicted:
    """The prediction from a candidate that holds 5.5 requests/s, by default."""
    return predict(one or candidate(), setting, SEED)


def test_between_two_tested_rates_the_logarithm_of_ttft_is_on_a_line() -> None:
    """p95 300 ms at 4 and 5.5 requests/s, 900 ms at 7."""
    assert predicted(Setting(4.7)).ttft_p95_ms == pytest.approx(300)
    assert predicted(Setting(6.25)).ttft_p95_ms == pytest.approx((300 * 900) ** 0.5)
    assert predicted(Setting(5.5)).output_tokens_per_s == pytest.approx(64 * 5.5)


def test_nothing_is_predicted_outside_of_what_was_tested() -> None:
    """Neither below nor above, and a sentence says so."""
    for rate in (3.0, 8.0):
        found = predicted(Setting(rate))
        assert found.ttft_p95_ms is None
        assert f"TTFT is not predicted at {rate:g} requests/s for a replica: 4 to 7 were tested" in found.why
    assert predicted(Setting(8.0)).output_tokens_per_s is None
    assert predicted(Setting(8.0)).chance == pytest.approx(0, abs=0.01)
    overloaded = candidate([point(4.0), point(5.5), point(7.0, FAILS, overloaded=True)])
    assert predicted(Setting(6.0), overloaded).ttft_p95_ms is None


def test_whether_rates_above_all_tested_ones_hold_is_not_predicted() -> None:
    """Unless one of them failed. A rate that is the highest one but for its rounding is that one."""
    held = candidate([point(4.0), point(5.5)])
    found = predicted(Setting(6.0), held)
    assert found.chance is None
    assert UNSURE_ABOVE in found.why
    at, rounded = (predicted(Setting(rate), held).chance for rate in (5.5, 5.501))
    assert (at, rounded) == (pytest.approx(1.0, abs=0.01), at)


def test_the_busiest_replica_decides() -> None:
    """Two replicas at 10 requests/s with an imbalance of 1.1: that of 5.5."""
    found = predicted(Setting(10.0, replicas=2, imbalance=1.1))
    assert found.ttft_p95_ms == pytest.approx(300)
    assert found.load == pytest.approx(1.0)
    assert found.output_tokens_per_s == pytest.approx(640)
    assert found.chance is not None
    assert found.chance > 0.99
    known = candidate().capacity
    assert known is not None
    assert largest_rate(known, Setting(1.0, replicas=2, imbalance=1.1)) == pytest.approx(10.0)


def test_longer_replies_count_as_more_of_them() -> None:
    """5 requests/s with replies 1.1 times as long are like 5.5, with as many tokens/s."""
    found = predicted(Setting(5.0, output=1.1))
    assert found.ttft_p95_ms == pytest.approx(300)
    assert found.output_tokens_per_s == pytest.approx(5.0 * 64 * 1.1)


def test_burstier_arrivals_need_the_variation_of_those_measured() -> None:
    """Otherwise nothing is predicted but tokens/s; with it, whether the rate holds still is not."""
    found = predicted(Setting(5.5, cv=2.0))
    assert (found.chance, found.ttft_p95_ms, found.output_tokens_per_s) == (None, None, 64 * 5.5)
    assert len(found.why) == 2


def test_where_few_requests_wait_burstier_arrivals_are_not_predicted() -> None:
    """p95 is decided by how many come at once, of which the law of long queues knows nothing."""
    calm = {"ttft_p50_ms": 20.0, "e2e_p50_ms": 900.0, "e2e_p95_ms": 1900.0, "output_tokens_per_s": 1.0}
    points = [point(rate, cv=1.0, numbers=calm | {"ttft_p95_ms": 25.0}) for rate in (4.0, 5.5)]
    found = predicted(Setting(5.5, cv=2.0), candidate(points))
    assert found.ttft_p95_ms is None
    assert "TTFT of burstier arrivals is predicted only where most requests wait" in found.why


@pytest.mark.parametrize("cv", [0.5, 1.5, 2.0])
def test_the_wait_of_one_server_is_predicted_from_poisson_arrivals(cv: float) -> None:
    """Known answer: a single server at 80 % load, log-normal services with a variation of 0.5, long runs."""
    poisson, other = (_ttft_ms(one) for one in (1.0, cv))
    services = {"e2e_p50_ms": 894.4, "e2e_p95_ms": 894.4 * np.exp(1.644854 * 0.4724), "output_tokens_per_s": 1.0}
    calm = point(1.0, cv=1.0, numbers={"ttft_p50_ms": 1.0, "ttft_p95_ms": 900.0, **services})
    busy = point(5.5, cv=1.0, numbers={"ttft_p50_ms": 1000.0, "ttft_p95_ms": poisson, **services})
    found = predicted(Setting(5.5, cv=cv), candidate([calm, busy]))
    assert found.ttft_p95_ms == pytest.approx(other, rel=0.15)


def _ttft_ms(cv: float, load: float = 0.8, count: int = 400_000) -> float:
    """p95 of the wait for one server whose services take a second on average (Lindley's recursion)."""
    rng = generator(SEED, 1)
    gaps = rng.gamma(1 / cv**2, cv**2 / load, count)
    services = rng.lognormal(np.log(0.8944), 0.4724, count)
    walk = np.concatenate([[0.0], np.cumsum(services[:-1] - gaps[1:])])
    waits = walk - np.minimum.accumulate(walk)
    return 1 + 1000 * float(np.percentile(waits[count // 10 :], 95))
