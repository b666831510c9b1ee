"""What a server said of itself over a window is exact where its page was read at the ends, and labelled where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.samples.server import NAMES, SELDOM, server_facts, server_readings, why_missing
from harness.analysis.window import Window
from harness.metrics import METRICS
from harness.store.manifest import TrialEntry

S = 1_000_000_000
T0 = 7 * S
PAGE = {"url": "http://s/metrics", "source": "server0", "kind": "vllm", "reason": None}
FIXED = {"start_ns": 10 * S, "end_ns": 20 * S}


def facts_of(
    read: Mapping[str, Sequence[tuple[float, float]]],
    *,
    window: Mapping[str, Any] = FIXED,
    pages: Sequence[Mapping[str, Any]] | None = (PAGE,),
    source: str = "server0",
    more: pd.DataFrame | None = None,
    ended_s: float = 21.0,
    asked_s: Sequence[tuple[float, float]] = ((0.0, 21.0),),
) -> dict[str, Any]:
    """The facts of a trial whose window is from 10 to 20 s; read: name to (seconds from T0, value).   asked_s: when
    each request was sent and had ended.
    """
    told = {"t0_ns": T0, "window": window, "begun_ns": T0 + 5 * S, "ended_ns": T0 + round(ended_s * S)}
    trial = TrialEntry.model_validate(told | ({} if pages is None else {"pages": list(pages)}))
    samples = frame(read, source)
    both = samples if more is None else pd.concat([samples, more])
    sent, ended = (np.array(moments) * S for moments in zip(*asked_s, strict=True))
    columns = SimpleNamespace(times={"sent": sent}, ended=ended)
    reading: Any = SimpleNamespace(trial=trial, window=Window(10 * S, 20 * S, ""), columns=columns)
    return server_facts(reading, both)


def frame(read: Mapping[str, Sequence[tuple[float, float]]], source: str = "server0") -> pd.DataFrame:
    """Samples."""
    rows = [
        (T0 + round(at_s * S), source, name, value, "server", 2_000_000)
        for name, told in read.items()
        for at_s, value in told
    ]
    return pd.DataFrame(rows, columns=["at_ns", "source", "name", "value", "scope", "width_ns"])


def test_counters_are_taken_at_the_ends() -> None:
    """Readings at the ends give the increase; those of before and after do not matter."""
    found = facts_of(
        {
            "generation_tokens": [(8, 0), (10.002, 100), (15, 400), (19.999, 600), (21, 900)],
            "prefix_hits_tokens": [(10.002, 10), (19.999, 40)],
            "prefix_queries_tokens": [(10.002, 100), (19.999, 200)],
            "queue_time_s": [(10.002, 1), (19.999, 3.5)],
            "queue_time_count": [(10.002, 10), (19.999, 60)],
            "preemptions": [(10.002, 2), (19.999, 2)],
        }
    )
    assert found["window"] == pytest.approx(
        {"generation_tokens": 500, "prefix_hit_share": 0.3, "queue_time_ms_mean": 50, "preemptions": 0}
    )
    assert found["ends"]["start"] == {"how": "read", "off_ms": pytest.approx(2), "width_ms": 2.0}
    assert found["ends"]["end"]["off_ms"] == pytest.approx(-1)
    assert (found["pages"], found["notes"], found["reason"]) == ([PAGE], [], None)
    assert server_readings({"server": found}) == pytest.approx(
        {"prefix_hit_share": 0.3, "server_queue_ms_mean": 50, "preemptions": 0}
    )


def test_between_two_readings_a_counter_is_interpolated_and_says_so() -> None:
    """The page was busy at both ends: how far apart the readings are is what is not known."""
    found = facts_of({"generation_tokens": [(9.5, 0), (10.5, 100), (19.25, 1000), (20.25, 1100)]})
    assert found["window"]["generation_tokens"] == pytest.approx(1075 - 50)
    assert found["ends"]["start"] == {"how": "between", "off_ms": 1000.0, "width_ms": 2.0}


def test_without_a_reading_near_an_end_nothing_is_known() -> None:
    """The page failed for half of the window: an increase over less than the window is no increase over it."""
    found = facts_of({"generation_tokens": [(10, 0), (15, 400)], "running_requests": [(10, 1), (15, 3)]})
    assert found["window"] == {}
    assert found["notes"] == [
        "The server's counters are not known: no page was read near an end of the window.",
        f"The server's gauges are not known: {SELDOM}.",
    ]


@pytest.mark.parametrize(("hung_at_s", "mean"), [(20, 4.0), (17, 4.0), (12, None)])
def test_a_reading_from_before_a_page_hung_stands_for_a_moment_only(hung_at_s: int, mean: float | None) -> None:
    """What the server did later is not guessed: nothing is said where that is more than half of the window."""
    found = facts_of({"running_requests": [(at_s, 4) for at_s in range(10, hung_at_s + 1)], "preemptions": [(10, 0)]})
    gauge = found["window"].get("running_requests")
    assert (gauge and gauge["mean"]) == mean
    assert (why_missing(found).get("server_running_mean") == SELDOM) is (mean is None)


def test_a_server_that_hangs_leaves_no_sum_with_the_others() -> None:
    """Its last reading is not added to what the other tells for the rest of the window."""
    other = frame({"running_requests": [(10, 7), (11, 7)]}, "server1")
    found = facts_of({"running_requests": [(at_s, 1) for at_s in range(10, 21)]}, more=other)
    assert (found["window"], found["seldom"]) == ({}, ["running_requests"])


def test_a_reading_on_the_wrong_side_is_named_so() -> None:
    """The last reading came a second before the end, and no other after it."""
    found = facts_of({"preemptions": [(10, 0), (19, 4)]})
    assert found["window"] == {"preemptions": 4}
    assert found["ends"]["end"] == {"how": "nearest", "off_ms": -1000.0, "width_ms": 2.0}


def test_a_load_that_ends_by_itself_is_read_when_it_is_over() -> None:
    """Nothing is asked of the server before T0 or after the last reply: what is read there is exact, seconds off; but
    not what was read before the trial before it had ended, or when the next had begun.
    """
    counted = {"generation_tokens": [(4, 7), (6, 50), (11, 60), (19.5, 300), (22.5, 450), (23, 999)]}
    closed = {"start_ns": 0, "end_ns": None}
    within = [(10.0, 14.0), (14.0, 20.0)]
    found = facts_of(counted, window=closed, ended_s=22.4, asked_s=within)
    assert found["window"] == {"generation_tokens": 400}
    assert [found["ends"][end]["how"] for end in ("start", "end")] == ["idle", "idle"]
    counted = {"generation_tokens": [(4, 7), (11, 60), (19.5, 300), (23.5, 999)]}
    found = facts_of(counted, window=closed, ended_s=22.4, asked_s=within)
    assert [found["ends"][end]["how"] for end in ("start", "end")] == ["nearest", "nearest"]


@pytest.mark.parametrize(
    ("asked_s", "ends"),
    [
        ([(8.0, 12.0), (12.0, 20.0)], ["between", "idle"]),
        ([(10.0, 14.0), (14.0, 20.5)], ["idle", "between"]),
        ([(10.0, 20.0), (20.0, 22.0)], ["idle", "between"]),
    ],
    ids=["asked while the load came up", "still in flight", "asked after the window"],
)
def test_a_server_that_was_asked_outside_the_window_was_not_idle(
    asked_s: Sequence[tuple[float, float]], ends: list[str]
) -> None:
    """100 tokens a second from the first request sent until the last one ended are 1,000 in the window's ten."""
    readings_s = np.array([8.5, 9.5, 10.5, 15.0, 19.5, 20.5])
    tokens = 100 * (np.clip(readings_s, asked_s[0][0], asked_s[-1][1]) - asked_s[0][0])
    counted = {"generation_tokens": list(zip(readings_s.tolist(), tokens.tolist(), strict=True))}
    found = facts_of(counted, window={"start_ns": 0, "end_ns": None}, ended_s=22.0, asked_s=asked_s)
    assert [found["ends"][end]["how"] for end in ("start", "end")] == ends
    assert found["window"] == {"generation_tokens": pytest.approx(1000)}


