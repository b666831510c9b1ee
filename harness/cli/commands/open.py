"""`harness open`: show the page of a stored run in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.output import say

PAGE = "report.html"


def open_(
    run: Annotated[str, typer.Argument(help="Folder or name of a run, or latest.", show_default=False)] = "latest",
) -> None:
    """Open the page of a stored run in a browser, or print its path without one."""
    from harness.store.run import find_run

    page = find_run(run) / PAGE
    if not page.exists():
        _make(page)
    print(page)
    if not (_has_browser() and webbrowser.open(page.resolve().as_uri())):
        say("no browser was found here; open the file above in one")


def _make(page: Path) -> None:
    from harness.cli.commands.report import write

    write(page.parent, ("html",))


def _has_browser() -> bool:
    """Return whether a browser would open a window; one in the terminal would take it over."""
    named = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in named)
