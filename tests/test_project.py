"""The files around the code: the Makefile is the one door, dependencies have reasons, packages say what is public."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import harness

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
CALLERS = [
    ROOT / ".ci" / "run",
    ROOT / ".pre-commit-config.yaml",
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / ".github").rglob("*.yml")),
    *sorted((ROOT / ".github").rglob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PACKAGES = ("harness", "engines", "reports")


@pytest.mark.parametrize("path", CALLERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_target_that_is_named_exists(path: Path) -> None:
    """Hooks, workflows and pages call targets of the Makefile."""
    named = {
        word
        for found in re.findall(r"(?:run: |entry: |`|^)make ([a-z -]+)", path.read_text(), re.M)
        for word in found.split()
    }
    assert named <= TARGETS


def test_the_hooks_are_the_checks() -> None:
    """`make check` and the hooks before a commit run the same targets."""
    (checks,) = re.findall(r"^check: (.*?)\s+##", MAKEFILE, re.MULTILINE)
    (local,) = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in local["hooks"]] == [f"make {target}" for target in checks.split()]


def test_make_docs_writes_every_generated_page() -> None:
    """Each module that writes a page when it is run is run by `make docs`."""
    sources = [*(ROOT / "harness").rglob("*.py"), ROOT / "tests" / "known_answers" / "__main__.py"]
    writers = {path for path in sources if 'if __name__ == "__main__"' in (text := path.read_text()) and "docs" in text}
    run = re.findall(r"python -m ([\w.]+)$", MAKEFILE[MAKEFILE.index("\ndocs:") :].split("\n\n")[0], re.MULTILINE)
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for path in writers}
    assert set(run) == names


def test_every_dependency_has_a_reason() -> None:
    """A comment beside each dependency of a user says what it is for."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["transformers"], *extras["vllm"], *extras["llama-cpp"]]:
        (line,) = [line for line in text.splitlines() if f'"{requirement}"' in line]
        assert "  # " in line, requirement


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_is_public_and_that_it_is_typed(name: str) -> None:
    """`__all__` names what others may use, in order; the marker `py.typed` tells type checkers to trust the hints."""
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, public) for public in package.__all__)
    assert (ROOT / name / "py.typed").exists()


@pytest.mark.parametrize("name", PACKAGES)
def test_others_use_what_is_public(name: str) -> None:
    """The other packages import from a package its `__all__` or its modules."""
    package = importlib.import_module(name)
    texts = [path.read_text() for other in PACKAGES if other != name for path in (ROOT / other).rglob("*.py")]
    lists = [found for text in texts for found in re.findall(rf"from {name} import ([\w, ]+)$", text, re.M)]
    used = {word.split(" as ")[0] for found in lists for word in found.split(", ")}
    modules = {path.stem for path in (ROOT / name).glob("*.py")} | {path.name for path in (ROOT / name).iterdir()}
    assert used <= {*package.__all__, *modules}


def test_the_package_can_be_run() -> None:
    """`python -m harness` is the command `harness`."""
    done = subprocess.run([sys.executable, "-m", "harness", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == harness.__version__
