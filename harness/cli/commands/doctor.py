"""`harness doctor`: check whether this machine is fit for measuring, and how exactly its load generator measures."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import AsJson
from harness.cli.output import say, table_console


def doctor(
    no_calibrate: Annotated[bool, typer.Option("--no-calibrate", help="Run the checks only.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Calibrate in seconds, with fewer and smaller loads.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine, and find the largest load that can be measured exactly here; under a minute."""
    from harness.cli.examination import examine, show

    found = examine(calibrating=not no_calibrate, quick=quick, say=say)
    if as_json:
        print(found.as_json())
    else:
        show(found, table_console())
    raise typer.Exit(found.exit_code)
