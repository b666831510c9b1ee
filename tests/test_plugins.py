"""Engines of other distributions: the worked example of the docs, installed and run, and plug-ins that are broken."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT, Ended, manifest, records, scenario

from tests.forked import harness

EXAMPLE = Path(__file__).parent / "data" / "plugin"
FILES = {"toml": "pyproject.toml", "python": "harness_echo.py", "yml": "echo.yaml"}


def plugged_in(folder: Path, name: str, value: str, source: str, package: str = "strange") -> None:
    """A package as an installer leaves it behind: its module, and what it says of itself."""
    module = value.partition(":")[0]
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[harness.engines]\n{name} = {value}\n")


def with_plug_ins(*arguments: str, folder: Path, plug_ins: Path) -> Ended:
    """A command in an environment that has these."""
    return harness(*arguments, cwd=folder, env={"PYTHONPATH": f"{ROOT}:{plug_ins}"})


@pytest.mark.parametrize("language", FILES)
def test_the_docs_show_the_example_as_it_is(language: str) -> None:
    """Each of its files stands in the page, word for word."""
    page = (ROOT / "docs" / "plugins.md").read_text()
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block == (EXAMPLE / FILES[language]).read_text()


@pytest.mark.slow
def test_the_example_is_installed_and_run(tmp_path: Path) -> None:
    """pip installs it, the list shows it, its level and its options are its own, and a run measures it."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(EXAMPLE)]
    subprocess.run(install, check=True)
    listed = with_plug_ins("list", "engines", folder=tmp_path, plug_ins=site)
    assert re.search(r"^echo\b.*; installed\n.*\bnone$", listed.out, re.MULTILINE), listed.out
    ended = with_plug_ins("run", str(EXAMPLE / "echo.yaml"), "--out", "run", folder=tmp_path, plug_ins=site)
    assert ended.code in (0, 4), ended.err  # a busy machine makes it invalid
    cell = manifest(tmp_path / "run")["cells"][0]
    assert (cell["engine_info"]["name"], cell["engine_info"]["options"]) == ("echo", {"pace_ms": 2.0})
    found = records(tmp_path / "run", cell["trials"][0])
    assert {(row["status"], row["output_tokens"], row["token_source"]) for row in found} == {("ok", 10, "usage")}
    # Ten pauses of 2 ms, each of which the event loop's clock may end up to a millisecond early.
    assert all(row["last_token_ns"] - row["sent_ns"] >= 10 * 1_000_000 for row in found)
    wrong = scenario(tmp_path, engines=[{"engine": "echo", "options": {"pace": 2}}])
    ended = with_plug_ins("run", str(wrong), "--out", "wrong", folder=tmp_path, plug_ins=site)
    assert "engine 'echo' has no option 'pace'; did you mean 'pace_ms'?" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import no_such_library", "cannot be imported (ModuleNotFoundError: No module named 'no_such_library')"),
        ("raise RuntimeError('no licence')", "cannot be imported (RuntimeError: no licence); repair or uninstall that"),
        ("def broken(:", "cannot be imported (SyntaxError: "),
        ("", "cannot be imported (AttributeError: module 'odd' has no attribute 'Odd')"),
        ("class Odd:\n    pass", "is no engine: odd:Odd lacks levels, prepare, start, stop"),
        (
            "class Odd:\n    levels = prepare = start = stop = None",
            "is no engine: odd:Odd must have exactly one of generate and endpoint",
        ),
    ],
)
def test_a_broken_plug_in_is_a_skipped_row(tmp_path: Path, source: str, sentence: str) -> None:
    """With the reason; nothing else is harmed by it."""
    plugged_in(tmp_path / "site", "odd", "odd:Odd", source)
    path = scenario(tmp_path, engines=[{"engine": "odd"}, {"engine": "simulated"}])
    ended = with_plug_ins("run", str(path), "--dry-run", folder=tmp_path, plug_ins=tmp_path / "site")
    assert ended.code == 0, ended.err
    assert f"skipped: engine 'odd' of strange 1.0 {sentence}" in ended.out


def test_ours_keep_their_names(tmp_path: Path) -> None:
    """A plug-in cannot replace a built-in engine, nor a second one the first; the list says so."""
    own = "class Own:\n    levels = classmethod(lambda cls: ('mine',))\n    prepare = start = stop = generate = None\n"
    plugged_in(tmp_path / "site", "simulated", "own:Own", own)
    plugged_in(tmp_path / "site", "twice", "first:Own", own, "first")
    plugged_in(tmp_path / "site", "twice", "second:Own", own.replace("mine", "other"), "second")
    listed = with_plug_ins("list", "engines", folder=tmp_path, plug_ins=tmp_path / "site")
    assert listed.code == 0, listed.err
    clash = "has an engine of this name too, which is not used"
    text = " ".join(listed.out.split())
    assert f"strange 1.0 {clash}: the built-in engine is; rename it there" in text
    assert f"second 1.0 {clash}: that of first 1.0 is; rename it there" in text
    assert "mine" in text
    assert "other" not in text
