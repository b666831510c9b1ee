"""Schedules: what is fixed before the first request, and that it is the same every time."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ScenarioError
from harness.records import Loop, Phase
from harness.scenario.workload import TrafficClass, Workload
from harness.schedule.requests import build
from harness.schedule.timing import PHASES, Window
from tests.plans import SPREAD, load_of, schedule_of, workload_of

SECOND_NS = 1_000_000_000
TURNS = {"dist": "uniform", "min": 1, "max": 4}


def test_an_open_loop_has_its_phases_by_due_time() -> None:
    """Warm-up before the window, measured inside, cooldown after it for one time-out."""
    schedule = schedule_of(kind="sustained", rate=10, warmup="5s", duration="20s", timeout="7s", arrivals="constant")
    assert schedule.window == Window(5 * SECOND_NS, 25 * SECOND_NS)
    assert (schedule.loop, schedule.count, schedule.users, schedule.continues) == (Loop.OPEN, 320, 0, True)
    assert schedule.due_ns is not None
    assert schedule.phases is not None
    counts = Counter(PHASES[phase] for phase in schedule.phases)
    assert counts == {Phase.WARMUP: 50, Phase.MEASURE: 200, Phase.COOLDOWN: 70}
    assert set(np.diff(schedule.due_ns).tolist()) == {SECOND_NS // 10}
    assert schedule.row(50).phase == Phase.MEASURE
    assert schedule.row(50).due_ns == 5 * SECOND_NS


def test_an_open_loop_limited_by_requests_measures_exactly_so_many() -> None:
    """The warm-up comes before; as many again may follow, and the window ends when the first of those falls due."""
    schedule = schedule_of(kind="sustained", rate=10, warmup="5s", requests=100)
    assert schedule.phases is not None
    assert schedule.due_ns is not None
    counts = Counter(schedule.phases.tolist())
    assert (counts[1], counts[2], schedule.measured, schedule.continues) == (100, 100, 100, True)
    assert 20 < counts[0] < 90
    assert schedule.window == Window(5 * SECOND_NS, int(schedule.due_ns[counts[0] + 100]))
    assert schedule.to_be_done == counts[0] + 100


def test_what_follows_a_number_of_requests_lasts_a_time_out_at_most() -> None:
    """At 10/s for 3 s: the 101st request, with which the window ends, and the 29 within the time-out after it."""
    schedule = schedule_of(kind="sustained", rate=10, requests=100, arrivals="constant", timeout="3s")
    assert schedule.due_ns is not None
    assert schedule.window == Window(0, 10 * SECOND_NS)
    assert (schedule.count, schedule.to_be_done) == (130, 100)
    assert int(schedule.due_ns[-1]) < 13 * SECOND_NS


def test_the_limit_does_not_change_the_arrivals() -> None:
    """Due times do not depend on whether a number or a time ends the load."""
    by_number = schedule_of(kind="sustained", rate=10, requests=100)
    by_time = schedule_of(kind="sustained", rate=10, duration="60s")
    assert by_number.due_ns is not None
    assert by_time.due_ns is not None
    assert by_number.due_ns.tolist() == by_time.due_ns[:200].tolist()


def test_a_longer_warmup_leaves_the_measured_arrivals_alone() -> None:
    """The offsets from the start of the window are the same with and without a warm-up."""
    plain = schedule_of(kind="sustained", rate=10, duration="20s")
    warm = schedule_of(kind="sustained", rate=10, warmup="3s", duration="20s")
    assert plain.due_ns is not None
    assert warm.due_ns is not None
    assert (warm.due_ns[warm.due_ns >= 3 * SECOND_NS] - 3 * SECOND_NS).tolist() == plain.due_ns.tolist()


OPEN_LOADS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("sustained"), "rate": st.sampled_from([0.2, 1, 7.5, 40])}),
    st.fixed_dictionaries(
        {
            "kind": st.just("mixed"),
            "rate": st.sampled_from([0.5, 9]),
            "ramp": st.sampled_from([{"to": 20, "over": "1s"}, {"from": 0.3, "over": "500ms"}]),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("burst"),
            "rate": st.sampled_from([0.5, 3]),
            "burst_rate": st.sampled_from([2, 30]),
            "burst_for": st.sampled_from(["500ms", "2s"]),
            "every": st.sampled_from(["3s", "7s"]),
        }
    ),
)


@settings(max_examples=40)
@given(
    load=OPEN_LOADS,
    arrivals=st.sampled_from([{"arrivals": "constant"}, {"arrivals": "poisson"}, {"arrivals": "gamma", "cv": 2}]),
    warmup_s=st.integers(0, 9),
    limit=st.one_of(
        st.integers(1, 20).map(lambda n: {"duration": f"{n}s"}), st.integers(1, 99).map(lambda n: {"requests": n})
    ),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_open_plan_is_in_order_and_in_its_phases(
    load: dict[str, Any], arrivals: dict[str, Any], warmup_s: int, limit: dict[str, Any], seed: int
) -> None:
    """Due times rise, phases follow the window, and a number of requests is kept to the letter: two that fall due in
    the same nanosecond are distinguished by their rank.
    """
    schedule = schedule_of(seed, **load, **limit, **arrivals, warmup=f"{warmup_s}s", timeout="5s")
    assert schedule.due_ns is not None
    assert schedule.phases is not None
    assert schedule.count == len(schedule.due_ns) == len(schedule.phases)
    assert np.all(np.diff(schedule.due_ns) >= 0)
    assert np.all(schedule.due_ns >= 0)
    end_ns = schedule.window.end_ns
    assert end_ns is not None
    warmup = int((schedule.due_ns < warmup_s * SECOND_NS).sum())
    number = limit.get("requests", int((schedule.due_ns < end_ns).sum()) - warmup)
    rank = np.arange(schedule.count)
    assert np.array_equal(schedule.phases, np.where(rank < warmup, 0, np.where(rank < warmup + number, 1, 2)))
    assert np.all(schedule.due_ns[schedule.phases == 1] <= end_ns)
    assert np.all((schedule.due_ns >= end_ns)[schedule.phases == 2])
    assert np.all(schedule.due_ns < end_ns + 5 * SECOND_NS)
    assert "requests" not in limit or (schedule.phases == 2).sum() <= limit["requests"]


def test_a_closed_loop_names_each_users_requests() -> None:
    """User u's k-th request is k * users + u and follows the one before it, without end: a free user takes the next,
    so that the measured rows are unknown in advance.
    """
    schedule = schedule_of(kind="sustained", users=3, requests=8, think_time="2s")
    assert (schedule.loop, schedule.count, schedule.users, schedule.continues) == (Loop.CLOSED, None, 3, True)
    assert (schedule.measured, schedule.to_be_done) == (8, 8)
    rows = [schedule.row(i) for i in range(8)]
    assert [row.user for row in rows] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [row.after for row in rows] == [None, None, None, 0, 1, 2, 3, 4]
    assert [row.due_ns for row in rows] == [0, 0, 0, None, None, None, None, None]
    assert [row.think_ns for row in rows] == [0, 0, 0] + [2 * SECOND_NS] * 5
    assert {row.phase for row in rows} == {None}
    assert schedule.row(8).after == 5
    with pytest.raises(IndexError, match="there is no request -1"):
        schedule.row(-1)


def test_a_closed_loop_limited_by_duration_has_no_end() -> None:
    """Any row can be computed in any order and is always the same; the driver decides its phase."""
    schedule, again = (schedule_of(kind="sustained", users=4, duration="60s", warmup="5s") for _ in range(2))
    assert (schedule.count, schedule.continues, schedule.window.start_ns) == (None, True, 5 * SECOND_NS)
    wanted = [1_000_000, 3, 70_000, 3, 4095, 4096, 0]
    assert {i: schedule.row(i) for i in wanted} == {i: again.row(i) for i in sorted(wanted)}
    assert schedule.row(5).phase is None
    assert schedule.plan_hash == again.plan_hash


def test_a_single_user_is_a_closed_loop_of_one() -> None:
    """Every request follows the one before it."""
    schedule = schedule_of(kind="single_user", requests=5)
    assert schedule.users == 1
    assert [schedule.row(i).after for i in range(5)] == [None, 0, 1, 2, 3]


def test_a_spike_without_a_rate_is_the_whole_trial() -> None:
    """All its requests are measured."""
    schedule = schedule_of(kind="burst", spike={"requests": 50, "within": "1s"})
    assert (schedule.count, schedule.window, schedule.continues) == (50, Window(0, None), False)
    assert {schedule.row(i).phase for i in range(50)} == {Phase.MEASURE}


def test_a_spike_stands_on_its_base_rate() -> None:
    """The extra requests come at the stated time, in order with the others."""
    spike = {"requests": 50, "within": "1s", "at": "10s"}
    schedule = schedule_of(kind="burst", rate=2, spike=spike, duration="30s", warmup="5s")
    assert schedule.due_ns is not None
    assert np.all(np.diff(schedule.due_ns) >= 0)
    inside = (schedule.due_ns >= 15 * SECOND_NS) & (schedule.due_ns < 16 * SECOND_NS)
    assert 50 <= inside.sum() < 60


def test_bursts_begin_with_the_window() -> None:
    """The first measured period starts at the end of the warm-up, whatever its length."""
    schedule = schedule_of(
        kind="burst", rate=1, burst_rate=100, burst_for="2s", every="10s", duration="30s", warmup="3s"
    )
    assert schedule.due_ns is not None
    at_s = (schedule.due_ns - 3 * SECOND_NS) / SECOND_NS
    for burst in range(3):
        assert 150 < ((at_s >= 10 * burst + 4) & (at_s < 10 * burst + 6)).sum() < 260


def test_steps_are_measured_from_the_first_to_the_last() -> None:
    """The warm-up has the first rate, the cooldown the last, and the window lasts as long as the steps."""
    steps = [{"rate": 2, "for": "10s"}, {"rate": 10, "for": "10s"}]
    schedule = schedule_of(kind="steps", steps=steps, arrivals="constant", warmup="5s", timeout="3s")
    assert schedule.window == Window(5 * SECOND_NS, 25 * SECOND_NS)
    assert schedule.continues
    assert schedule.phases is not None
    assert Counter(PHASES[phase] for phase in schedule.phases) == {
        Phase.WARMUP: 10, Phase.MEASURE: 120, Phase.COOLDOWN: 30
    }  # fmt: skip


def test_a_ramp_begins_with_the_window() -> None:
    """From 2/s in the warm-up to 10/s after 10 s, then on at that rate."""
    schedule = schedule_of(
        kind="sustained", rate=2, ramp={"to": 10, "over": "10s"}, arrivals="constant", warmup="5s", duration="20s"
    )
    assert schedule.due_ns is not None
    at_s = schedule.due_ns / SECOND_NS - 5
    assert [((at_s >= low) & (at_s < low + 5)).sum() for low in (-5, 0, 5, 10, 15)] == [10, 20, 40, 50, 50]


def test_a_ramp_limited_by_requests_measures_exactly_so_many() -> None:
    """Mixed traffic may rise too."""
    schedule = schedule_of(kind="mixed", rate=8, ramp={"over": "5s"}, requests=100, arrivals="gamma", cv=2)
    assert (schedule.measured, schedule.to_be_done, schedule.continues) == (100, 100, True)
    assert schedule.count is not None
    assert {schedule.row(i).phase for i in range(100)} == {Phase.MEASURE}
    assert {schedule.row(i).phase for i in range(100, schedule.count)} == {Phase.COOLDOWN}


def test_classes_have_their_exact_shares() -> None:
    """Every hand of rows contains each class by its weight, in random order, with its own lengths."""
    classes = {
        "chat": TrafficClass.model_validate({"weight": 7, "workload": {"prompt_tokens": 10}}),
        "long": TrafficClass.model_validate({"weight": 3, "workload": {"prompt_tokens": 2000}}),
    }
    schedule = schedule_of(kind="mixed", rate=10, requests=400, classes=classes)
    names = [schedule.row(i).class_name for i in range(400)]
    for hand in range(10):
        assert Counter(names[hand * 40 : hand * 40 + 40]) == {"chat": 28, "long": 12}
    assert len({tuple(names[hand * 40 : hand * 40 + 40]) for hand in range(10)}) == 10
    assert {(row.class_name, row.prompt_tokens) for row in map(schedule.row, range(400))} == {
        ("chat", 10),
        ("long", 2000),
    }
    assert schedule.request(names.index("long")).prompt != schedule.request(names.index("chat")).prompt


@settings(max_examples=25)
@given(weights=st.lists(st.integers(1, 40), min_size=1, max_size=5), count=st.integers(1, 3000))
def test_no_class_strays_from_its_share(weights: list[int], count: int) -> None:
    """Over whole hands, uneven weights too, each class is within one request of its share."""
    classes = {f"c{i}": TrafficClass.model_validate({"weight": weight}) for i, weight in enumerate(weights)}
    schedule = schedule_of(kind="mixed", users=1, requests=count, classes=classes)
    hand = 1 if len(weights) == 1 else 10 * -(-sum(weights) // min(weights))
    names = [schedule.row(i).class_name for i in range(count - count % hand)]
    for name, weight in zip(classes, weights, strict=True):
        assert abs(names.count(name) - len(names) * weight / sum(weights)) <= 1


def test_a_class_too_rare_to_occur_is_refused() -> None:
    """Shares are exact within a hand of rows, which a share of one in a million would make endless."""
    classes = {name: TrafficClass.model_validate({"weight": weight}) for name, weight in (("usual", 1), ("rare", 1e-6))}
    with pytest.raises(ScenarioError, match=r"^classes\.rare\.weight: is less than 0\.0001 of the total weight"):
        schedule_of(kind="mixed", rate=1, requests=10, classes=classes)


def test_the_same_seed_gives_the_same_plan() -> None:
    """Hash, rows and requests agree between two builds and differ for another seed."""
    one, same, other = (schedule_of(seed, kind="sustained", rate=10, duration="10s") for seed in (1, 1, 2))
    assert one.plan_hash == same.plan_hash != other.plan_hash
    assert all(one.row(i) == same.row(i) and one.request(i) == same.request(i) for i in range(50))


def test_everything_that_changes_requests_changes_the_hash() -> None:
    """Rate, window, lengths, sampling, think time, users, classes, turns and time-out each give another plan."""
    base = {"kind": "sustained", "users": 2, "requests": 10}
    plans = [
        build(load_of(**base), workload_of(), 1),
        build(load_of(**base | {"users": 3}), workload_of(), 1),
        build(load_of(**base | {"think_time": "1s"}), workload_of(), 1),
        build(load_of(**base | {"warmup": "1s"}), workload_of(), 1),
        build(load_of(**base | {"requests": 11}), workload_of(), 1),
        build(load_of(**base), workload_of(sampling={"temperature": 1}), 1),
        build(load_of(**base), workload_of(stream=False), 1),
        build(load_of(**base), workload_of(repeat=0.5), 1),
        build(load_of(**base), workload_of(turns=3), 1),
        build(load_of(**base), workload_of(turns=4), 1),
        build(load_of(**base), workload_of(prefix={"tokens": 50}), 1),
        build(load_of(**base), workload_of(prefix={"tokens": 50, "groups": 2}), 1),
        build(load_of(**base), workload_of(output_tokens=SPREAD | {"exact": True}), 1),
        build(load_of(**base), workload_of(output_tokens={"dist": "fixed", "value": 5}), 1),
        build(load_of(kind="sustained", rate=3, duration="5s"), workload_of(), 1),
        build(load_of(kind="sustained", rate=3, duration="5s"), workload_of(), 1, timeout_s=3),
        build(load_of(kind="sustained", users=2, duration="5s"), workload_of(), 1),
        build(load_of(kind="sustained", rate=3, duration="5s", arrivals="gamma", cv=2), workload_of(), 1),
        build(load_of(kind="sustained", rate=3, duration="5s", arrivals="gamma", cv=3), workload_of(), 1),
    ]
    assert len({plan.plan_hash for plan in plans}) == len(plans)


@pytest.mark.parametrize(
    ("load", "workload", "plan_hash"),
    [
        ({"kind": "sustained", "rate": 10, "duration": "10s", "warmup": "2s"}, {}, "c2c8e0fe"),
        ({"kind": "sustained", "users": 2, "duration": "9s", "think_time": "1s"}, {"repeat": 0.25}, "674cb233"),
        (
            {"kind": "sustained", "users": 2, "requests": 9},
            {"turns": {"dist": "uniform", "min": 1, "max": 4}},
            "36eedf22",
        ),
        ({"kind": "sustained", "rate": 2, "requests": 9}, {"cancel": {"share": 0.5, "after": "1s"}}, "4f6249c6"),
        ({"kind": "mixed", "rate": 2, "requests": 9}, {"sampling": {"seed": 5}, "stream": False}, "25c76aa2"),
    ],
)
def test_the_hash_is_fixed(load: dict[str, Any], workload: dict[str, Any], plan_hash: str) -> None:
    """The generator still makes the plans it made when this version was written: stored runs can be compared."""
    classes = {name: TrafficClass.model_validate({"weight": 1, "priority": place}) for place, name in enumerate("ab")}
    plan = build(load_of(**load), workload_of(**workload), 20_240_517, classes=classes)
    assert plan.plan_hash[:8] == plan_hash


def test_the_seed_deals_the_classes() -> None:
    """Their order differs between seeds and between the blocks of a plan; their numbers do not."""
    classes = {name: TrafficClass.model_validate({"weight": weight}) for name, weight in (("a", 1), ("b", 3))}
    plans = [schedule_of(seed, classes, kind="mixed", users=2, duration="9s") for seed in (1, 1, 2)]
    one, same, other = ([plan.row(i).class_name for i in range(8000)] for plan in plans)
    assert one == same != other
    assert one[:4000] != one[4000:]
    assert Counter(one) == Counter(other) == {"a": 2000, "b": 6000}


@pytest.mark.parametrize("exact", [True, False])
def test_replies_of_a_trace_are_as_exact_as_its_load_says(exact: bool, tmp_path: Path) -> None:
    """The load decides, not the lengths of the workload, which a trace replaces. The file is a part of the plan."""
    path = tmp_path / "trace.csv"
    path.write_text("due_s,prompt_tokens,output_tokens\n0,10,5\n1.5,20,7\n")
    workload = workload_of(output_tokens=SPREAD | {"exact": not exact})
    plan = build(load_of(kind="trace", file=path, exact=exact), workload, 1)
    assert [(plan.request(i).exact, plan.request(i).max_tokens) for i in range(2)] == [(exact, 5), (exact, 7)]
    assert plan.plan_hash[:8] == ("7cdab77c" if exact else "49e9b5f1")


def test_cancelled_rows_and_their_times_are_drawn() -> None:
    """Half of them after exactly a second, the others never; also in a loop without end."""
    workload = workload_of(cancel={"share": 0.5, "after": "1s"})
    for load in ({"kind": "sustained", "rate": 9, "requests": 900}, {"kind": "single_user", "duration": "9s"}):
        plan = build(load_of(**load), workload, 1)
        times = Counter(plan.row(i).cancel_ns for i in range(900))
        assert set(times) == {None, SECOND_NS}
        assert times[SECOND_NS] == pytest.approx(450, abs=60)


def test_the_classes_of_rows_are_known_without_the_rows() -> None:
    """A search asks for those of all rows at once, as many as there may be."""
    load = load_of(kind="saturate")
    mixed = build(load, workload_of(), 3, classes={"a": TrafficClass(weight=3), "b": TrafficClass()})
    mixed.replace_rows(np.arange(9000), np.zeros(9000, dtype=np.int8), mixed.window)
    known = mixed.classes_of(9000)
    assert len(known) == 9000
    assert [mixed.row(i).class_name for i in range(0, 9000, 50)] == [("a", "b")[one] for one in known[::50]]
    assert build(load, workload_of(), 3).classes_of(5).tolist() == [0] * 5


def test_rows_are_numbered_within_their_class() -> None:
    """A file of prompts is read by the rows of its class alone: their numbers rise by one, over blocks too."""
    classes = {name: TrafficClass.model_validate({"weight": weight}) for name, weight in (("a", 1), ("b", 3))}
    plan = schedule_of(1, classes, kind="mixed", users=2, duration="9s")
    seen: Counter[str] = Counter()
    for i in range(9000):
        name = plan.row(i).class_name
        assert plan._traffic.number_in_class(i) == seen[name]
        seen[name] += 1


def test_a_plan_counts_tokens_as_the_model_does() -> None:
    """Its tokenizer counts, and nothing does without one."""

    class Letters:
        def count(self, text: str) -> int:
            return len(text)

    with_tokenizer, without = (
        build(load_of(kind="single_user", requests=3), workload_of(), 1, tokenizer=tokenizer)
        for tokenizer in (Letters(), None)
    )
    assert with_tokenizer.count_tokens is not None
    assert with_tokenizer.count_tokens("abc") == 3
    assert without.count_tokens is None


def test_longer_plans_begin_with_the_shorter() -> None:
    """The first rows of 100 and of 10,000 requests are alike, and so are those of a loop without end."""
    short, long = (schedule_of(kind="sustained", users=2, requests=count) for count in (100, 10_000))
    endless = schedule_of(kind="sustained", users=2, duration="1s")
    for i in range(100):
        assert short.row(i) == long.row(i)
        assert short.request(i) == endless.request(i)


def test_requests_carry_the_options_of_the_workload() -> None:
    """Sampling, streaming, exactness and lengths arrive in the request."""
    workload = workload_of(
        output_tokens={"dist": "fixed", "value": 9, "exact": True},
        sampling={"temperature": 0, "stop": "\n"},
        stream=False,
    )
    request = build(load_of(kind="single_user", requests=1), workload, 1).request(0)
    assert (request.max_tokens, request.exact, request.stream) == (9, True, False)
    assert request.sampling == {"temperature": 0, "stop": ["\n"]}


def test_prompts_from_a_file_bring_their_own_lengths(tmp_path: Path) -> None:
    """A line's output length replaces the distribution's; a prompt that cannot be counted has no length."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "One", "output_tokens": 3}\n{"prompt": [5, 6]}\n')
    workload = Workload.model_validate({"prompts": path, "output_tokens": 40})
    schedule = build(load_of(kind="single_user", requests=3), workload, 1)
    assert [schedule.request(i).prompt for i in range(3)] == ["One", (5, 6), "One"]
    assert [schedule.row(i).output_tokens for i in range(3)] == [3, 40, 3]
    assert [schedule.row(i).prompt_tokens for i in range(3)] == [None, 2, None]
    assert schedule.prompt_sources == {"default": "file"}


def test_a_million_rows_stay_small() -> None:
    """A plan of a million requests needs less than 100 MB."""
    tracemalloc.start()
    schedule = schedule_of(kind="sustained", rate=10_000, duration="98s", timeout="2s")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert schedule.count == pytest.approx(1_000_000, rel=0.01)
    assert held < 100e6


def test_shards_put_together_are_the_schedule() -> None:
    """For any number of workers, the union of their independently built rows is the plan."""
    whole = schedule_of(kind="sustained", rate=50, duration="10s")
    assert whole.count is not None
    for workers in (2, 8):
        plans = [schedule_of(kind="sustained", rate=50, duration="10s") for _ in range(workers)]
        shards = [[plan.row(i) for i in range(first, whole.count, workers)] for first, plan in enumerate(plans)]
        merged = sorted(itertools.chain(*shards), key=lambda row: row.request)
        assert merged == [whole.row(i) for i in range(whole.count)]
