"""`harness init`: write a scenario to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.output import say
from harness.errors import UsageError, shortened


def init(
    template: Annotated[str, typer.Option(help="A scenario of `harness list scenarios`.")] = "quickstart",
    out: Annotated[Path | None, typer.Option(help="File to write. [default: print to standard output]")] = None,
) -> None:
    """Write a commented scenario to begin with."""
    from harness.scenario.templates import init_template

    text = init_template(template)
    if out is None:
        print(text, end="")
        return
    try:
        if out.exists():
            raise UsageError(f"{out} exists; choose another name with --out")
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{shortened(str(out))}: cannot write: {error.strerror}; choose another name with --out"
        ) from error
    shown = shlex.quote(str(out))
    say(f"wrote {out}; check it with `harness validate {shown}`, run it with `harness run {shown}`")
