"""Telling of a board: files for people and programs, and a message for a chat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.output import say

if TYPE_CHECKING:
    from reports.board import Board

AlertsTo = Annotated[
    Path | None, typer.Option("--alerts", metavar="DIR", help="Write alerts.md, alerts.json and alerts.xml (JUnit).")
]
WebhookEnv = Annotated[
    str | None,
    typer.Option("--webhook-env", metavar="NAME", help="Post new alerts to the address in this environment variable."),
]
Page = Annotated[str, typer.Option("--page", metavar="URL", help="Address of the pages, for a link in the message.")]


def tell(board: Board, folder: Path | None, address: str | None, page: str = "") -> bool:
    """Write the files of alerts, and post the new ones; return whether they may be remembered as told.

    What goes wrong with a chat is a line on standard error: it changes neither result nor exit code.

    Args:
        folder: Folder of the files; None for none.
        address: Address of a webhook, from `harness.history.webhook.address_in`; None for none.
        page: Address of the site; "" if it is not published.

    Raises StorageFailed if a file cannot be written.
    """
    from harness.history.webhook import post
    from harness.store.streams import storage_errors
    from reports import alerts

    if folder is not None:
        with storage_errors(folder):
            alerts.write(board, folder)
    message = alerts.as_chat(board, page) if address is not None else None
    if address is None or message is None:
        return True
    if why := post(address, message):
        say(f"harness: {why}; the alerts count as not told, the next call posts them again")
    return not why
