"""A plan: replicas and cost of a candidate, by hand and as properties of every plan."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.capacity.demand import Demand, of_hours
from harness.capacity.measured import Candidate
from harness.capacity.missing import finer, measure_command
from harness.capacity.plain import as_data
from harness.capacity.plan import plan
from harness.capacity.ranking import rank
from harness.capacity.requirements import Requirement
from harness.errors import UsageError
from harness.prices.catalogue import read_catalogue
from harness.store.manifest import Manifest
from tests.planned import FAILS, HOLDS, UNSURE, candidate, point, terms

DAY = [1, 1, 1, 1, 1, 2, 4, 8, 12, 14, 14, 13, 12, 13, 14, 14, 13, 12, 10, 8, 6, 4, 2, 1]


def test_four_machines_hold_twelve_requests_a_second() -> None:
    """12 * 1.1 / (5.5 * 0.8) = 3, one spare, 4 * 1.006 * 730 h = $2,938."""
    found = plan(candidate(), terms())
    assert (found.base, found.spares, found.mix.total) == (3, 1, 4)
    assert f"{found.usd_per_month:,.0f}" == "2,938"
    assert found.planned.per_1k_requests_usd == pytest.approx(4 * 1.006 / (12 * 3.6))
    assert found.full.per_1k_requests_usd == pytest.approx(1.006 / (5.5 * 3.6))
    assert found.machine_hours == found.gpu_hours == 4 * 730
    assert found.perfect_hours == 3 * 730
    assert found.lead_s == 360


def test_one_replica_more_survives_a_loss() -> None:
    """Exactly one; a zone takes as many as stand in it."""
    totals = [plan(candidate(), terms(survive=one)).mix.total for one in ("nothing", "replica", "zone")]
    assert totals == [3, 4, 6]


def test_headroom_growth_and_imbalance_are_assumptions() -> None:
    """Each changes the plan as its rule says."""
    assert plan(candidate(), terms(headroom="100%", imbalance=1)).base == 3
    assert plan(candidate(), terms(headroom="50%")).base == 5
    assert plan(candidate(), terms(growth="50%")).base == 5
    assert plan(candidate(), terms(imbalance=1.5)).base == 5


def test_a_replica_that_may_not_hold_its_rate_needs_more_beside_it() -> None:
    """The tested rate holds by its interval; the forecast is off by 30 %, so that the rule's three are too few."""
    usual, unsure = plan(candidate(), terms()), plan(candidate(), terms(forecast_error="30%"))
    assert usual.chance > 0.95
    assert unsure.base > usual.base
    assert unsure.chance >= 0.95
    assert unsure.draws.chance(unsure.base - 1) < 0.95


def test_a_chance_that_no_measurement_supports_is_not_claimed() -> None:
    """The only tested rate holds with 97.5 %: a chance of 99.9 % is out of reach of any number of replicas."""
    limit = (400.0, 320.0, 499.9)
    found = rank([candidate([point(4.0, limit)])], terms(chance="99.9%"))
    data = as_data(found)
    assert data["plans"][0]["chance"] == pytest.approx(0.975, abs=0.005)
    assert [one["replicas"] is None for one in data["nines"]] == [False, True, True]
    assert "the chance is 97." in data["missing"][0]["why"]
    assert "rate: [2, 4], duration: 30m" in data["missing"][0]["command"]


def test_working_hours_are_paid_for_with_the_time_of_a_start() -> None:
    """45 of 168 hours, and five times six minutes."""
    found = plan(candidate(), terms(scaling="hours", hours="weekdays"))
    assert found.usd_per_month == pytest.approx(4 * 1.006 * 730 * (45 + 5 * 0.1) / 168)
    saved = 1 - found.usd_per_month / plan(candidate(), terms()).usd_per_month
    assert saved == pytest.approx(0.729, abs=0.001)


