"""The night of a stored run, and of a result of another tool."""

from __future__ import annotations

import json
import math
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.comparison.comparison import SHOWN
from harness.comparison.foreign.imports import import_result
from harness.comparison.foreign.reading import read_foreign
from harness.comparison.sides import read_side
from harness.errors import RunUnreadable, UsageError
from harness.history.store.intake import machine_id, night_of, state_of
from harness.history.store.night import Night
from harness.scenario.limits import is_split
from harness.store.manifest import Machine, Manifest
from harness.store.run import MANIFEST

DATA = Path(__file__).parents[3] / "data"
STORED = DATA / "runs" / "v1" / "quick"
FOREIGN = DATA / "foreign"
GIB = 2**30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored run: reading it leaves a file beside it."""
    copy = tmp_path_factory.mktemp("stored") / "quick"
    shutil.copytree(STORED, copy)
    return copy


@pytest.fixture(scope="module")
def night(run: Path) -> Night:
    """The night of a stored run."""
    return night_of(str(run))


def test_a_run_becomes_a_night_of_its_pooled_numbers(night: Night, run: Path) -> None:
    """With the interval, the observations and the doubt that a comparison has of them; nothing else is stored."""
    side = read_side("x", run)
    assert (night.scenario, night.run, night.tool, night.method) == ("frozen", "quick", "", 2)
    assert night.at == datetime(2026, 11, 21, 12, 27, 35, tzinfo=UTC)
    by_what = {row.what: row for row in night.rows}
    assert len(by_what) == len(night.rows) > 10
    for one in side.measurements:
        for (class_name, metric, statistic), number in one.pooled.items():
            what = (one.keys[4], "" if class_name == "all" else class_name, metric, statistic, *one.keys[:4])
            found = by_what.pop(what, None)  # type: ignore[call-overload]
            if (metric, statistic) not in SHOWN or is_split(class_name):
                assert found is None
                continue
            assert found.n == one.n[class_name, metric, statistic]
            assert found.starts == len(one.starts)
            expected = [end if math.isfinite(end) else math.nan for end in (number.value, number.low, number.high)]
            assert [found.value, found.low, found.high] == pytest.approx(expected, nan_ok=True)
    assert by_what == {}


def test_a_number_without_a_value_says_why(night: Night) -> None:
    """It is unknown, and no zero."""
    unknown = [row for row in night.rows if math.isnan(row.value)]
    assert all(row.doubt for row in unknown)


def test_further_numbers_can_be_kept(run: Path) -> None:
    """Those of the settings, beside the usual ones."""
    found = night_of(str(run), {("ttft_ms", "p97"), ("output_tokens", "mean"), ("offered_rps", "value")})
    kept = {(row.what.metric, row.what.statistic) for row in found.rows}
    assert {("ttft_ms", "p97"), ("offered_rps", "value"), ("ttft_ms", "p50")} <= kept


def test_the_same_run_elsewhere_is_the_same_night(night: Night, tmp_path: Path) -> None:
    """A copy under another name has the identity of the first; labels can be added."""
    shutil.copytree(STORED, tmp_path / "copy")
    other = night_of(str(tmp_path / "copy"), (), {"release": "1.2"})
    assert other.identity == night.identity
    assert other.labels == {"release": "1.2"}
    assert repr(other.rows) == repr(night.rows)


def changed(folder: Path, **keys: Any) -> str:
    """A copy of the run whose manifest has other keys."""
    shutil.copytree(STORED, folder)
    stored = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(stored | keys))
    return str(folder)


def test_another_run_is_another_night(night: Night, tmp_path: Path) -> None:
    """One that began at another time."""
    assert night_of(changed(tmp_path / "run", created_utc="2026-11-22T12:27:35+00:00")).identity != night.identity


def test_runs_that_cannot_be_added_are_refused(tmp_path: Path) -> None:
    """One that is not over, measured nothing, or is damaged."""
    with pytest.raises(UsageError, match="is not over: `harness run --resume"):
        night_of(changed(tmp_path / "running", status="running"))
    with pytest.raises(UsageError, match="measured nothing"):
        night_of(changed(tmp_path / "nothing", cells=[]))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / MANIFEST).write_text("{")
    with pytest.raises(RunUnreadable):
        night_of(str(tmp_path / "damaged"))


def test_results_of_other_tools_are_marked(tmp_path: Path) -> None:
    """Their scenario is the tool or a given name, their machine a label; the same file is the same night."""
    file = FOREIGN / "vllm_bench_detailed.json"
    found = night_of(str(file), (), {"machine": "rack-7"}, scenario="chat")
    assert (found.tool, found.scenario, found.machine) == ("vllm bench serve", "chat", "rack-7")
    plain = night_of(str(file))
    assert (plain.scenario, plain.machine, plain.identity) == ("vllm bench serve", "unknown", found.identity)
    assert {row.setup.plan for row in plain.rows} == {row.setup.plan for row in found.rows}
    import_result(file, tmp_path / "import", {"commit": "abc"})
    kept = night_of(str(tmp_path / "import"))
    assert (kept.identity, kept.labels) == (found.identity, {"commit": "abc"})


@pytest.mark.parametrize(
    "name", ["vllm_bench.json", "sglang.jsonl", "guidellm.json", "benchmark_report_vllm.yaml", "aiperf"]
)
def test_a_result_has_a_night_or_asks_for_it(name: str) -> None:
    """A file that does not say when it ran needs `--at`."""
    at = datetime(2026, 11, 30, 2, tzinfo=UTC)
    assert night_of(str(FOREIGN / name), at=at).at == at
    if read_foreign(FOREIGN / name).created_utc is not None:
        assert night_of(str(FOREIGN / name)).at.tzinfo is UTC
    else:
        with pytest.raises(UsageError, match="does not say when it ran; add --at"):
            night_of(str(FOREIGN / name))


def test_the_port_of_a_server_that_we_start_is_no_option_of_it(tmp_path: Path) -> None:
    """It is another one each night. The address of a server that runs already is."""
    stored = json.loads((STORED / MANIFEST).read_text())
    for name, command in (("started", "vllm serve --port {port}"), ("served", None)):
        for cell in stored["cells"]:
            cell["engine_info"]["options"] = {"url": "http://127.0.0.1:4711", "command": command}
        options = {row.setup.options for row in night_of(changed(tmp_path / name, cells=stored["cells"])).rows}
        assert ["4711" in one for one in options] == [command is None]


MACHINE = {
    "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.00GHz",
    "cores": 2,
    "usable_cores": 2,
    "memory_bytes": 8 * GIB,
}


def test_a_machine_is_named_by_its_hardware() -> None:
    """Readable, and with a hash of all that counts; memory in whole GiB, for systems take a little of it."""
    name = machine_id(Machine(**MACHINE))
    assert name.startswith("xeon-platinum-8481c-2-")
    assert machine_id(Machine(**MACHINE | {"memory_bytes": 8 * GIB - 12_345_678})) == name
    others = [MACHINE | {"memory_bytes": 16 * GIB}, MACHINE | {"usable_cores": 1}, MACHINE | {"gpus": ["NVIDIA H200"]}]
    names = {machine_id(Machine(**one)) for one in others}
    assert len(names | {name}) == 4
    assert any(one.startswith("1x-nvidia-h200-xeon-platinum-8481c-2-") for one in names)
    assert machine_id(Machine()) == ""
    assert machine_id(Machine.model_validate(MACHINE | {"known_to_later_versions": 1})) == name


def test_driver_and_clocks_are_the_state_of_a_machine() -> None:
    """Temperatures and numbers of cards are not: they differ from night to night."""
    card = {"index": 0, "uuid": "u", "power_limit_w": 700.0, "sm_clock_set_mhz": 1980, "temperature_c": 31}
    context = {"kernel": "6.1", "governor": None, "gpus": {"driver": "550.1", "cuda": "12.4", "gpus": [card]}}
    found = state_of(Manifest.model_validate({"provenance": {"context": context}}))
    assert found == {
        "kernel": "6.1",
        "GPU driver": "550.1",
        "GPU cuda": "12.4",
        "GPU 0 power_limit_w": "700.0",
        "GPU 0 sm_clock_set_mhz": "1980",
    }
    assert state_of(Manifest.model_validate({"provenance": {"context": {"gpus": "none"}}})) == {}
