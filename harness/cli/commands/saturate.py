"""`harness saturate`: the largest rate, or number of users, that a scenario's configurations keep within its SLO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from harness.cli import options as shared
from harness.cli.asked import Asked
from harness.cli.commands.run import carry_out
from harness.errors import UsageError
from harness.units import parse_duration_s

WARMUP = 0.2  # of the time of each number of users
LEAST_S = 5.0
MOST_USERS = 100_000

_SCENARIO = "Scenario file, the name of a shipped one, or the address of a server. Its loads are replaced by a search."
_FOR = "Longest time for each configuration, the measurement included."
_MEASURE = "Time to measure at the lower bound of the rate. [default: 60s]"
_SLO = "SLO of a request, such as ttft=500ms,tpot=50ms. [default: the scenario's]"
_USERS = "Users who wait for replies instead of a rate: the largest number, or a list such as 1,2,4,8."
_ATTAINMENT = "Share of the requests that must meet the SLO. [default: 0.95]"


def saturate(
    scenario: Annotated[str, typer.Argument(help=_SCENARIO, metavar="SCENARIO|URL", show_default=False)],
    within: Annotated[str, typer.Option("--for", help=_FOR)] = "15m",
    measure: Annotated[str | None, typer.Option("--measure", help=_MEASURE)] = None,
    slo: Annotated[str | None, typer.Option("--slo", metavar="PART=TIME,...", help=_SLO)] = None,
    attainment: Annotated[float | None, typer.Option(help=_ATTAINMENT)] = None,
    first_rate: Annotated[float | None, typer.Option(help="First rate, in requests per second. [default: 1]")] = None,
    largest_rate: Annotated[float | None, typer.Option(help="No higher rate is tried.")] = None,
    users: Annotated[str | None, typer.Option("--users", metavar="N|N,N,...", help=_USERS)] = None,
    limits: shared.Limits = [],  # noqa: B006
    prompt_tokens: shared.PromptTokens = None,
    output_tokens: shared.OutputTokens = None,
    dialect: shared.Dialect = None,
    served_model: shared.ServedModel = None,
    api_key_env: shared.ApiKeyEnv = None,
    out: shared.Out = None,
    sets: shared.Sets = [],  # noqa: B006
    labels: shared.Labels = [],  # noqa: B006
    only: shared.Only = None,
    formats: shared.Formats = [],  # noqa: B006
    exports: shared.Exports = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan of the run, and stop.")] = False,
    quiet: shared.Quiet = False,
    as_json: shared.AsJson = False,
    yes: shared.Yes = False,
    wait: shared.Wait = "0s",
) -> None:
    """Find the largest rate, or number of users, that keeps the SLO."""
    of_rates = {"measure": measure, "attainment": attainment, "first_rate": first_rate, "largest_rate": largest_rate}
    asked = Asked(
        scenario=scenario,
        limits=limits,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        dialect=dialect,
        served_model=served_model,
        api_key_env=api_key_env,
        out=out,
        sets=[load_of(within, users, of_rates), *slo_sets(slo), *sets],
        labels=labels,
        only=only,
        formats=formats,
        exports=exports,
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
        yes=yes,
        wait=wait,
    )
    raise typer.Exit(carry_out(asked))


def load_of(within: str, users: str | None, of_rates: Mapping[str, str | float | None]) -> str:
    """Return the `--set` that replaces the loads of a scenario: by a search for a rate, or by a sweep of users."""
    if users is None:
        return search({"within": within, **of_rates, "measure": of_rates["measure"] or "60s"})
    check_alone(of_rates)
    return sweep(numbers_of_users(users), within)


def search(keys: Mapping[str, str | float | None]) -> str:
    """Return the `--set` that makes the loads of a scenario a search for the largest rate."""
    shown = ", ".join(f"{key}: {value}" for key, value in keys.items() if value is not None)
    return f"load=[{{kind: saturate, {shown}}}]"


def slo_sets(slo: str | None) -> list[str]:
    """Return the `--set`s of an SLO, a list such as `ttft=500ms,tpot=50ms`."""
    return [f"slo.{part.strip()}" for part in (slo or "").split(",") if part.strip()]


def check_alone(of_rates: Mapping[str, str | float | None]) -> None:
    """Raise UsageError for an option of a search for a rate, which says nothing beside users."""
    for name, value in of_rates.items():
        if value is not None:
            more = "; a limit such as `attainment >= 99%` sets the share" if name == "attainment" else ""
            raise UsageError(f"--{name.replace('_', '-')} is for a search by rate, and --users tries users{more}")


def numbers_of_users(text: str) -> list[int]:
    """Return the numbers of users to try: a list as given, or up to a largest number, each at most 1.5 times the last.

    Raises UsageError for anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and 0 < int(part) <= MOST_USERS for part in parts):
        raise UsageError(f"--users {text}: write the largest number of users, such as 64, or a list, such as 1,2,4,8")
    found = sorted({int(part) for part in parts})
    if len(found) > 1:
        return found
    powers = [1 << power for power in range(found[0].bit_length())]
    between = [3 * one // 2 for one in powers if one > 1]
    return sorted({one for one in (*powers, *between) if one < found[0]} | {found[0]})


def sweep(users: Sequence[int], within: str) -> str:
    """Return the `--set` that makes the loads of a scenario a sweep of users. Raises UsageError for a short time."""
    try:
        each_s = parse_duration_s(within) / len(users)
    except ValueError as error:
        raise UsageError(f"--for {within}: {error}") from None
    if each_s < LEAST_S:
        raise UsageError(
            f"--for {within}: {len(users)} numbers of users would have {each_s:.3g} s each, and need {LEAST_S:g} s; "
            "write a longer time, or fewer users"
        )
    warmup_s = WARMUP * each_s
    shown = ", ".join(map(str, users))
    return f"load=[{{kind: sustained, users: [{shown}], warmup: {warmup_s:.6g}s, duration: {each_s - warmup_s:.6g}s}}]"
