"""Limits as they are written."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from harness.metrics import METRICS, metric_names
from harness.scenario.limits import OPERATORS, Limit, LimitText, override, parse_limit


def test_a_limit_is_metric_statistic_operator_and_value() -> None:
    """The common form."""
    assert parse_limit("ttft_ms p95 <= 500") == Limit(None, "ttft_ms", "p95", "<=", 500.0, "ttft_ms p95 <= 500")


def test_a_limit_may_name_a_class() -> None:
    """`class.metric` bounds the requests of one class."""
    assert parse_limit("chat.tpot_ms p50 <= 50").class_name == "chat"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("attainment >= 0.95", 0.95),
        ("attainment >= 95%", 0.95),
        ("ttft_ms p99.9 < 2s", 2000.0),
        ("ttft_ms_service mean < 2s", 2000.0),
        ("load_s <= 500ms", 0.5),
        ("rss_peak_bytes <= 2GiB", 2.0 * 2**30),
        ("rss_peak_bytes<=2e9", 2e9),
        ("output_tokens_per_s > 20", 20.0),
        ("output_tokens_per_s > 20 tokens/s", 20.0),
        ("completed_rps >= 100/s", 100.0),
        ("gpu_power_w <= 300W", 300.0),
        ("gpu_power_w <= 0.3 kW", 300.0),
        ("energy_j <= 5kJ", 5000.0),
        ("energy_j_per_output_token <= 2 J/token", 2.0),
        ("ppl_ratio <= 105%", 1.05),
    ],
)
def test_values_are_in_the_unit_of_the_metric(text: str, value: float) -> None:
    """A value is bare, or carries a unit that is converted to the metric's."""
    assert parse_limit(text).value == value


def test_every_time_and_size_takes_its_units() -> None:
    """The unit may be anywhere in the name: `server_queue_ms_mean <= 5ms` as `ttft_ms p95 <= 5ms`."""
    values = {"ms": ("5ms", 5.0), "s": ("5ms", 0.005), "bytes": ("5kB", 5000.0), "share": ("5%", 0.05)}
    checked = set()
    for name, metric in METRICS.items():
        if metric.unit in values:
            text, value = values[metric.unit]
            statistic = " p95" if metric.takes_statistics else ""
            assert parse_limit(f"{name}{statistic} <= {text}").value == pytest.approx(value)
            checked.add(metric.unit)
    assert checked == values.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ttft p95 <= 500", "unknown metric `ttft`; did you mean `ttft_ms`?"),
        ("ttft_ms <= 500", "`ttft_ms` needs a statistic; write for example `ttft_ms p95 <= 500`"),
        ("error_rate p95 <= 0.1", "`error_rate` has a single value; write `error_rate <= 0.1` without `p95`"),
        ("ttft_ms q95 <= 500", "unknown statistic `q95`; write p1 to p99.999, mean, max or min"),
        ("ttft_ms p0 <= 500", "unknown statistic `p0`; write p1 to p99.999, mean, max or min"),
        ("ttft_ms p100 <= 500", "unknown statistic `p100`; write p1 to p99.999, mean, max or min"),
        ("ttft_ms p95 == 500", "`==` cannot be used in a limit; write one of <=, >=, <, >"),
        ("ttft_ms p95 =< 500", "`=<` cannot be used in a limit; write one of <=, >=, <, >"),
        ("attainment >= high", "'high' is not a number; write `attainment` with a number without a unit"),
        ("ttft_ms p95 <= 3GiB", "'3GiB' has the unknown unit `GiB`; known are us, ms, s, m, h, d"),
        ("gpu_power_w <= 3J", "'3J' is not a number of W; write `gpu_power_w` with a number without a unit"),
        ("errors <= 1% per 5m", "'1%' is not a number; write `errors` with a number without a unit"),
        ("p95 ttft < 500ms", "the metric comes before the statistic; write `ttft_ms p95 < 500ms`"),
        ("errors <= 10", "`errors` is counted per time; write `errors <= 10 per 5m`"),
        ("errors p95 <= 10 per 1m", "`errors` is counted per time; write `errors <= 10 per 1m`"),
        ("errors <= 10 per 0s", "`per 0s` has no length; write for example `per 5m`"),
        (
            "ttft_ms p95 <= 10 per 5m",
            "`per` applies to counts only: `errors`, `timeouts`, `out_of_memory`; write `ttft_ms` without `per 5m`",
        ),
        ("ttft_ms p95 <= base * 1.1", "`base` is no factor; write a number before the variant, such as `1.1 * base`"),
        ("ttft_ms p95 <= 5ms * base", "`5ms` is no factor; write a number before the variant, such as `1.1 * base`"),
        (
            "fast please",
            "'fast please' is not a limit; write `metric statistic op value`, such as `ttft_ms p95 <= 500` or "
            "`error_rate <= 0.01`",
        ),
    ],
)
def test_a_wrong_limit_leads_to_the_fix(text: str, message: str) -> None:
    """Every refusal is a sentence with the way out."""
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        parse_limit(text)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attainment >= 95", "`attainment` is a share of at most 1; write `attainment >= 95%`"),
        ("attainment >= 1.5", "`attainment` is a share of at most 1; write `attainment >= 1.5%`"),
        ("error_rate <= 500", "`error_rate` is a share of at most 1; write `error_rate <= 5%`"),
        ("ttft_ms p95 <= -5", "`ttft_ms` is never negative; write a bound of at least 0"),
        ("chat.load_s <= 5", "`load_s` is not measured per class; leave `chat.` out"),
        ("chat.kl_mean <= 0.1", "`kl_mean` is not measured per class; leave `chat.` out"),
    ],
)
def test_a_limit_that_can_never_hold_or_be_known_is_refused(text: str, message: str) -> None:
    """In a scenario; one in a stored run is read as it was."""
    assert parse_limit(text)
    with pytest.raises(ValidationError) as refusal:
        TypeAdapter(LimitText).validate_python(text)
    assert message in str(refusal.value)


