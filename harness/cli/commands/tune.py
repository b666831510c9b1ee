"""`harness tune`: search the engine's options for what is better than its defaults, and admit a tie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options as shared
from harness.cli.tune import Asked, How, run_tuning, stored
from harness.errors import UsageError

_OVER = "Key and values to try: options.NAME=1,2,4, env.NAME=a,b, or a flag of the command; repeatable."
_FOR = "Number that shall get better, such as output_tokens_per_s or 'ttft p95'. [default: TTFT p50, or E2E p50]"
_MARGIN = "Gain that is too small to change anything for, such as 3%. [default: that of `harness compare`]"
_STARTS = "Starts of each candidate in the race, least and greatest. [default: 2..6]"
_PAIRS = "Pairs of starts that confirm the best one against the defaults. [default: 4..8]"
_BUDGET = "Begin no start that would end after this time, such as 30m."
_LOAD = "Load of the scenario, if it has several."
_RESUME = "Go on with a tuning that was ended, in its folder."


def tune(
    scenario: Annotated[str | None, typer.Argument(help=shared.SCENARIO_HELP, show_default=False)] = None,
    over: Annotated[list[str], typer.Option("--over", metavar="KEY=V,V,...", help=_OVER)] = [],  # noqa: B006
    number: Annotated[str | None, typer.Option("--for", metavar="NUMBER", help=_FOR)] = None,
    margin: Annotated[str | None, typer.Option(metavar="SIZE", help=_MARGIN)] = None,
    starts: Annotated[str | None, typer.Option(metavar="N..M", help=_STARTS)] = None,
    pairs: Annotated[str | None, typer.Option(metavar="N..M", help=_PAIRS)] = None,
    budget: Annotated[str | None, typer.Option(help=_BUDGET)] = None,
    load: Annotated[str | None, typer.Option(metavar="NAME", help=_LOAD)] = None,
    sets: shared.Sets = [],  # noqa: B006
    only: shared.Only = None,
    out: Annotated[Path | None, typer.Option(help="Folder, new or of the same tuning.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="FOLDER", help=_RESUME, show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print candidates, stages and time, and stop.")] = False,
    quiet: shared.Quiet = False,
    as_json: shared.AsJson = False,
    yes: shared.Yes = False,
    wait: shared.Wait = "0s",
) -> None:
    """Try options of the engine, and say which are better than its defaults, or to keep those."""
    named: dict[str, object] = {"--over": over, "--for": number, "--margin": margin, "--budget": budget}
    named |= {"SCENARIO": scenario, "--set": sets, "--only": only, "--load": load, "--out": out}
    named |= {"--starts": starts, "--pairs": pairs}
    if resume is not None:
        if wrong := next((name for name, value in named.items() if value), None):
            raise UsageError(f"--resume goes on with the command that the folder has stored: leave {wrong} out")
        asked, out = stored(resume)
    elif scenario is None:
        raise UsageError(
            "name the scenario to tune, as in `harness tune scenario.yaml --over options.n_parallel=1,2,4`"
        )
    else:
        asked = Asked(
            scenario=str(Path(scenario).resolve()) if Path(scenario).is_file() else scenario,
            over=over,
            number=number,
            margin=margin,
            starts=starts or "2..6",
            pairs=pairs or "4..8",
            budget=budget,
            load=load,
            sets=sets,
            only=only,
        )
    how = How(out=out, dry_run=dry_run, quiet=quiet, as_json=as_json, yes=yes, wait=wait)
    raise typer.Exit(run_tuning(asked, how))
