"""What users call a series, and what they are told if it fits several."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.history.names import fitting, name_of, shared, short_names, the_one
from harness.history.series import Key


def key(load: str, metric: str, statistic: str, level: str, class_name: str = "", machine: str = "m1") -> Key:
    """A series of one model and engine."""
    return Key("nightly", load, class_name, metric, statistic, "tiny", "llama-server", level, "", machine)


KEYS = [
    key("chat", "ttft_ms", "p50", "q4_k_m"),
    key("chat", "ttft_ms", "p95", "q4_k_m"),
    key("chat-long", "ttft_ms", "p95", "q4_k_m"),
    key("chat", "ttft_service_ms", "p95", "q4_k_m"),
    key("chat", "ttft_ms", "p95", "q8_0"),
    key("chat", "goodput_rps", "value", "q8_0"),
    key("mix", "e2e_ms", "p95", "q8_0", "code"),
]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("2", [1]),
        ("chat ttft_ms p95 q4_k_m", [1]),
        ("q4_k_m p95 TTFT chat", [1]),
        ("chat-long", [2]),
        ("long", [2]),
        ("goodput", [5]),
        ("goodput_rps chat", [5]),
        ("code", [6]),
        ("code e2e p95", [6]),
        ("chat ttft p95", [1, 4]),
        ("service", [3]),
        ("0", []),
        ("8", []),
        ("p99", []),
        ("", [*range(7)]),
    ],
)
def test_words_fit_fields(text: str, places: list[int]) -> None:
    """In any order and case. Whole fields count more than parts; a number is the one of the list."""
    assert fitting(text, KEYS) == places


def test_each_series_is_found_by_its_own_name() -> None:
    """The whole name is never ambiguous, also where it is part of another."""
    assert [the_one(name_of(one), KEYS) for one in KEYS] == [*range(len(KEYS))]


def test_candidates_are_listed() -> None:
    """With their numbers, by what differs among them."""
    with pytest.raises(UsageError) as error:
        the_one("chat ttft p95", KEYS)
    assert str(error.value).splitlines() == [
        "'chat ttft p95' fits 2 series; add a word, or write the number:",
        "  2  chat ttft_ms p95 q4_k_m",
        "  5  chat ttft_ms p95 q8_0",
    ]
    with pytest.raises(UsageError, match="there is no series 'p99'; `harness history list` shows all 7"):
        the_one("p99", KEYS)
    many = [key(f"load-{number}", "ttft_ms", "p50", "q8_0") for number in range(40)]
    with pytest.raises(UsageError, match=r"  and 28 more$"):
        the_one("ttft", many)


def test_names_leave_out_what_all_share() -> None:
    """It stands once above the list."""
    assert short_names(KEYS)[0] == "chat ttft_ms p50 q4_k_m"
    assert short_names(KEYS)[5:] == ["chat goodput_rps q8_0", "mix code e2e_ms p95 q8_0"]
    assert shared(KEYS) == "tiny llama-server nightly m1"
    assert short_names([*KEYS, key("chat", "ttft_ms", "p50", "q8_0", machine="m2")])[-1] == "chat ttft_ms p50 q8_0 m2"