def test_following_the_demand_costs_less_than_its_peak_and_more_than_a_perfect_autoscaler() -> None:
    """Which has no spares, no headroom and no lag."""
    demand = of_hours(DAY, "day")
    fixed, auto = plan(candidate(), terms(demand)), plan(candidate(), terms(demand, scaling="auto"))
    assert auto.perfect_hours < auto.machine_hours < fixed.machine_hours
    assert auto.base == fixed.base
    assert auto.week.max() == auto.base


@pytest.mark.parametrize("scaling", [{"scaling": "auto"}, {"scaling": "hours", "hours": "weekdays"}])
@pytest.mark.parametrize("pricing", ["reserved", "owned"])
def test_machines_that_are_kept_are_paid_for_all_the_time(
    tmp_path: Path, pricing: str, scaling: dict[str, str]
) -> None:
    """As many as run in the busiest hour, whether replicas run on them at night or not."""
    file = tmp_path / "prices.yaml"
    kinds = "reserved: {usd_per_hour: 0.6, term: 1 year}, owned: {usd: 26280, years: 3, watts: 0, usd_per_kwh: 0}"
    file.write_text(f"instances:\n  g5.xlarge: {{date: 2026-11-30, source: contract, gpus: 1, {kinds}}}\n")
    asked = replace(terms(of_hours(DAY, "day"), pricing=pricing, **scaling), catalogue=read_catalogue(file))
    found = plan(candidate(), asked)
    assert found.week.min() < found.week.max() == found.base
    assert found.usd_per_month == pytest.approx(found.mix.total * {"reserved": 0.6, "owned": 1.0}[pricing] * 730)
    assert found.machine_hours == found.mix.total * 730


def test_spot_machines_stand_above_what_the_least_demand_needs() -> None:
    """One replica on demand at night; the others may be interrupted, and one machine is in reserve for them."""
    assumed = {"pricing": "spot", "interruptions_per_hour": "5%", "scaling": "fixed"}
    found = plan(candidate(), terms(of_hours(DAY, "day"), **assumed))
    assert found.mix.on_demand == 1
    assert found.mix.total == found.base + found.spares + found.mix.spot_spares
    expected = 730 * (1.006 * found.mix.on_demand + 0.30 * found.mix.spot)
    assert found.usd_per_month == pytest.approx(expected)
    with pytest.raises(UsageError, match="--interruptions-per-hour"):
        plan(candidate(), terms(pricing="spot"))


ways = st.sampled_from(
    [
        {},
        {"survive": "zone"},
        {"scaling": "auto"},
        {"scaling": "auto", "start_up": "20m"},
        {"pricing": "spot", "interruptions_per_hour": "20%"},
        {"pricing": "spot", "interruptions_per_hour": "20%", "scaling": "auto"},
        {"scaling": "hours", "hours": "weekdays"},
        {"forecast_error": "30%"},
        {"forecast_error": "30%", "scaling": "auto"},
    ]
)


def scaled(demand: Demand, factor: float) -> Demand:
    """The demand, everywhere by a factor."""
    return replace(demand, week=demand.week * factor, buckets=demand.buckets * factor)


@settings(max_examples=40, deadline=None)
@given(ways, st.floats(0.1, 20), st.floats(1, 3))
def test_more_demand_never_costs_less(assumed: dict[str, Any], size: float, factor: float) -> None:
    """However it is paid for and scaled."""
    demand = scaled(of_hours(DAY, "day"), size)
    less, more = (plan(candidate(), terms(one, **assumed)) for one in (demand, scaled(demand, factor)))
    assert more.usd_per_month >= less.usd_per_month - 1e-6
    assert more.mix.total >= less.base + less.spares


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([HOLDS, UNSURE, FAILS]), min_size=1, max_size=5), st.floats(300, 1500), st.floats(1, 2))
def test_a_stricter_limit_never_needs_fewer(
    latencies: list[tuple[float, float, float]], bound_ms: float, factor: float
) -> None:
    """Whatever the tested rates showed."""

    def made(bound_ms: float) -> Candidate:
        return candidate([point(rate, one, bound_ms) for rate, one in enumerate(latencies, 2)])

    strict, lax = made(bound_ms), made(bound_ms * factor)
    if strict.capacity is not None:
        assert lax.capacity is not None
        assert plan(strict, terms()).base >= plan(lax, terms()).base


