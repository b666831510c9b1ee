"""`harness saturate`: the largest rate that a scenario's configurations keep up with within its SLO and limits."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options as shared
from harness.cli.asked import Asked
from harness.cli.commands.run import carry_out

_SCENARIO = "Scenario file, the name of a shipped one, or the address of a server. Its loads are replaced by a search."
_FOR = "Longest time for each configuration, the measurement included."
_MEASURE = "Time to measure at the lower bound of the rate."
_SLO = "SLO of a request, such as ttft=500ms,tpot=50ms. [default: the scenario's]"
_ATTAINMENT = "Share of the requests that must meet the SLO. [default: 0.95]"


def saturate(
    scenario: Annotated[str, typer.Argument(help=_SCENARIO, metavar="SCENARIO|URL", show_default=False)],
    within: Annotated[str, typer.Option("--for", help=_FOR)] = "15m",
    measure: Annotated[str, typer.Option("--measure", help=_MEASURE)] = "60s",
    slo: Annotated[str | None, typer.Option("--slo", metavar="PART=TIME,...", help=_SLO)] = None,
    attainment: Annotated[float | None, typer.Option(help=_ATTAINMENT)] = None,
    first_rate: Annotated[float | None, typer.Option(help="First rate, in requests per second. [default: 1]")] = None,
    largest_rate: Annotated[float | None, typer.Option(help="No higher rate is tried.")] = None,
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
    """Find the largest rate that keeps the SLO and the limits, and measure at it."""
    load = {"within": within, "measure": measure, "attainment": attainment}
    load |= {"first_rate": first_rate, "largest_rate": largest_rate}
    asked = Asked(
        scenario=scenario,
        limits=limits,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        dialect=dialect,
        served_model=served_model,
        api_key_env=api_key_env,
        out=out,
        sets=[*search_sets(load, slo), *sets],
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


def search_sets(load: dict[str, str | float | None], slo: str | None) -> list[str]:
    """Return the `--set`s that make a scenario a search. `slo` is a list such as `ttft=500ms,tpot=50ms`."""
    keys = ", ".join(f"{key}: {value}" for key, value in load.items() if value is not None)
    parts = [part.strip() for part in (slo or "").split(",") if part.strip()]
    return [f"load=[{{kind: saturate, {keys}}}]", *(f"slo.{part}" for part in parts)]
