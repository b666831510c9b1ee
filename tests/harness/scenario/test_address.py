"""The scenario for a server that only its address names."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.errors import ScenarioError, UsageError
from harness.scenario.address import Wanted, is_address, scenario_text
from harness.scenario.loads.kinds import Sustained
from harness.scenario.reader import load_text

URL = "http://127.0.0.1:8000"


def loads(wanted: Wanted) -> list[tuple[float | None, int | None, float, float | None]]:
    """Rate, users, warm-up and duration of each load."""
    scenario = load_text(scenario_text(URL, "openai-chat", "m", wanted), URL)
    found = []
    for load in scenario.load:
        assert isinstance(load, Sustained)
        found.append((load.rate, load.users, load.warmup_s, load.duration_s))
    return found


def test_without_a_word_about_the_load_it_is_a_short_ladder_of_users() -> None:
    """Less than a minute, with each warm-up."""
    assert loads(Wanted()) == [(None, users, 3.0, 15.0) for users in (1, 4, 16)]


def test_rates_and_users_take_a_minute_each_or_the_stated_time() -> None:
    """Both may be stated; a fifth of the time, ten seconds at most, is warm-up."""
    assert loads(Wanted(rate="2,0.5")) == [(2.0, None, 10.0, 60.0), (0.5, None, 10.0, 60.0)]
    assert loads(Wanted(rate="2", users="3", duration="30s")) == [(2.0, None, 6.0, 30.0), (None, 3, 6.0, 30.0)]


def test_a_cap_stands_beside_rates_and_retries_everywhere() -> None:
    """A list of caps is one load each, as in a file; users need no cap."""
    wanted = Wanted(rate="2", users="3", max_concurrency="4,8", retries=2, duration="1s")
    *capped, users = load_text(scenario_text(URL, "openai-chat", "m", wanted), URL).load
    assert [(one.rate, one.max_concurrency) for one in capped if isinstance(one, Sustained)] == [(2, 4), (2, 8)]
    assert isinstance(users, Sustained)
    assert (users.users, users.max_concurrency) == (3, None)
    assert {None if one.retries is None else one.retries.times for one in (*capped, users)} == {2}


def test_without_retries_there_may_be_none() -> None:
    """Nought is a statement, which is kept."""
    assert "retries: 0}" in scenario_text(URL, "openai-chat", "m", Wanted(retries=0))
    assert Wanted(retries=0).stated == ["--retries"]


def test_the_text_is_what_a_person_would_write() -> None:
    """Short, in flow style, and quoted only where it must be."""
    wanted = Wanted(rate="2", duration="60s", prompt_tokens=600, limits=["ttft_ms p95 <= 500"], api_key_env="KEY")
    assert scenario_text(URL, "openai-chat", "org/model", wanted) == (
        'name: "127.0.0.1-8000"\n'
        "engines:\n"
        '  - {engine: http, url: "http://127.0.0.1:8000", dialect: openai-chat, served_model: "org/model", '
        "api_key_env: KEY}\n"
        "workload: {prompt_tokens: 600, output_tokens: 128}\n"
        "load:\n"
        "  - {kind: sustained, rate: 2, warmup: 10s, duration: 60s}\n"
        "limits:\n"
        '  - "ttft_ms p95 <= 500"\n'
    )


def test_several_lengths_are_loads_of_their_own() -> None:
    """Each at each rate; a single length stands in the workload."""
    wanted = Wanted(rate="1,2", prompt_tokens="128,512", output_tokens=16)
    scenario = load_text(scenario_text(URL, "openai-chat", "m", wanted), URL)
    assert [
        (load.mean_rate, load.workload_of(scenario.workload).prompt_tokens.quantile(0.5)) for load in scenario.load
    ] == [(rate, tokens) for rate in (1, 2) for tokens in (128, 512)]
    assert scenario.workload.output_tokens.quantile(0.5) == 16


@given(st.text(min_size=1).filter(lambda text: text.strip() == text and text.isprintable()))
@example("null")
@example("a${HOME}b: 'c' #")
def test_any_name_of_a_model_reaches_the_engine_as_it_is(name: str) -> None:
    """Whatever a server calls it: `null`, a number, quotes."""
    scenario = load_text(scenario_text(URL, "openai-chat", name, Wanted()), URL)
    assert scenario.engines[0].served_model == name


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (Wanted(rate="fast"), "--rate fast: write one number, or several separated by commas, such as 2 or 1,2,4.5"),
        (Wanted(users="1.5"), "--users 1.5: write one number, or several separated by commas, such as 4 or 1,4,16"),
        (Wanted(max_concurrency="8"), "--max-concurrency goes with --rate; --users have one request each in flight"),
        (Wanted(rate="2", max_concurrency="x"), "--max-concurrency x: write one number, or several separated by"),
        (Wanted(prompt_tokens="9,x"), "--prompt-tokens 9,x: write one number, or several separated by commas"),
        (Wanted(duration="60"), "--duration: "),
        (Wanted(limits=["p95 ttft < 500ms"]), "--limit: "),
    ],
)
def test_a_slip_names_its_option(wanted: Wanted, sentence: str) -> None:
    """With the fix."""
    with pytest.raises(UsageError) as caught:
        scenario_text(URL, "openai-chat", "m", wanted)
    assert str(caught.value).startswith(sentence)


def test_what_the_grammar_refuses_is_refused_with_its_place() -> None:
    """The place is the address and the line of the text that was shown."""
    with pytest.raises(ScenarioError) as caught:
        load_text(scenario_text(URL, "openai-chat", "m", Wanted(rate="-1")), URL)
    assert str(caught.value).startswith(f"{URL}:6:")


@pytest.mark.parametrize(
    ("text", "address"),
    [(URL, True), ("HTTPS://x", True), ("quickstart", False), ("a/b.yaml", False), ("127.0.0.1:8000", False)],
)
def test_an_address_begins_with_its_scheme(text: str, address: bool) -> None:
    """All else is a file or a name."""
    assert is_address(text) is address


def test_options_are_named_as_they_are_typed() -> None:
    """Those that are stated."""
    assert Wanted(rate="2", prompt_tokens=3, limits=["a"], api_key_env="K").stated == [
        "--rate",
        "--prompt-tokens",
        "--limit",
        "--api-key-env",
    ]