def test_plans_are_ranked_by_cost_and_others_say_why_not() -> None:
    """The cheapest first; one of poor quality and one without a rate that holds have none, with the command."""
    fast = candidate([point(8.5), point(9.5, FAILS)], level="q4_k_m", quality={"kl_mean": 0.03})
    poor = candidate(level="q2_k", quality_fails=("kl_mean is 0.4, more than 0.05.",))
    slow = candidate([point(2.0, FAILS)], level="f32")
    found = rank([candidate(), fast, poor, slow], terms())
    assert [one.candidate.keys[2] for one in found.plans] == ["q4_k_m", "f16"]
    why = {one.candidate.keys[2]: one for one in found.excluded}
    assert why["q2_k"].why == "quality: kl_mean is 0.4, more than 0.05."
    assert "at the lowest, 2 requests/s, `ttft_ms p95 <= 500` fails" in why["f32"].why
    assert why["f32"].command == "harness run chat.yaml --set 'load=[{kind: sustained, rate: [1, 1.5], duration: 10m}]'"
    data = as_data(found)
    (cost,) = data["quality_costs"]
    assert (cost["level"], cost["instead_of"], cost["quality"]) == ("q4_k_m", "f16", {"kl_mean": 0.03})
    assert cost["saves_usd_per_month"] == pytest.approx(1.006 * 730)


def test_lengths_that_were_not_measured_are_not_guessed() -> None:
    """The command that measures them stands in their place."""
    found = rank([candidate()], terms(output_tokens=300))
    assert found.best is None
    (one,) = found.excluded
    assert one.why == "the demand has `output_tokens` 300, measured were 64"
    assert one.command == "harness run chat.yaml --set workload.output_tokens=300"
    assert rank([candidate()], terms(output_tokens=66, prompt_tokens=125)).best is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"asks": {"slo": {"ttft_ms": 300.0}, "limits": []}}, "chat and other differ in `slo`"),
        ({"keys": ("big", "vllm", "f16", "")}, "are of other models, m and big; plan each alone"),
        ({"instance": "g5.xlrge"}, "did you mean `g5.xlarge`"),
    ],
)
def test_plans_that_are_not_alike_are_refused(changes: dict[str, Any], message: str) -> None:
    """One sentence says in what they differ."""
    with pytest.raises(UsageError, match=message):
        rank([candidate(), replace(candidate(), run="other", **changes)], terms())


def test_what_is_open_is_measured_and_not_extrapolated() -> None:
    """Each with its command: an unsure rate, a rate that fails, and what lies between."""

    def missing(*points: Any) -> dict[str, str]:
        (one,) = as_data(rank([candidate(points)], terms()))["missing"]
        return dict(one)

    unsure = missing(point(4.0), point(5.0, UNSURE), point(7.0, FAILS))
    assert unsure["why"] == "whether a replica holds 5 requests/s is not sure"
    assert "rate: [5], duration: 30m" in unsure["command"]
    at_least = missing(point(4.0))
    assert "at least 4 requests/s" in at_least["why"]
    assert "rate: [5, 6]" in at_least["command"]
    between = missing(point(4.0), point(7.0, FAILS))
    assert "rate: [5, 6]" in between["command"]
    assert as_data(rank([candidate([point(6.0), point(7.0, FAILS)])], terms()))["missing"] == []


