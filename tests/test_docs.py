"""What the documentation says exists: commands and their options, links, scenario blocks, exit codes."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from engines.http import engine as http
from engines.huggingface import options as huggingface
from engines.llamacpp import options as llamacpp
from engines.vllm import options as vllm
from harness.cli.app import app
from harness.errors import ExitCode
from harness.scenario.reader import load

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OPTIONS = [
    http.HttpOptions,
    huggingface.Options,
    llamacpp.LlamaServerOptions,
    llamacpp.LlamaCppOptions,
    llamacpp.LlamaCppServerOptions,
    vllm.VllmOptions,
]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(path: Path) -> str:
    """A page's name in the list of tests."""
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks in a language."""
    return [body for found, body in _FENCE.findall(text) if found == language]


def commands(text: str) -> list[str]:
    """Every `harness ...` command line that a page quotes: in shell blocks, and between backticks."""
    shell = [
        line
        for language in ("sh", "bash", "console")
        for block in blocks(text, language)
        for line in block.splitlines()
    ]
    quoted = _CODE.findall(_FENCE.sub("", text).partition("## Not built yet")[0])
    lines = [re.split(r"\s#\s|[;|]|&&", line.removeprefix("$ "))[0].strip() for line in [*shell, *quoted]]
    return [line for line in lines if line.startswith("harness ")]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_exist(page: Path) -> None:
    """Each quoted command and every option in it is one of the command line's."""
    group = typer.main.get_command(app)
    known = group.commands  # type: ignore[attr-defined]
    for line in commands(page.read_text(encoding="utf-8")):
        words = shlex.split(line)[1:]
        command = known.get(words[0]) if words else None
        if hasattr(command, "commands") and len(words) > 1:
            command = command.commands.get(words[1])
        options = {option for one in (command or group).params for option in one.opts} | {"--help"}
        used = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert command is not None or used == set(words), line
        assert used <= options, line


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is a file of the repository."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [link.partition("#")[0] for link in _LINK.findall(text) if "://" not in link]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_scenarios_can_be_run(page: Path, tmp_path: Path) -> None:
    """A YAML block is a scenario, or a part of one that becomes a scenario beside an engine and a load."""
    for number, block in enumerate(blocks(page.read_text(encoding="utf-8"), "yaml")):
        path = tmp_path / f"{number}.yaml"
        present = set(re.findall(r"^(\w+):", block, re.MULTILINE))
        rest = {
            "engines": "engines: [{engine: simulated}]\n",
            "load": "load: [{kind: single_user, requests: 1}]\n",
        }
        added = "" if "extends" in present else "".join(text for key, text in rest.items() if key not in present)
        path.write_text(block + added, encoding="utf-8")
        load(path)


def test_there_are_commands_and_scenarios_to_check() -> None:
    """The patterns above find what is there."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(len(commands(text)) for text in texts) >= 5
    assert sum(len(blocks(text, "yaml")) for text in texts) >= 1


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: f"{options.__module__}.{options.__name__}")
def test_every_option_of_an_engine_is_documented(options: Any) -> None:
    """docs/engines.md names it between backticks."""
    text = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    assert [one.name for one in fields(options) if not re.search(rf"`{one.name}\b", text)] == []


def test_examples_of_single_tests_select_some() -> None:
    """A command that runs a part of a file in CONTRIBUTING.md names tests that are there."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    examples = re.findall(r"pytest (tests/\S+\.py) -k (\w+)", text)
    assert examples
    for path, word in examples:
        assert re.search(rf"^def test_\w*{word}", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), path


def test_the_table_of_exit_codes() -> None:
    """It has the codes that the program can end with, and no others."""
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == set(ExitCode)
