"""`harness bisect`: find the version between a good and a bad one that changed a number."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options as shared
from harness.cli.bisect import Asked, run_bisection

_GOOD = "Commit, or version of --steps, at which the number was good."
_BAD = "Later one, at which it is not."
_COMMAND = "Command that starts the server of a version; `{commit}` is filled in, as `{port}` is."
_PYTHON = "Interpreter of a version, with `{commit}`, for engines that run in one."
_BUILD = "Shell command with `{commit}` that builds a version; it ends before the load begins."
_SETS = "Set a key of the scenario, in which `{commit}` is filled in; repeatable."
_FAIL_ON = "The number that changed, with its margin, such as 'ttft p95 +10%'."
_MOST = "Most pairs of starts in all."
_BUDGET = "Begin no further pair after this time, such as 2h. GOOD and BAD are measured in any case."


def bisect(
    good: Annotated[str, typer.Argument(help=_GOOD, show_default=False)],
    bad: Annotated[str, typer.Argument(help=_BAD, show_default=False)],
    scenario: Annotated[str | None, typer.Option(metavar="FILE", help="Scenario that shows the change.")] = None,
    command: Annotated[str | None, typer.Option(metavar="COMMAND", help=_COMMAND)] = None,
    python: Annotated[str | None, typer.Option(metavar="PATH", help=_PYTHON)] = None,
    build: Annotated[str | None, typer.Option(metavar="COMMAND", help=_BUILD)] = None,
    sets: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help=_SETS)] = [],  # noqa: B006
    steps: Annotated[Path | None, typer.Option(metavar="FILE", help="Versions, one a line, oldest first.")] = None,
    repo: Annotated[Path, typer.Option(metavar="DIR", help="Repository of the commits.")] = Path(),
    fail_on: Annotated[str | None, typer.Option("--fail-on", metavar="MARGIN", help=_FAIL_ON)] = None,
    pairs: Annotated[str | None, typer.Option(metavar="N..M", help="Pairs of GOOD and BAD. [default: 4..8]")] = None,
    most: Annotated[int, typer.Option(metavar="N", help=_MOST)] = 40,
    budget: Annotated[str | None, typer.Option(help=_BUDGET)] = None,
    only: shared.Only = None,
    out: Annotated[Path | None, typer.Option(help="Folder, new or of the same bisection.")] = None,
    quiet: shared.Quiet = False,
    as_json: shared.AsJson = False,
    yes: shared.Yes = False,
    wait: shared.Wait = "0s",
) -> None:
    """Find the commit that changed a number: pairs of starts, noisy answers allowed."""
    raise typer.Exit(run_bisection(Asked(**locals())))