def test_a_count_is_limited_per_time() -> None:
    """The length of the stretch is part of what is counted."""
    limit = parse_limit("chat.errors <= 10 per 5m")
    assert (limit.class_name, limit.metric, limit.statistic, limit.value) == ("chat", "errors", "most per 300s", 10.0)
    assert override(["errors <= 10 per 5m", "errors <= 3 per 60s"], ["errors <= 5 per 1m"]) == (
        "errors <= 10 per 5m",
        "errors <= 5 per 1m",
    )


@pytest.mark.parametrize("text", ["ttft_ms p95 <= 1.10 * base", "ttft_ms p95<=1.10*base", "ttft_ms p95 <= 110% * base"])
def test_a_limit_may_name_a_variant(text: str) -> None:
    """With a factor before it."""
    limit = parse_limit(text)
    assert (limit.statistic, limit.value, limit.base) == ("p95", pytest.approx(1.1), "base")


def test_own_limits_replace_those_on_the_same_statistic_and_join_the_others() -> None:
    """A load may be held to another bound than the rest, from the same side."""
    base = ("ttft_ms p95 <= 500", "error_rate <= 0.01", "ttft_ms p95 >= 1")
    assert override(base, ["ttft_ms p95 <= 900", "e2e_ms max <= 9000"]) == (
        "error_rate <= 0.01",
        "ttft_ms p95 >= 1",
        "ttft_ms p95 <= 900",
        "e2e_ms max <= 9000",
    )


def test_every_metric_can_be_limited() -> None:
    """With a statistic exactly where it has a distribution."""
    for name, metric in METRICS.items():
        texts = (f"{name} p95 <= 1", f"{name} <= 1 per 5m" if metric.per_time else f"{name} <= 1")
        right, wrong = texts if metric.takes_statistics else texts[::-1]
        assert parse_limit(right).metric == name
        with pytest.raises(ValueError, match=name):
            parse_limit(wrong)


@given(
    st.sampled_from(metric_names(takes_statistics=True)),
    st.sampled_from(["p1", "p50", "p99", "p99.9", "mean", "max", "min"]),
    st.sampled_from(OPERATORS),
    st.floats(-1e12, 1e12, allow_nan=False),
    st.sampled_from([" ", "  ", "\t"]),
)
def test_every_well_formed_limit_is_read_as_it_was_meant(
    metric: str, statistic: str, op: str, value: float, space: str
) -> None:
    """Spaces do not matter, and the number is the one that was written."""
    limit = parse_limit(f"{metric}{space}{statistic}{space}{op}{space}{value!r}")
    assert (limit.metric, limit.statistic, limit.op, limit.value) == (metric, statistic, op, value)
    assert parse_limit(limit.text) == limit


@given(
    st.one_of(st.text(), st.tuples(st.sampled_from(metric_names(takes_statistics=False)), st.text()).map(" <= ".join))
)
def test_any_text_is_a_limit_or_refused_in_a_sentence(text: str) -> None:
    """No text raises anything but ValueError."""
    with suppress(ValueError):
        assert parse_limit(text).metric in METRICS


@pytest.mark.parametrize(
    ("text", "right"), [("errors <= 10 per", "`errors <= 10 per 5m`"), ("error_rate <= 200%", "`error_rate <= 5%`")]
)
def test_what_is_written_instead_is_a_limit(text: str, right: str) -> None:
    """A word is not said twice, and per cent are not taken for a share."""
    with pytest.raises(ValidationError, match=re.escape(right)):
        TypeAdapter(LimitText).validate_python(text)
