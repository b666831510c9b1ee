"""The recipes for a nightly run: their shell parts under `bash -e`, and what cron and systemd start."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
from pathlib import Path

import pytest

from harness.history.store.folder import Store
from harness.history.store.settings import read_settings
from tests.forked import program
from tests.test_ci_examples import EXAMPLES, PARTS, ROOT, Workplace

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
# The judge is tried elsewhere: here it only leaves a site and an exit code.
JUDGE = 'if [ "$1" = regress ]; then mkdir -p site; echo "$*" > site/index.html; exit "${WORD:-0}"; fi'


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A runner with a scenario of a night, the settings of the example, and `harness` on its path."""
    found = Workplace(tmp_path)
    (tmp_path / "temp").mkdir()
    found.program("harness", f"{JUDGE}\n{program()[0]}")
    engine = {"variants": {"control": {"ttft_ms": 40.0}, "head": {"ttft_ms": 60.0}}}
    found.speed("nightly.yaml", 60.0, engine=engine, limits=["ttft_ms p50 <= 50"])
    shutil.copy(EXAMPLES / "history.yaml", tmp_path)
    return found


def test_the_workflow_stores_each_night_before_it_is_judged(place: Workplace) -> None:
    """A night that violates a limit is stored, beside the settings of the repository."""
    done = place.run(PARTS["github-nightly.yml: Measure and store"])
    assert done.returncode == 0, done.stderr
    assert place.outputs == {"exit-code": "1"}
    series = Store.open(place.folder / "history").series()
    assert {(one.key.variant, one.control) for one in series} == {("control", True), ("head", False)}
    assert series[0].points[-1].labels == {"commit": "abc"}
    judged = place.run(PARTS["github-nightly.yml: Judge"], WORD="5")
    assert (judged.returncode, place.outputs) == (0, {"exit-code": "5"}), judged.stderr
    assert (place.folder / "site" / "index.html").read_text() == "regress --html site\n"


@pytest.mark.parametrize(("measured", "judged", "code"), [(0, 0, 0), (1, 0, 1), (0, 5, 5), (4, 5, 5)])
def test_the_workflow_ends_with_the_word_of_the_judge(place: Workplace, measured: int, judged: int, code: int) -> None:
    """It counts more than a limit."""
    part = PARTS["github-nightly.yml: End with the exit code of harness"]
    assert place.run(part, MEASURED=str(measured), JUDGED=str(judged)).returncode == code


def test_cron_runs_a_night(place: Workplace) -> None:
    """The line of the page, with another folder: the log and the store are in it. The run itself is a stored one."""
    stored = ROOT / "tests" / "data" / "runs" / "v1" / "quick"
    measure = f'test -f "$2" || exit 2; mkdir -p runs; cp -r {stored} "$4"; echo "$*" > asked; exit 1'
    judged_too = f'if [ "$1" = run ]; then {measure}; fi\n{JUDGE}'
    place.program("harness", f"{judged_too}\n{program()[0]}")
    (line,) = re.findall(r"^30 2 \* \* \* (.*)$", PAGE, re.MULTILINE)
    shutil.copy(EXAMPLES / "nightly.sh", place.folder)
    done = place.run(line.replace("/srv/bench", str(place.folder)), COMMIT="cafe")
    log = (place.folder / "nightly.log").read_text()
    assert done.returncode == 1, log
    assert "added " in log
    assert (place.folder / "site" / "index.html").exists()
    assert len(Store.open(place.folder / "history").nights()) == 1
    asked = (place.folder / "asked").read_text()
    assert re.fullmatch(
        r"run .*/nightly\.yaml --out runs/\d{8}T\d{6}Z-nightly --wait 2h --quiet --label commit=cafe\n", asked
    )
    wrong = place.run(f"{EXAMPLES / 'nightly.sh'} nowhere.yaml {place.folder}", WORD="5")
    assert wrong.returncode == 5  # what is there is judged


def test_systemd_starts_the_same_at_the_same_time() -> None:
    """The unit calls the script of the cron line; both are due when the settings say so."""
    (line,) = re.findall(r"^30 2 \* \* \* (.*)$", PAGE, re.MULTILINE)
    units = {}
    for ending in ("service", "timer"):
        units[ending] = configparser.ConfigParser(interpolation=None)
        units[ending].optionxform = str  # type: ignore[assignment,method-assign]
        units[ending].read(EXAMPLES / f"harness-nightly.{ending}")
    started = shlex.split(units["service"]["Service"]["ExecStart"])
    assert line.startswith(" ".join(started) + " ")
    assert units["timer"]["Timer"]["OnCalendar"] == "*-*-* 02:30:00 UTC"
    schedule = read_settings(EXAMPLES).schedule
    assert schedule is not None
    assert schedule.at == ["02:30"]