@pytest.mark.parametrize(
    ("stored", "printed"),
    [
        ("run --set engines.0.level=q4 s.yaml", "run --set engines.0.level=q4 s.yaml"),
        ("run s.yaml --out runs/a --only engine=vllm", "run s.yaml --only engine=vllm"),
        ("run --out=runs/a s.yaml --yes", "run s.yaml --yes"),
        ("saturate s.yaml --for 5m --slo ttft=1s", "saturate s.yaml --for 5m --slo ttft=1s"),
        ("tune s.yaml --over options.a=1,2", "run SCENARIO"),
        ("run 'open", "run SCENARIO"),
    ],
)
def test_the_command_that_measures_more_has_the_options_of_the_run(stored: str, printed: str) -> None:
    """But for the folder of the run, which is there already."""
    made = replace(candidate(), manifest=Manifest.model_validate({"command": f"harness {stored}"}))
    assert measure_command(made, "seed=2") == f"harness {printed} --set seed=2"
    assert measure_command(made) == f"harness {printed}"


@pytest.mark.parametrize(
    ("stored", "ended", "printed"),
    [
        ("saturate s.yaml --for 5m", "largest_rate", "saturate s.yaml --for 5m --largest-rate 32"),
        ("saturate s.yaml --largest-rate 8 --yes", "largest_rate", "saturate s.yaml --yes --largest-rate 32"),
        ("saturate s.yaml --for 5m", "budget", "saturate s.yaml --for 600s"),
        ("run s.yaml", "largest_rate", {"within": "300s", "width": 0.1, "largest_rate": 32.0}),
        ("run s.yaml", "budget", {"within": "600s", "width": 0.1}),
    ],
)
def test_a_search_that_found_no_rate_too_high_is_made_again(
    stored: str, ended: str, printed: str | dict[str, Any]
) -> None:
    """Up to four times the largest rate, or for twice as long; the keys of its load stay."""
    load = {"kind": "saturate", "within": "300s", "width": 0.1}
    made = Manifest.model_validate({"command": f"harness {stored}", "scenario": {"load": [load]}})
    searched = SEARCH | {"upper_rps": None, "value_rps": None, "ended": ended}
    found = replace(candidate([point(5.2)], searched=searched), manifest=made)
    assert found.capacity is not None
    ((_, command),) = finer(found, found.capacity)
    if isinstance(printed, str):
        assert command == f"harness {printed}"
        return
    *words, changed = shlex.split(command)
    assert words == ["harness", "run", "s.yaml", "--set"]
    assert json.loads(changed.removeprefix("load=")) == [{"kind": "saturate"} | printed]


def test_a_plan_is_plain_data() -> None:
    """JSON without NaN; every number of a plan names its run, its price its date."""
    data = as_data(rank([candidate()], terms(of_hours(DAY, "d.yaml"), api_price="0.5/1.5")), frozenset({"api_price"}))
    again = json.loads(json.dumps(data, allow_nan=False))
    (found,) = again["plans"]
    assert (found["run"], found["path"], found["load"]) == ("chat", str(Path("runs/chat")), "rate-5.5")
    assert (found["price_date"], found["hardware"]) == ("2026-11", "A10G, 24 GB GPU memory, 4 vCPU, 16 GB memory")
    assert found["admit_in_flight"] == 10
    assert len(again["week"]) == 168
    assert [one["key"] for one in again["assumptions"] if one["given"]] == ["api_price"]
    assert [one["asked"] for one in again["nines"]] == [0.9, 0.99, 0.999]
    assert {one["what"] for one in again["otherwise"]} >= {"without headroom", "without spares", "+20% demand"}
    each = 128 * 0.5e-6 + 64 * 1.5e-6
    assert again["api"]["break_even_rps"] == pytest.approx(found["usd_per_month"] / (each * 730 * 3600))


def test_a_laxer_requirement_is_a_plan_beside_it() -> None:
    """At 1.5 times 500 ms a rate holds that fails now."""
    near = (600.0, 560.0, 640.0)
    data = as_data(rank([candidate([point(4.0), point(8.0, near)])], terms()))
    (lax,) = [one for one in data["otherwise"] if one["what"] == "requirements 1.5 times as lax"]
    assert (lax["replicas"], lax["note"]) == (4, "8 requests/s per replica")
    assert data["plans"][0]["replicas"] == 6


