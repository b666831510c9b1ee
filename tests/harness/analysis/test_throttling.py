"""What held a GPU back, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.samples.machine import shares_of_time, throttling_facts
from harness.analysis.window import Window
from harness.records import Sample
from harness.store.manifest import TrialEntry
from harness.telemetry.gpus.gauges import REASONS, SLOWED_DOWN, as_readings, named
from harness.verdict.machine import machine_reasons
from harness.verdict.reason import Level
from tests.fabricated import trial_of

T0_NS = 10**12
WINDOW = Window(0.0, 10e9, "0 s to 10 s")
IDLE, POWER_CAP, HOT, BRAKE = 0x1, 0x4, 0x40 | 0x8, 0x80 | 0x8


def facts(masks: Sequence[int], source: str = "gpu0", scope: str = "server") -> dict[str, Any]:
    """The facts of masks that were read ten times a second, from T0 on."""
    told = [Sample(T0_NS + i * 10**8, source, "throttle_reasons", float(mask), scope) for i, mask in enumerate(masks)]
    return throttling_facts(TrialEntry(t0_ns=T0_NS), WINDOW, trial_of((), told).samples())


def test_a_tenth_of_the_window_in_heat_is_told() -> None:
    """With its reason; what is harmless is told and not counted."""
    found = facts([HOT] * 10 + [POWER_CAP] * 50 + [0] * 40)["gpu0"]
    assert found["share"] == pytest.approx(0.1)
    assert found["reasons"] == pytest.approx(
        {"hardware slowdown": 0.1, "hardware thermal slowdown": 0.1, "software power cap": 0.5}
    )


def test_readings_outside_the_window_do_not_count() -> None:
    """Heat in the cooldown is none of the measurement."""
    assert facts([0] * 100 + [HOT] * 100)["gpu0"]["share"] == 0.0
    assert facts([HOT] * 10, scope="client") == {}
    assert throttling_facts(TrialEntry(t0_ns=None), WINDOW, trial_of(()).samples()) == {}


@pytest.mark.parametrize(
    ("hot", "codes", "words"),
    [(0, [], ""), (1, [], ""), (2, [], ""), (3, ["machine"], "Cool"), (20, ["machine"], "Compare with no other")],
)
def test_more_than_a_fiftieth_warns(hot: int, codes: list[str], words: str) -> None:
    """Never invalid: it is what was measured."""
    found = list(machine_reasons(TrialEntry(), {"throttling": facts([HOT] * hot + [IDLE] * (100 - hot))}, 10.0))
    assert [reason.code for reason in found] == codes
    assert all(reason.level is Level.WARN and words in reason.advice for reason in found)
    assert all("hardware thermal slowdown" in reason.sentence for reason in found)


def test_a_power_cap_is_told_and_not_judged() -> None:
    """GPUs run at their cap by design."""
    assert not list(machine_reasons(TrialEntry(), {"throttling": facts([POWER_CAP] * 100)}, 10.0))


def test_what_is_named_is_what_counts() -> None:
    """The bits that count as slowed down all have names, and the brake is one of them."""
    assert named(SLOWED_DOWN) == [REASONS[bit] for bit in (0x8, 0x20, 0x40, 0x80)]
    assert as_readings(BRAKE)["throttled"] == 1.0
    assert as_readings(POWER_CAP | IDLE)["throttled"] == 0.0
    assert named(1 << 40) == ["reason 0x10000000000"]


@given(st.lists(st.tuples(st.integers(0, 2**11 - 1), st.floats(0.0, 10.0)), min_size=1, max_size=50))
def test_shares_are_shares(read: list[tuple[int, float]]) -> None:
    """Every share lies between 0 and 1, and the whole is no less than its largest cause."""
    found = shares_of_time(np.array([mask for mask, _ in read]), np.array([lasted for _, lasted in read]))
    assert all(-1e-9 <= share <= 1 + 1e-9 for share in [found["share"], *found["reasons"].values()])
    causes = [found["reasons"].get(name, 0.0) for name in named(SLOWED_DOWN)]
    assert found["share"] >= max(causes) - 1e-9