def test_a_server_that_was_started_again_has_no_increase() -> None:
    """A counter that falls tells it; gauges are as good as before."""
    waiting = [(at_s, 1.0) for at_s in range(10, 21)]
    found = facts_of({"preemptions": [(10, 9), (15, 1), (20, 30)], "waiting_requests": waiting})
    assert found["window"] == {"waiting_requests": {"mean": 1.0, "max": 1.0}}
    assert found["notes"] == ["A counter of server0 fell during the window: the server was started again."]
    assert "fell" in why_missing(found)["preemptions"]
    assert "server_waiting_mean" not in why_missing(found)


def test_a_gauge_is_weighted_by_the_time_it_stands_for() -> None:
    """Readings are not evenly spaced; those outside the window do not count."""
    found = facts_of(
        {"waiting_requests": [(9, 50), *[(at_s, 0) for at_s in range(10, 19, 2)], (19, 8), (20, 8), (21, 99)]}
    )
    assert found["window"]["waiting_requests"] == {"mean": pytest.approx(1.2), "max": 8}


def test_several_servers_add_up() -> None:
    """Requests and counters of all; the caches' shares are averaged."""

    def each(start: float, end: float) -> list[tuple[float, float]]:
        """A gauge that changes in the middle of the window."""
        return [(at_s, start if at_s < 15 else end) for at_s in (10, 12, 14, 16, 18, 20)]

    gauges: dict[str, Any] = {"running_requests": each(1, 3), "kv_cache_share": each(0.2, 0.4)}
    other = frame({"running_requests": each(2, 2), "kv_cache_share": each(0.6, 0.8)}, "server1")
    counters = frame({"preemptions": [(10, 0), (20, 2)]}, "server1")
    found = facts_of({**gauges, "preemptions": [(10, 5), (20, 6)]}, more=pd.concat([other, counters]))
    assert found["window"]["running_requests"] == {"mean": pytest.approx(4), "max": 5}
    assert found["window"]["kv_cache_share"] == pytest.approx({"mean": 0.5, "max": 0.6})
    assert found["window"]["preemptions"] == 3


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        (None, "no page of the server was read in this run"),
        ((), "the engine has no page of its own, and `metrics_urls` names none"),
        ((PAGE,), "no page was read during the trial"),
        ((PAGE | {"source": None, "kind": "dcgm"},), "`metrics_urls` names exporters only"),
        ((PAGE | {"reason": "answers with status 404"},), "the page http://s/metrics answers with status 404"),
        (
            (PAGE | {"reason": "holds none of the names that are known"},),
            "the page http://s/metrics holds none of the names that are known; see `names` of `metrics_urls`",
        ),
    ],
)
def test_nothing_read_has_a_reason(pages: Any, why: str) -> None:
    """Each of the metrics is missing for it."""
    found = facts_of({}, pages=pages)
    assert (found["window"], found["reason"]) == ({}, why)
    assert why_missing(found) == dict.fromkeys(NAMES, why)
    assert server_readings({"server": found}) == server_readings(None) == {}


def test_what_a_page_does_not_tell_is_missing_for_that() -> None:
    """llama.cpp's page has no KV cache."""
    found = facts_of({"running_requests": [(at_s, 1) for at_s in range(10, 21)]})
    assert set(why_missing(found)) == {*NAMES} - {"server_running_mean"}
    assert why_missing(found)["kv_cache_peak_share"] == "the server's page does not report it"


def test_the_metrics_are_declared() -> None:
    """Each name that is given a value has a definition."""
    assert set(NAMES) <= set(METRICS)


@given(st.lists(st.tuples(st.floats(9, 21), st.floats(0, 100)), min_size=2, max_size=30, unique_by=lambda one: one[0]))
def test_a_mean_lies_between_the_readings(told: list[tuple[float, float]]) -> None:
    """Of any readings."""
    gauge = facts_of({"running_requests": sorted(told)})["window"].get("running_requests")
    if gauge is not None:
        values = [value for _, value in told]
        assert min(values) - 1e-9 <= gauge["mean"] <= gauge["max"] + 1e-9 <= max(values) + 2e-9
