"""`harness doctor`: is this a machine to measure on, and how far can the measuring client be trusted here?"""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.output import say, table_console


def doctor(
    no_calibrate: Annotated[bool, typer.Option("--no-calibrate", help="Only look; do not measure the client.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Calibrate in seconds, with fewer and smaller loads.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything found as JSON.")] = False,
) -> None:
    """Check this machine, and find the largest load that can be measured exactly here; under a minute."""
    from harness.cli.examination import examine, show

    found = examine(calibrating=not no_calibrate, quick=quick, say=say)
    if as_json:
        print(found.as_json())
    else:
        show(found, table_console())
    raise typer.Exit(found.exit_code)
