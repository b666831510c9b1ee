"""Options that several commands share, and the check of their values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from reports import EXPORTS, FORMATS

SCENARIO_HELP = "Scenario file, or the name of a shipped one, such as quickstart."
_ONLY = "Only these configurations: engine=, quantization=, variant=, model=, repetition=, with * and a|b."
_OF_URL = "With a URL: "
_LIMIT = "'ttft_ms p95 <= 500'"
_FORMATS = f"Report formats (comma-separated): {', '.join(FORMATS)}. [default: all; plots of the first 24 trials]"

Sets = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Set a key, such as load.0.rate=4.")]
Labels = Annotated[list[str], typer.Option("--label", metavar="KEY=VALUE", help="Label the run, such as commit=abc.")]
Formats = Annotated[list[str], typer.Option("--format", metavar="NAME", help=_FORMATS)]
Exports = Annotated[
    list[str],
    typer.Option(
        "--export",
        metavar="KIND:FILE",
        help=f"Write the summary for another program: {', '.join(f'{kind}:FILE' for kind in EXPORTS)}.",
    ),
]
Only = Annotated[str | None, typer.Option(metavar="KEY=VALUE,...", help=_ONLY)]
Out = Annotated[Path | None, typer.Option(help="New folder for the run. [default: runs/<time>-<name>]")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
Columns = Annotated[
    str | None,
    typer.Option(metavar="NAME,...", help="Columns of the table, such as ttft,tpot_ms p99,goodput. [default: as fit]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")]
Yes = Annotated[bool, typer.Option("--yes", help="Allow load on a remote server without a `budget`.")]
Wait = Annotated[str, typer.Option(help="Wait this long for another run on this machine to end.")]

ExpectWorkers = Annotated[int, typer.Option(min=0, help="With Locust: number of `harness worker`s.")]
WorkersWithin = Annotated[str, typer.Option(help="Time to wait for these workers.")]
MasterBindHost = Annotated[str, typer.Option(help="Address for workers; * for all interfaces.")]
MasterBindPort = Annotated[int, typer.Option(help="Port for workers.", min=0, max=65535)]

Rate = Annotated[str | None, typer.Option(metavar="N,...", help=f"{_OF_URL}requests per second.")]
Users = Annotated[str | None, typer.Option(metavar="N,...", help=f"{_OF_URL}users at a time. [default: 1,4,16]")]
MaxConcurrency = Annotated[
    str | None, typer.Option(metavar="N,...", help=f"{_OF_URL}most requests in flight beside a rate. [default: no cap]")
]
Retries = Annotated[
    int | None, typer.Option(min=0, help=f"{_OF_URL}how often a failed request is sent again. [default: never]")
]
Duration = Annotated[str | None, typer.Option(help=f"{_OF_URL}time to measure each load. [default: 60s; 15s]")]
PromptTokens = Annotated[int | None, typer.Option(min=1, help=f"{_OF_URL}tokens of a prompt. [default: 128]")]
OutputTokens = Annotated[int | None, typer.Option(min=1, help=f"{_OF_URL}tokens of a reply. [default: 128]")]
PromptLengths = Annotated[
    str | None, typer.Option(metavar="N,...", help=f"{_OF_URL}tokens of a prompt. [default: 128]")
]
OutputLengths = Annotated[str | None, typer.Option(metavar="N,...", help=f"{_OF_URL}tokens of a reply. [default: 128]")]
Limits = Annotated[
    list[str], typer.Option("--limit", metavar="LIMIT", help=f"{_OF_URL}a limit, such as {_LIMIT}; repeatable.")
]
Dialect = Annotated[str | None, typer.Option(help=f"{_OF_URL}wire format. [default: detected]")]
ServedModel = Annotated[str | None, typer.Option(help=f"{_OF_URL}name of the model. [default: detected]")]
ApiKeyEnv = Annotated[str | None, typer.Option(metavar="NAME", help=f"{_OF_URL}environment variable with the key.")]


_GATE = "Gate: start both sides in turns, and compare the pairs. "
Against = Annotated[str | None, typer.Option(metavar="VARIANT", help=f"{_GATE}The baseline is this variant.")]
BaseSets = Annotated[
    list[str],
    typer.Option("--base-set", metavar="KEY=VALUE", help=f"{_GATE}The baseline is the scenario with this key."),
]
BaseUrl = Annotated[str | None, typer.Option(metavar="URL", help=f"{_GATE}The baseline is the server there.")]
BaseCommand = Annotated[str | None, typer.Option(metavar="COMMAND", help=f"{_GATE}The baseline is what this starts.")]
BasePython = Annotated[
    str | None, typer.Option(metavar="PATH", help=f"{_GATE}The baseline is the engine of this interpreter.")
]
Across = Annotated[
    list[str],
    typer.Option(
        "--across",
        metavar="KIND",
        help="Gate: allow a difference: hardware, model, engine, quantization, load, driver, clock; repeatable.",
    ),
]
Alternate = Annotated[
    bool, typer.Option("--alternate", help="Gate: keep both sides up, and send short blocks to them in turns.")
]
Pairs = Annotated[str | None, typer.Option(metavar="N..M", help="Gate: pairs of starts. [default: 4..8]")]
CacheAudit = Annotated[
    bool, typer.Option("--cache-audit", help="Send prompts twice beforehand, to find a server with a result cache.")
]
GateBudget = Annotated[str | None, typer.Option("--budget", help="Gate: begin no further pair after this time.")]
FailOn = Annotated[
    list[str],
    typer.Option("--fail-on", metavar="MARGIN", help="A number that gates, such as 'ttft p95 +10%'; repeatable."),
]
_INCONCLUSIVE = 'What "cannot tell" means for the exit code: fail (6) or warn (0).'
Inconclusive = Annotated[str, typer.Option(metavar="fail|warn", help=_INCONCLUSIVE)]
RunInconclusive = Annotated[
    str | None, typer.Option("--inconclusive", metavar="fail|warn", help=f"Gate: {_INCONCLUSIVE} [default: fail]")
]


def check_inconclusive(text: str) -> bool:
    """Return whether "cannot tell" fails. Raises UsageError for another word."""
    if text not in ("fail", "warn"):
        raise UsageError(f"--inconclusive {text}: write fail or warn")
    return text == "fail"


def machines_of(instances: Sequence[str], runs: Sequence[str]) -> dict[str, str]:
    """Return the machine of each run that is named, that of all others under ""."""
    found: dict[str, str] = {}
    for text in instances:
        run, equals, name = text.rpartition("=")
        if equals and run not in runs:
            raise UsageError(f"--instance {text}: {run!r} is none of the runs; write RUN=NAME or NAME")
        if run in found:
            raise UsageError(f"--instance {text}: one machine is named already; write RUN=NAME for each run")
        found[run] = name
    return found


def check_pairs(arguments: Sequence[str]) -> None:
    """Raise UsageError for `--set key value`, which is written `--set key=value`."""
    for option, key, value in zip(arguments, arguments[1:], arguments[2:], strict=False):
        if option in ("--set", "--label") and "=" not in key and value[:1] != "-" and not Path(value).is_file():
            raise UsageError(f"{option} {key} {value}: write `{option} {key}={value}`")


def check_formats(formats: list[str]) -> tuple[str, ...] | None:
    """Return the requested formats, with comma-separated lists split; None (the default) for all of them."""
    requested = [name for text in formats for name in text.split(",")]
    for name in requested:
        if name not in FORMATS:
            raise UsageError(f"--format {name}: there is no such report; write one of {', '.join(FORMATS)}")
    return tuple(requested) or None


def check_exports(exports: list[str]) -> list[tuple[str, Path]]:
    """Return (kind, file) of each export; raise UsageError for a file that could not be written at the end."""
    found = []
    for text in exports:
        kind, _, file = text.partition(":")
        if kind not in EXPORTS or not file:
            raise UsageError(f"--export {text}: there is no such export; write {':FILE or '.join(EXPORTS)}:FILE")
        if not Path(file).parent.is_dir() or Path(file).is_dir():
            raise UsageError(f"--export {text}: {file} cannot be a file; name one in a folder that exists")
        found.append((kind, Path(file)))
    return found


def parse_columns(text: str | None) -> list[str] | None:
    """Return the columns of a comma-separated list; None for those that fit."""
    from harness.scenario.columns import parse_column

    try:
        return None if text is None else [parse_column(one) for one in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--columns {text}: {error}") from error


def column_sets(text: str | None) -> list[str]:
    """Return the `--set` that stores the columns of a command with the run."""
    columns = parse_columns(text)
    return [] if columns is None else [f"columns=[{','.join(columns)}]"]


def parse_wait(text: str, option: str = "--wait") -> float:
    """Return a duration in seconds."""
    from harness.units import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
