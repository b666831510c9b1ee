"""The examples of docs/examples.md: files, commands, and the output that they made; run as a program, writes it again.

python -m tests.examples                   the outputs that every run makes alike
python -m tests.examples exact alike made  all, on the machine that the page names: 20 minutes

A part of the page (`## ...`) has a folder. A block that begins with `# name.yaml` is a file in it, a block of
`sh` has commands, and the block of `text` behind it what the last of them printed. The word behind `text` says how:

exact: in virtual time, on the simulated engine. The test of the page finds the same, character by character.
alike: on a real server, in seconds. The test finds the same words, in other figures.
made: once, on the machine that the page names.

After the colon is what the block shows: `table` (the results of a run), `decision` (its second table), the title of a
table, a label such as `LIMITS`, `answer` (the last line), or `all`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engines.process.server import ServerCommand, ServerProcess
from tests import forked
from tests.command import ROOT, VIRTUAL_TIME, environment

PAGE = ROOT / "docs" / "examples.md"
WIDTH = {"COLUMNS": "120"}
SERVER = re.compile(r"^python (tests/engines/\w+\.py) (\d+) &$")
_FENCE = re.compile(r"^```(?P<language>\w+)(?: (?P<how>\w+): (?P<shown>[^\n]*))?\n(?P<body>.*?)^```", re.M | re.S)
_PART = re.compile(r"^## (.*)$", re.M)
_NAME = re.compile(r"# ([\w.-]+\.yaml)\n")
_DATED = re.compile(r" \(\d{4}-[^)]*\)")
_RULE = "─"


@dataclass
class Example:
    """Commands with their output. files: those that came before, by name. where: the output's place in the page."""

    commands: list[str]
    files: dict[str, str]
    how: str = ""
    shown: list[str] = field(default_factory=list)
    output: str = ""
    where: tuple[int, int] = (0, 0)


def parts(page: str) -> dict[str, list[Example]]:
    """Return the examples of each part of the page that has some."""
    heads = [*_PART.finditer(page)]
    found = {}
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        examples = list(_examples(page, head.end(), after.start() if after else len(page)))
        if examples:
            found[head[1]] = examples
    return found


def _examples(page: str, start: int, end: int) -> Iterator[Example]:
    files: dict[str, str] = {}
    commands: list[str] = []
    for fence in _FENCE.finditer(page, start, end):
        body = fence["body"]
        if name := _NAME.match(body):
            files[name[1]] = body
        elif fence["language"] == "sh":
            commands = [line for line in body.replace("\\\n", "").splitlines() if line.strip()]
        elif fence["language"] == "text" and fence["how"]:
            shown = [one.strip() for one in fence["shown"].split(",")]
            yield Example(commands, dict(files), fence["how"], shown, body, fence.span("body"))


def outputs(examples: Collection[Example], folder: Path, kinds: Collection[str]) -> Iterator[tuple[Example, str]]:
    """Run the examples of these kinds in order, and yield each with what its block shows now."""
    with contextlib.ExitStack() as servers:
        port = ("", "")  # as the page has it, and the one that was free here
        for example in examples:
            if example.how not in kinds:
                continue
            for line in example.commands:
                if found := SERVER.match(line):
                    port = found[2], servers.enter_context(_server(ROOT / found[1]))
            for name, text in example.files.items():
                (folder / name).write_text(text.replace(*port), encoding="utf-8")
            lines = [line.replace(*port) for line in example.commands if not SERVER.match(line)]
            printed = [_printed(line, folder, virtual=example.how == "exact") for line in lines][-1]
            yield example, "\n".join(excerpt(printed, one) for one in example.shown).replace(*reversed(port))


def _printed(line: str, folder: Path, *, virtual: bool) -> str:
    words = shlex.split(line, comments=True)
    if words[0] == "harness":
        env = WIDTH | (VIRTUAL_TIME if virtual else {})
        ended = forked.harness(*words[1:], cwd=folder, env=env, timeout_s=3600)
        return ended.out or ended.err
    words[0] = {"python": sys.executable}.get(words[0], words[0])
    done = subprocess.run(words, cwd=folder, env=environment(), check=True, capture_output=True, text=True)
    return done.stdout


@contextlib.contextmanager
def _server(program: Path) -> Iterator[str]:
    """Run a server, and yield its port."""
    server = ServerProcess(ServerCommand(f"{sys.executable} {program} {{port}}", env=environment()))
    asyncio.run(server.start())
    try:
        yield server.url.rpartition(":")[2]
    finally:
        asyncio.run(server.stop())


def excerpt(printed: str, what: str) -> str:
    """Return a part of an output, each line with its end. Raises LookupError if it has no such part."""
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    if what == "all":
        found = lines
    elif what == "answer":
        found = [line for line in lines if line][-1:]
    elif what.isupper():
        found = _labelled(lines, what)
    elif what in ("table", "decision"):
        found = _table(lines, 0 if what == "table" else 1)
    else:
        found = _titled(lines, what)
    if not found:
        raise LookupError(f"there is no {what!r} in\n{printed}")
    return "".join(f"{line}\n" for line in found)


def _titled(lines: list[str], title: str) -> list[str]:
    """Return every table with this title; in front of it, where a line is there, what it is of."""
    found: list[str] = []
    for at, line in enumerate(lines):
        if line == title:
            about = lines[at - 1 : at] if at and lines[at - 1] else []
            found += [*(_DATED.sub("", one) for one in about), line, *_table(lines[at:], 0)]
    return found


def _labelled(lines: list[str], label: str) -> list[str]:
    begin = next((at for at, line in enumerate(lines) if line.lstrip().startswith(label)), len(lines))
    end = begin + 1
    while end < len(lines) and lines[end].startswith(" " * 12):
        end += 1
    return lines[begin:end]


def _table(lines: list[str], number: int) -> list[str]:
    """Return the lines from a rule to the next one."""
    rules = [at for at, line in enumerate(lines) if set(line.strip()) == {_RULE}]
    return lines[rules[2 * number] : rules[2 * number + 1] + 1] if len(rules) > 2 * number + 1 else []


def words(text: str) -> set[str]:
    """Return the words of an output without its figures: titles, names of columns and rows, units."""
    return set(re.findall(r"[A-Za-z][\w/%-]{2,}", text))


def write(kinds: Collection[str]) -> None:
    """Run the examples of these kinds, and write their outputs into the page."""
    page = PAGE.read_text(encoding="utf-8")
    made: list[tuple[tuple[int, int], str]] = []
    for examples in parts(page).values():
        with tempfile.TemporaryDirectory(prefix="examples-") as folder:
            made.extend((example.where, text) for example, text in outputs(examples, Path(folder), kinds))
    for (begin, end), text in sorted(made, reverse=True):
        page = page[:begin] + text + page[end:]
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    write(sys.argv[1:] or ("exact",))
