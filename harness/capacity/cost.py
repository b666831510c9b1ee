"""Cost of replicas: per month of 730 hours, and for each thing that the money buys."""

from __future__ import annotations

from dataclasses import dataclass

from harness.prices.hours import MONTH_H

HOUR_S = 3600
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """Mean tokens of a request; None if they are unknown."""

    prompt: float | None = None
    output: float | None = None

    @property
    def both(self) -> float | None:
        return None if self.prompt is None or self.output is None else self.prompt + self.output


@dataclass(frozen=True, slots=True)
class Unit:
    """Cost for each thing, all of it charged to that thing alone. None if its number is unknown or zero.

    Attributes:
        requests_per_hour: Requests that the cost is shared by.
        per_1k_requests_usd: Per 1,000 requests.
        per_1m_input_usd, per_1m_output_usd, per_1m_tokens_usd: Per million prompt, output, and all tokens.
        tokens_per_usd: All tokens for a dollar.
    """

    requests_per_hour: float
    per_1k_requests_usd: float | None
    per_1m_input_usd: float | None
    per_1m_output_usd: float | None
    per_1m_tokens_usd: float | None
    tokens_per_usd: float | None


def monthly(replicas: float, hourly_usd: float) -> float:
    """Return what replicas cost in a month of 730 hours."""
    return replicas * hourly_usd * MONTH_H


def unit_costs(usd_per_hour: float, requests_per_s: float, tokens: Tokens) -> Unit:
    """Return the cost of what is served at a rate, for what an hour costs."""
    per_hour = requests_per_s * HOUR_S
    each = None if per_hour <= 0 else usd_per_hour / per_hour
    per_token = _per(each, tokens.both)
    return Unit(
        per_hour,
        None if each is None else each * 1000,
        _million(_per(each, tokens.prompt)),
        _million(_per(each, tokens.output)),
        _million(per_token),
        None if not per_token else 1 / per_token,
    )


def _per(each_usd: float | None, number: float | None) -> float | None:
    return None if each_usd is None or not number else each_usd / number


def _million(per_token_usd: float | None) -> float | None:
    return None if per_token_usd is None else per_token_usd * MILLION


def api_cost(tokens: Tokens, price: tuple[float, float]) -> float | None:
    """Return what an API asks for a request in USD; None if its tokens are unknown.

    Args:
        price: USD per million input and output tokens.
    """
    if tokens.prompt is None or tokens.output is None:
        return None
    return (tokens.prompt * price[0] + tokens.output * price[1]) / MILLION


def break_even_rps(usd_per_month: float, each_usd: float) -> float:
    """Return the mean rate at which an API that asks `each_usd` for a request costs as much as replicas do."""
    return usd_per_month / (each_usd * MONTH_H * HOUR_S)
