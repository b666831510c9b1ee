"""What is installed: the names it takes, the files it brings, and a version that the changelog knows."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from harness import __version__

ROOT = Path(__file__).parents[1]


def test_the_changelog_knows_the_version() -> None:
    """The newest released heading of the changelog is this version."""
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", __version__]


def test_heavy_engines_are_extras() -> None:
    """The base installation needs no torch, vllm, transformers or llama-cpp-python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {re.split(r"[<>=; ]", line)[0] for line in project["dependencies"]}
    assert not base & {"torch", "vllm", "transformers", "llama-cpp-python"}
    assert project["name"] == "inference-harness"


@pytest.mark.slow
def test_the_wheel_brings_three_packages_the_model_and_the_scenarios(tmp_path: Path) -> None:
    """The wheel takes three top-level names and holds what an installed `harness` needs."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), f"{ROOT}/."]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"harness", "engines", "reports"}
    assert "engines/models/tiny/model.safetensors" in names
    assert {"engines/models/tiny/heldout.txt", "harness/quality/texts/moby_dick.txt"} <= set(names)
    assert "harness/shipped_scenarios/quickstart.yaml" in names
    assert "harness/shipped_scenarios/schema.json" in names
    assert not any("train_tiny" in name for name in names)
    assert any(name.startswith("reports/writers/templates/") for name in names)
