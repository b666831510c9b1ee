"""Fits of a run: which loads are a sweep, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.fits.sweeps import fits_of
from harness.results import derive
from reports import answer
from reports.data import ReportData
from reports.tables.fits import fits, in_words, lines
from reports.tables.saturation import users_in_words
from reports.writers import markdown
from tests.fabricated import FabricatedTrial, again, cell_entry, noisy, streamed, trial_entry
from tests.reports.conftest import manifest
from tests.reports.sweep_of_rates import sweep_of
from tests.reports.sweep_of_users import sweep_of_users, trials_of

pytestmark = pytest.mark.slow
SECONDS = 20.0


def fit(data: ReportData, name: str) -> dict[str, Any]:
    """The only fit of a kind."""
    (found,) = [one for one in data.fits if one["fit"] == name]
    return found


def numbers(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The numbers of a fit, by name."""
    return {one["name"]: one for one in found["numbers"]}


def test_a_sweep_by_users_has_its_law() -> None:
    """Seven numbers of users on a server of known law: 50 tokens/s of one user, and a peak at 49.5 users."""
    found = fit(sweep_of_users(seconds=SECONDS), "throughput")
    known = numbers(found)
    assert (found["metric"], found["law"], found["points"]) == ("output_tokens_per_s", "usl", 7)
    assert known["gamma"]["low"] < 50.0 < known["gamma"]["high"]
    assert known["peak"]["low"] < 49.5 < known["peak"]["high"]
    assert found["hold_out"] < 0.1
    json.dumps(found, allow_nan=False)


def test_the_answer_has_the_law_in_a_line() -> None:
    """With the predicted peak and the hold-out error; the table below has the intervals."""
    data = sweep_of_users(seconds=SECONDS)
    (line,) = [one for one in answer.lines(data) if one.label == "FIT" and "tokens/s" in one.parts[0]]
    assert line.parts[0].startswith("output tokens/s = ")
    assert "N / (1 + 0.0" in line.parts[0]
    assert "predicted peak at N = " in line.parts[0]
    assert "hold-out error" in line.parts[0]
    text = markdown.render(data)
    assert "**Fit**: output tokens/s = " in text
    assert "Curves through the loads" in text
    table = fits(data)
    assert [row[2].text for row in table.rows[:4]] == ["gamma", "alpha", "beta", "users at the peak"]
    assert all(" to " in row[5].text for row in table.rows[:4])


def test_few_users_say_why_there_is_no_law() -> None:
    """One sentence instead of a curve."""
    data = sweep_of_users(1, 2, 4, 8, seconds=SECONDS)
    why = "no curve of throughput over users: 4 numbers of users were measured well, and 6 are needed"
    assert in_words(fit(data, "throughput")) == why
    assert next(line.parts for line in answer.lines(data) if line.label == "FIT") == (why,)


def test_rates_have_no_law_of_users() -> None:
    """Their throughput is what was asked for; the time per token over the batch is known."""
    data = sweep_of("f16", seconds=20.0)
    assert {one["fit"] for one in data.fits} == {"decode"}


def test_poor_data_is_no_point() -> None:
    """A load whose throughput cannot be trusted does not bend the curve."""
    made = list(trials_of((2, 4, 8), SECONDS, lambda users: 5.0 * users, {}))
    cell = again(made[0].cell, trials=[one.trial for one in made])
    run = manifest([cell])
    results = derive(run, made)
    every = fits_of(run, results.summary, {(cell.id, "000"): [("output_tokens_per_s",)]}, results.series)
    assert next(one for one in every if one["fit"] == "throughput")["points"] == 2


def test_the_cost_of_a_prompt_is_found_of_one_user() -> None:
    """TTFT of 20 ms and 0.1 ms a token: from requests without a queue, whose lengths vary."""
    lengths = [50 * (1 + number % 10) for number in range(200)]
    records = [
        streamed(number, 300.0 * number, ttft_ms=20 + 0.1 * tokens + number % 3, prompt_tokens=tokens, loop="closed")
        for number, tokens in enumerate(lengths)
    ]
    trial = trial_entry(kind="single_user", load="single_user", loop="closed", users=None)
    cell = cell_entry(trials=[trial.stored()])
    results = derive(manifest([cell]), [FabricatedTrial(cell, cell.trials[0], records)])
    (found,) = fits_of(manifest([cell]), results.summary, {}, results.series)
    known = numbers(found)
    assert (found["fit"], found["points"]) == ("prefill", 10)
    assert known["0"]["low"] < 21.0 < known["0"]["high"]
    assert known["1"]["low"] < 0.1 < known["1"]["high"]
    assert in_words(found).startswith("TTFT of one user = 2")


