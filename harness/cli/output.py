"""What the commands print: lines and tables, what a server said in them made harmless."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from reports.format import for_terminal

if TYPE_CHECKING:
    from rich.console import Console


def table_console() -> Console:
    """Where the table goes: as wide as the terminal, or wide enough for any table where the output is none."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def say(text: str) -> None:
    """A line on standard error, or several; what a server said in them is not obeyed."""
    print("\n".join(map(for_terminal, text.splitlines())), file=sys.stderr)


def error_console() -> Console:
    """Where progress goes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
