"""Options that several commands share, and what their values may be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from reports import EXPORTS, FORMATS

Sets = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as load.0.rate=4.")]
Labels = Annotated[list[str], typer.Option("--label", metavar="KEY=VALUE", help="Label the run, such as commit=abc.")]
Formats = Annotated[
    list[str],
    typer.Option("--format", metavar="NAME", help=f"Write: {', '.join(FORMATS)}. Default: all; plots of 24 trials."),
]
Exports = Annotated[
    list[str],
    typer.Option("--export", metavar="KIND:FILE", help="Write the summary for another program: prometheus:FILE."),
]
Only = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="Only these cells: engine=, quantization=, variant=, model=, repetition=; with * and, between several, |.",
    ),
]


def check_formats(formats: list[str]) -> tuple[str, ...] | None:
    """The formats asked for, also as comma-separated lists; None, the default, is all of them."""
    asked = [name for text in formats for name in text.split(",")]
    for name in asked:
        if name not in FORMATS:
            raise UsageError(f"--format {name}: there is no such report; write one of {', '.join(FORMATS)}")
    return tuple(asked) or None


def check_exports(exports: list[str]) -> list[tuple[str, Path]]:
    """(kind, file) of each; what could not be written at the end is refused at the beginning."""
    found = []
    for text in exports:
        kind, _, file = text.partition(":")
        if kind not in EXPORTS or not file:
            raise UsageError(f"--export {text}: there is no such export; write {EXPORTS[0]}:FILE")
        if not Path(file).parent.is_dir() or Path(file).is_dir():
            raise UsageError(f"--export {text}: {file} cannot be a file; name one in a folder that exists")
        found.append((kind, Path(file)))
    return found


def parse_wait(text: str, option: str = "--wait") -> float:
    """Seconds."""
    from harness.units import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