def share_requirement(value: float, n_eff: float, bound: float = 0.95) -> Requirement:
    """An SLO with its attainment."""
    return Requirement("attainment >= 95%", "attainment", "", ">=", bound, value, n_eff=n_eff, unit="share")


@pytest.mark.parametrize(("value", "n_eff", "chance"), [(0.99, 1000, 1.0), (0.95, 1000, 0.5), (0.90, 1000, 0.0)])
def test_the_chance_of_a_share_is_that_of_its_requests(value: float, n_eff: float, chance: float) -> None:
    """By the Beta distribution; fewer requests are less sure."""
    assert share_requirement(value, n_eff).chance == pytest.approx(chance, abs=0.03)
    assert 0.6 < share_requirement(0.99, 20).chance < 0.95


def test_the_chance_of_a_latency_is_that_of_its_interval() -> None:
    """The bound at the upper end of a 95 % interval is met with 97.5 %."""
    limit = replace(point(1.0).requirements[0], value=400.0, low=320.0, high=500.0)
    assert limit.chance == pytest.approx(0.975, abs=1e-4)
    assert replace(limit, bound=320.0).chance == pytest.approx(0.025, abs=1e-4)
    assert replace(limit, value=float("nan"), low=600.0, high=float("inf")).holds == "no"
    assert replace(limit, invalid="the load generator was late").holds == "unknown"


def test_the_same_seed_draws_the_same_plan() -> None:
    """And another one a chance close by."""
    chances = [plan(candidate(), terms(30.0, forecast_error="20%", seed=seed)).draws.chance(9) for seed in (1, 1, 2)]
    assert chances[0] == chances[1] != chances[2]
    assert np.ptp(chances) < 0.02


SEARCH = {
    "lower_rps": 5.2, "value_rps": 5.5, "upper_rps": 5.8, "requirement": "slo", "share": 0.95, "confirmed": "yes",
    "rates": [
        {"rate": 4.0, "state": "ramp", "attainment": 0.99, "low": 0.97, "high": 1.0, "overloaded": False},
        {"rate": 5.5, "state": "search", "attainment": 0.95, "low": 0.93, "high": 0.97, "overloaded": False},
        {"rate": 8.0, "state": "ramp", "attainment": 0.5, "low": 0.4, "high": 0.6, "overloaded": True},
    ],
}  # fmt: skip


def test_a_search_for_the_largest_rate_is_planned_with_its_lower_end() -> None:
    """Its interval is the uncertainty of the plan; its rates are shown, and nothing is left to measure."""
    data = as_data(rank([candidate([point(5.2)], searched=SEARCH)], terms()))
    (found,) = data["plans"]
    assert (found["replicas"], found["rate_rps"]["lower"], found["rate_rps"]["upper"]) == (5, 5.2, 5.8)
    assert [row["holds"] for row in data["tested"]] == ["yes", "unknown", "no"]
    stricter = as_data(rank([candidate([point(5.2)], searched=SEARCH | {"share": 0.99})], terms()))["tested"]
    assert [row["holds"] for row in stricter] == ["unknown", "no", "no"]
    assert data["missing"] == []
    open_end = SEARCH | {"upper_rps": None, "value_rps": None}
    (open_ended,) = as_data(rank([candidate([point(5.2)], searched=open_end)], terms()))["missing"]
    assert "at least 5.2 requests/s" in open_ended["why"]
    early = SEARCH | {"ended": "budget", "confirmed": "unlikely"}
    caveats = as_data(rank([candidate([point(5.2)], searched=early)], terms()))["caveats"]
    assert any("set a longer `within`" in one for one in caveats)
    assert any("missed the requirement, within chance" in one for one in caveats)
