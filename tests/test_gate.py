"""`harness run --against`: the gate that starts both sides in turns, as a user runs it."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import VIRTUAL_TIME, Ended, manifest, scenario, told

from tests.forked import harness, running

pytestmark = pytest.mark.slow
LOAD = [{"kind": "sustained", "rate": 20, "arrivals": "poisson", "requests": 40, "timeout": "5s"}]
GATE = ("--pairs", "4..6", "--out", "gate")


def two_variants(folder: Path, head_ms: float) -> Path:
    """A scenario with a base and a head, whose services vary by the seed."""
    options = {"tpot_ms": 2, "service": "exponential", "max_batch": 2}
    variants = {"base": {"ttft_ms": 20}, "head": {"ttft_ms": head_ms}}
    engines = [{"engine": "simulated", "options": options, "variants": variants}]
    return scenario(folder, engines=engines, load=LOAD)


def gate(folder: Path, *more: str, head_ms: float = 20.0) -> Any:
    """A gate of a scenario with two variants."""
    path = two_variants(folder, head_ms)
    return harness("run", str(path), "--against", "base", *GATE, *more, cwd=folder, env=VIRTUAL_TIME, timeout_s=240)


@dataclass(frozen=True)
class Equal:
    """A gate whose sides are the same, which was ended in its second pair, and gone on with by the same command.

    arguments: that command.   stopped, ended: how it ended, at first and then.   kept: when the runs of the first pair
    were begun, by what was stored at first.
    """

    folder: Path
    arguments: tuple[str, ...]
    stopped: Ended
    ended: Ended
    kept: dict[Path, str]


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Equal:
    """Made once and only read by the tests."""
    folder = tmp_path_factory.mktemp("equal")
    arguments = ("run", str(two_variants(folder, 20.0)), "--against", "base", *GATE)
    with running(*arguments, cwd=folder, env=VIRTUAL_TIME) as process:
        told(process, "pair 2 of at most 6")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    kept = begun_of_first_pair(folder)
    ended = harness(*arguments, cwd=folder, env=VIRTUAL_TIME, timeout_s=240)
    return Equal(folder, arguments, Ended(process.returncode, out, err), ended, kept)


def begun_of_first_pair(folder: Path) -> dict[Path, str]:
    """When the runs of the first pair were begun."""
    return {run: manifest(run)["created_utc"] for run in (folder / "gate" / "pair-01").glob("*")}


@pytest.fixture
def copied(equal: Equal, tmp_path: Path) -> Path:
    """A folder with a copy of that gate, to be damaged."""
    shutil.copytree(equal.folder / "gate", tmp_path / "gate")
    return tmp_path


def order_of(folder: Path) -> list[tuple[str, str, int]]:
    """The starts of a gate in the order of their first request: pair, side, seed."""
    runs = [path.parent for path in folder.glob("pair-*/*/manifest.json")]
    begun = sorted((trial_of(run)["t0_utc"], run) for run in runs)
    return [(run.parent.name, run.name, manifest(run)["scenario"]["seed"]) for _, run in begun]


def trial_of(run: Path) -> dict[str, Any]:
    """The only trial of a run."""
    found: dict[str, Any] = manifest(run)["cells"][0]["trials"][0]
    return found


def test_a_slower_head_is_found_and_judged_again(tmp_path: Path) -> None:
    """Starts take turns with a seed for each pair; the gate is stored, and `harness compare` comes to the same."""
    ended = gate(tmp_path, head_ms=60.0)
    assert ended.code == 5, ended.err + ended.out
    assert "REGRESSED" in ended.out
    assert "4 pairs of starts, in turns" in ended.out
    assert "decided" in ended.err
    made = order_of(tmp_path / "gate")
    assert len(made) == 8
    for first, second in zip(made[::2], made[1::2], strict=True):
        assert (first[0], first[2]) == (second[0], second[2])
        assert {first[1], second[1]} == {"base", "head"}
    assert len({trial_of(tmp_path / "gate" / "pair-01" / side)["plan_hash"] for side in ("base", "head")}) == 1
    data = json.loads((tmp_path / "gate" / "comparison.json").read_text())
    assert (data["word"], data["pairs"], data["base"]["name"]) == ("regressed", 4, "base")
    again = harness("compare", "gate", "--json", cwd=tmp_path)
    assert again.code == 5, again.err
    assert json.loads(again.out)["rows"] == data["rows"]


def test_a_stored_gate_is_judged_by_the_margins_that_are_asked_for(equal: Equal) -> None:
    """`--fail-on` replaces those of its plan, and is not passed over; a number that it lacks is one sentence."""
    again = harness("compare", "gate", "--fail-on", "e2e p50 +10%", "--json", cwd=equal.folder)
    gates = [(row["metric"], row["statistic"], row["margin"]) for row in json.loads(again.out)["rows"] if row["gates"]]
    assert (again.code, gates) == (0, [("e2e_ms", "p50", 0.1)]), again.err
    lacking = harness("compare", "gate", "--fail-on", "attainment -1pp", cwd=equal.folder)
    assert (lacking.code, "no load of both runs has this number" in lacking.err) == (2, True), lacking.err


def test_equal_sides_do_not_regress(equal: Equal) -> None:
    """Both have the same requests and the same services: nothing changed."""
    assert equal.ended.code == 0, equal.ended.err + equal.ended.out
    assert "UNCHANGED" in equal.ended.out


def test_the_baseline_may_be_other_keys_of_the_scenario(tmp_path: Path) -> None:
    """Here a faster engine, so that the scenario as it stands is slower. Options replace what its section says, too: by
    those margins the change would be accepted.
    """
    section = {"baseline": "none", "margins": {"ttft p50": "500%"}}
    path = scenario(tmp_path, load=LOAD, compare=section)
    base = ("--base-set", "engines.0.options.ttft_ms=40", "--fail-on", "ttft p50 +10%")
    ended = harness("run", str(path), *base, *GATE, cwd=tmp_path, env=VIRTUAL_TIME, timeout_s=240)
    assert ended.code == 5, ended.err + ended.out
    assert "ttft_ms" in ended.out


def test_a_scenario_can_be_a_gate(tmp_path: Path) -> None:
    """`compare` names the baseline; its margins and pairs hold."""
    section = {"baseline": "base", "margins": {"ttft p50": "500%"}, "pairs": 4, "inconclusive": "warn"}
    engines = [{"engine": "simulated", "variants": {"base": {"ttft_ms": 40}, "head": {"ttft_ms": 60}}}]
    content = json.loads(scenario(tmp_path, engines=engines, load=LOAD).read_text())
    (tmp_path / "gate.yaml").write_text(json.dumps(content | {"compare": section}))
    planned = harness("run", "gate.yaml", "--dry-run", cwd=tmp_path, env=VIRTUAL_TIME)
    assert (planned.code, "4 to 4 pairs of starts, in turns" in planned.out) == (0, True), planned.err
    ended = harness("run", "gate.yaml", "--out", "gate", cwd=tmp_path, env=VIRTUAL_TIME, timeout_s=240)
    assert ended.code == 0, ended.err + ended.out
    (row,) = [row for row in json.loads((tmp_path / "gate" / "comparison.json").read_text())["rows"] if row["gates"]]
    assert (row["metric"], row["margin"], row["word"]) == ("ttft_ms", 5.0, "unchanged")


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"baseline": "nobody"}, "no engine has this variant"),
        ({"baseline": "base", "pairs": 3}, "3 pairs are too few for an interval"),
        ({"baseline": "base", "margins": {"ttft": "10%"}}, "`ttft_ms` needs a statistic"),
        ({"baseline": "base", "margins": {"ttft p50": "10"}}, "is no margin"),
        ({"pairs": 4}, "baseline"),
    ],
)
def test_a_wrong_section_is_one_sentence(tmp_path: Path, section: dict[str, Any], sentence: str) -> None:
    """With its place in the file."""
    content = json.loads(two_variants(tmp_path, 60.0).read_text())
    (tmp_path / "gate.yaml").write_text(json.dumps(content | {"compare": section}))
    ended = harness("run", "gate.yaml", "--out", "gate", cwd=tmp_path)
    assert (ended.code, sentence in ended.err, len(ended.err.splitlines())) == (2, True, 1), ended.err


def test_a_gate_that_was_ended_goes_on_with_its_seeds(equal: Equal) -> None:
    """The same command measures the rest; what was whole is kept, what was not is put aside."""
    assert equal.stopped.code == 130, equal.stopped.err
    assert "the same command with --out gate goes on with its seeds" in equal.stopped.err
    assert equal.ended.code == 0, equal.ended.err + equal.ended.out
    assert begun_of_first_pair(equal.folder) == equal.kept
    again = (*equal.arguments[:-4], "--pairs", "5", "--out", "gate")
    other = harness(*again, cwd=equal.folder, env=VIRTUAL_TIME)
    assert (other.code, "gate holds another gate" in other.err) == (2, True), other.err


def test_starts_in_blocks_are_refused(copied: Path) -> None:
    """A gate whose starts of one side came in a row would take a drift for a change."""
    runs = [run for side in ("base", "head") for run in sorted((copied / "gate").glob(f"pair-*/{side}"))]
    for number, run in enumerate(runs):
        stored = manifest(run)
        stored["cells"][0]["trials"][0]["t0_utc"] = f"2026-11-30T07:{number:02}:00+00:00"
        (run / "manifest.json").write_text(json.dumps(stored))
    ended = harness("compare", "gate", cwd=copied)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
    assert "the starts of one side came in a row" in ended.err


def test_a_file_that_cannot_be_written_hides_no_verdict(copied: Path) -> None:
    """The pairs took their time: what they say is printed before any file is made."""
    page = copied / "gate" / "comparison.html"
    page.unlink()
    page.mkdir()
    ended = gate(copied)
    assert (ended.code, "comparison.html: cannot write" in ended.err) == (3, True), ended.err
    assert "UNCHANGED" in ended.out


def test_pairs_of_another_machine_are_refused(copied: Path) -> None:
    """A gate that went on elsewhere: the third pair is no sample of what the first two are, unless that is meant."""
    for side in ("base", "head"):
        run = copied / "gate" / "pair-03" / side
        stored = manifest(run)
        stored["provenance"]["must_match"]["cpu"] = "Z80"
        (run / "manifest.json").write_text(json.dumps(stored))
    ended = harness("compare", "gate", cwd=copied)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
    assert "pair-03/base are not comparable: cpu: " in ended.err
    assert "and Z80. If that is meant, add --across hardware" in ended.err
    assert harness("compare", "gate", "--across", "hardware", cwd=copied).code == 0


def test_a_gate_without_its_pairs_is_a_sentence(copied: Path) -> None:
    """So is one whose plan is damaged."""
    shutil.rmtree(copied / "gate" / "pair-02")
    ended = harness("compare", "gate", cwd=copied)
    assert (ended.code, "gate has 1 of at least 4 pairs" in ended.err) == (2, True), ended.err
    (copied / "gate" / "gate.json").write_text("{")
    ended = harness("compare", "gate", cwd=copied)
    assert (ended.code, "gate.json is no plan of a gate" in ended.err) == (2, True), ended.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--against", "bse"), "--against bse: no engine has this variant; did you mean `base`"),
        (("--against", "base", "--pairs", "3"), "--pairs: 3 pairs are too few"),
        (("--against", "base", "--budget", "soon"), "--budget: "),
        (("--against", "base", "--fail-on", "ttft +10%"), "--fail-on: `ttft_ms` needs a statistic"),
        (("--against", "base", "--format", "md"), "--format does not go with a gate: leave it out"),
        (("--pairs", "6"), "--pairs belongs to a gate: name its baseline with --against"),
    ],
)
def test_a_slip_is_one_sentence_before_anything_runs(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """Nothing is stored."""
    ended = harness("run", str(two_variants(tmp_path, 20.0)), *arguments, "--out", "gate", cwd=tmp_path)
    assert (ended.code, sentence in ended.err, len(ended.err.splitlines())) == (2, True, 1), ended.err
    assert not (tmp_path / "gate").exists()