def test_the_cost_of_a_prompt_is_found_across_loads_of_a_length_each() -> None:
    """As in one load of many lengths: 20 ms, and 0.1 ms a token."""
    lengths = (100, 200, 400, 800, 1600, 3200, 6400)
    rng = np.random.default_rng(5)
    cell, made = cell_entry(), []
    for place, tokens in enumerate(lengths):
        load = {"id": f"{place:03}", "index": place, "load": f"prompt-{tokens}", "kind": "single_user"}
        records = [
            streamed(
                number, 10_000.0 * number, ttft_ms=(20 + 0.1 * tokens) * float(rng.lognormal(0, 0.02)), loop="closed",
                user=0, prompt_tokens=tokens, requested_prompt_tokens=tokens,
            )
            for number in range(20)
        ]  # fmt: skip
        made.append(FabricatedTrial(cell, trial_entry(loop="closed", prompt_tokens=tokens, **load), records))
    run = manifest([again(cell, trials=[one.trial for one in made])])
    results = derive(run, made)
    (found,) = [one for one in fits_of(run, results.summary, {}, results.series) if one["fit"] == "prefill"]
    known = numbers(found)
    assert found["points"] == len(lengths)
    assert known["0"]["low"] < 20.0 < known["0"]["high"]
    assert known["1"]["low"] < 0.1 < known["1"]["high"]


@pytest.mark.parametrize(
    ("slopes", "lines_told"),
    [
        ([(0.05, 0.04, 0.06)], 1),
        ([(0.001, -0.01, 0.01)], 0),
        ([(0.001, -0.01, 0.01), (2e-5, 1e-5, 3e-5)], 1),
        ([(-0.02, -0.03, -0.01), (2e-5, 1e-5, 3e-5)], 1),
        ([(0.001, -0.01, 0.01), (2e-5, -1e-5, 5e-5)], 0),
    ],
)
def test_a_cost_is_told_if_it_grows_beyond_chance(slopes: list[tuple[float, float, float]], lines_told: int) -> None:
    """With the length of the prompt, or with its square."""
    data = sweep_of("f16", seconds=SECONDS)
    known = [
        {"name": f"{power}", "value": value, "low": low, "high": high, "unit": "ms"}
        for power, (value, low, high) in enumerate([(20.0, 18.0, 22.0), *slopes])
    ]
    about = {"keys": list(data.manifest.cells[0].keys), "kind": "single_user", "fit": "prefill", "points": 8}
    cost = about | {"numbers": known, "hold_out": 0.02, "least": 50.0, "largest": 6400.0}
    found = lines(replace(data, fits=[cost]))
    assert [text.startswith("TTFT of one user = 20.0 ") for _, text in found] == [True] * lines_told


def test_a_single_load_has_no_fit() -> None:
    """Nothing is said of one that is none."""
    trial = trial_entry()
    cell = cell_entry(trials=[trial.stored()])
    results = derive(manifest([cell]), [FabricatedTrial(cell, cell.trials[0], noisy(1))])
    assert fits_of(manifest([cell]), results.summary, {}, results.series) == []


def test_a_sweep_by_users_says_how_many_keep_the_slo() -> None:
    """32 users surely do, 64 surely miss it; the answer plans with 32."""
    data = sweep_of_users(seconds=SECONDS)
    (found,) = data.users
    assert (found["meets"], found["misses"], found["unsure"], found["share"]) == (32, 64, [], 0.95)
    (line,) = [line.parts[0] for line in answer.lines(data) if line.label == "SATURATION"]
    assert line.startswith("plan with 32 users: 95 % surely met the SLO; 64 surely missed it; by interpolation ")


@pytest.mark.parametrize(
    ("meets", "misses", "unsure", "words"),
    [
        (4, None, [], "at least 4 users: 95 % surely met the SLO, and no number is known to miss it"),
        (4, None, [8], "plan with 4 users: 95 % surely met the SLO; 8 may meet it; none surely missed it"),
        (1, 6, [2, 4], "plan with 1 user: 95 % surely met the SLO; 2 and 4 may meet it; 6 surely missed it"),
        (None, 1, [], "no number of users is sure to meet the SLO with 95 % of the requests; 1 user surely missed it"),
        (None, None, [1], "no number of users is sure to meet the SLO with 95 % of the requests"),
    ],
)
def test_the_largest_number_of_users_in_words(
    meets: int | None, misses: int | None, unsure: list[int], words: str
) -> None:
    """Whatever is known of it."""
    found = {"share": 0.95, "meets": meets, "misses": misses, "unsure": unsure, "value": None, "largest": 8}
    assert users_in_words(found) == words


def test_a_limit_on_attainment_is_the_share() -> None:
    """It replaces the 95 %."""
    data = sweep_of_users(4, 8, 16, seconds=SECONDS, limits=("attainment >= 99%",))
    assert data.users[0]["share"] == 0.99
