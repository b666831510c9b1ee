"""`harness regress`: since when is a nightly number worse, and what changed then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from harness.cli.alerts import AlertsTo, Page, WebhookEnv, tell
from harness.cli.commands.compare import parse_margins
from harness.cli.confirm import check_confirm, confirmation
from harness.cli.options import AsJson, FailOn, Inconclusive, check_inconclusive
from harness.cli.output import say
from harness.errors import ExitCode, first_that_applies
from reports.format import for_terminal

if TYPE_CHECKING:
    from harness.history.board import Alert, Board
    from reports.board import Board as Tables

_STORE = "Folder of the history. [default: HARNESS_HISTORY, or history]"
Folder = Annotated[Path | None, typer.Option("--store", metavar="DIR", help=_STORE)]
_HTML = "Write the pages of the history to this folder."
_REPORTS = "Address of the page of a run, with {run} for its name, such as ../runs/{run}/report.html."
_DRY = "Show what there is, and remember no alert as told."
_CONFIRM = (
    "Measure both builds of a new alert in turns before it is told: with the scenario of a night, or by a COMMAND with "
    "{before} and {after}."
)
_MOST_NAMED = 5


def regress(
    folder: Folder = None,
    fail_on: FailOn = [],  # noqa: B006
    inconclusive: Inconclusive = "fail",
    html: Annotated[Path | None, typer.Option(metavar="DIR", help=_HTML)] = None,
    reports: Annotated[str | None, typer.Option(metavar="ADDRESS", help=_REPORTS)] = None,
    alerts: AlertsTo = None,
    webhook_env: WebhookEnv = None,
    page: Page = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_DRY)] = False,
    confirm: Annotated[str | None, typer.Option(metavar="COMMAND", help=_CONFIRM)] = None,
    as_json: AsJson = False,
) -> None:
    """Judge every series of a nightly history, and tell each change once."""
    from harness.history.board import make_board, parse_told
    from harness.history.store.folder import Store, default_folder
    from harness.history.webhook import address_in

    fails = check_inconclusive(inconclusive)
    check_confirm(confirm)
    address = None if webhook_env is None else address_in(webhook_env)
    store = Store.open(folder or default_folder())
    margins = parse_margins(fail_on or store.settings.fail_on)
    told = [one for text in store.told() if (one := parse_told(text)) is not None]
    series = store.series()
    board = make_board(series, datetime.now(UTC), store.settings.schedule, told, margins, confirmation(confirm, series))
    for sentence in store.damage:
        say(f"harness: {sentence}")
    code = exit_code(board, inconclusive_fails=fails)
    show(board, code, as_json=as_json)
    if html is not None:
        write_pages(board, html, reports)
    if not dry_run and published(board, alerts, address, page):
        store.tell([alert.as_told(board.made).text for alert in board.alerts if not alert.told])
    raise typer.Exit(code)


def write_pages(board: Board, folder: Path, report: str | None) -> None:
    """Write the site. report: address of the page of a run. Raises StorageFailed if it cannot be written."""
    from harness.history.tables import board_tables
    from harness.store.streams import storage_errors
    from reports import write_site

    with storage_errors(folder):
        write_site(cast("Tables", board_tables(board, report=report)), folder)


def published(board: Board, folder: Path | None, address: str | None, page: str) -> bool:
    """Tell of alerts where that is asked for; return whether they may be remembered as told."""
    from harness.history.tables import board_tables

    if folder is None and address is None:
        return True
    return tell(cast("Tables", board_tables(board)), folder, address, page)


def exit_code(board: Board, *, inconclusive_fails: bool) -> ExitCode:
    """Return REGRESSED for a new alert that fails, CANNOT_TELL for new missing nights, else HOLDS."""
    from harness.history.detector.states import State

    codes = {ExitCode.REGRESSED for alert in board.new if alert.fails}
    if inconclusive_fails and any(alert.state is State.NO_DATA for alert in board.new):
        codes.add(ExitCode.CANNOT_TELL)
    return first_that_applies(codes)


def show(board: Board, code: ExitCode, *, as_json: bool) -> None:
    """Print the board: what is wrong first, then the number of series in each state; or its data as JSON."""
    if as_json:
        from harness.history.tables import board_tables

        data = {**board_tables(board, points=False), "exit_code": int(code)}
        print(json.dumps(data, indent=2, ensure_ascii=False))
        return
    for line in lines(board, code):
        print(for_terminal(line))


def lines(board: Board, code: ExitCode) -> Iterator[str]:
    """Yield the board for a terminal."""
    for alert in board.alerts:
        yield from _alert_lines(alert)
    wanting = [one for one in board.series if one.wants_run]
    if wanting:
        from harness.history.names import short_names

        names = short_names([one.series.key for one in board.series])
        named = [name for name, one in zip(names, board.series, strict=True) if one.wants_run]
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        yield f"WANTS ANOTHER RUN  {', '.join(named[:_MOST_NAMED])}{more}: a large change in a single run"
        yield "    run the scenario again tonight and add it; if it agrees, the change is told at once"
    if board.alerts or wanting:
        yield ""
    counts = [f"{number} {state}" for state, number in board.counts().items() if number]
    new = len(board.new)
    news = f"{new} new alert{'s' * (new != 1)}" if new else "nothing new"
    yield f"{len(board.series)} series: {', '.join(counts) or 'none'}; {news}   exit {int(code)}"


def _alert_lines(alert: Alert) -> Iterator[str]:
    """Yield what changed, then since when, the suspects and the cause."""
    mark = "" if not alert.told else "  (told before)"
    yield f"{alert.state.upper()}  {alert.title}{mark}"
    first, last = (f"{at:%Y-%m-%d}" for at in alert.between)
    if alert.shape == "creep":
        parts = [f"since {alert.since:%Y-%m-%d}, until {last}"]
    else:
        between = f" (between {first} and {last})" if first != last and alert.shape == "step" else ""
        parts = [f"since {alert.since:%Y-%m-%d}{between}"]
    parts += [f"suspects: {name} {_short(before)}..{_short(after)}" for name, before, after in alert.suspects]
    if alert.cause:
        parts.append(alert.cause)
    if alert.shape and alert.state.value in ("regressed", "improved"):
        words = {None: "unconfirmed", True: "confirmed by pairs", False: "not there in pairs of both builds"}
        parts.append(words[alert.confirmed])
    yield f"    {'; '.join(parts)}"


def _short(label: str) -> str:
    """Return a label; a hash of git by its first ten digits."""
    return label[:10] if len(label) == 40 and not label.strip("0123456789abcdef") else label or "none"
