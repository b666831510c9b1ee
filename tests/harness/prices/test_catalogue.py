"""Prices: as they were published, with their date; a user's file adds to them; an unknown machine is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ScenarioError, UsageError
from harness.prices.catalogue import read_catalogue
from harness.scenario.plan import Pricing


def catalogue_of(folder: Path, text: str) -> Path:
    """A file of prices."""
    path = folder / "prices.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "usd", "gpus", "words"),
    [
        ("g5.xlarge", 1.006, 1, "A10G, 24 GB GPU memory, 4 vCPU, 16 GB memory"),
        ("g5.2xlarge", 1.212, 1, "A10G, 24 GB GPU memory, 8 vCPU, 32 GB memory"),
        ("g4dn.xlarge", 0.526, 1, "T4, 16 GB GPU memory, 4 vCPU, 16 GB memory"),
        ("p3.2xlarge", 3.06, 1, "V100, 16 GB GPU memory, 8 vCPU, 61 GB memory"),
        ("a100-40gb", 4.10, 1, "A100, 40 GB GPU memory"),
        ("cpu-32-core", 1.536, 0, "32 vCPU"),
    ],
)
def test_the_shipped_prices_are_those_published(name: str, usd: float, gpus: int, words: str) -> None:
    """Each with its date and its source."""
    catalogue = read_catalogue()
    found = catalogue.find(name)
    assert (catalogue.hourly(name, Pricing.ON_DEMAND), found.gpus, found.hardware) == (usd, gpus, words)
    assert found.date == "2026-11"
    assert "undated" in found.source


def test_a_file_adds_machines_and_replaces_those_of_its_names(tmp_path: Path) -> None:
    """The others stay as shipped."""
    path = catalogue_of(
        tmp_path,
        """
        instances:
          g5.xlarge: {date: 2026-11-30, source: contract, gpus: 1, reserved: {usd_per_hour: 0.6, term: 1 year}}
          ours: {date: 2026-11-30, source: invoice, gpus: 2,
                 owned: {usd: 26280, years: 3, watts: 500, usd_per_kwh: 0.20, hosting_usd_per_month: 73}}
        schedules: {office: mon-fri 08:00-20:00 Europe/Berlin}
        """,
    )
    catalogue = read_catalogue(path)
    assert catalogue.hourly("g5.xlarge", Pricing.RESERVED) == 0.6
    assert catalogue.hourly("ours", Pricing.OWNED) == pytest.approx(1.0 + 0.5 * 0.20 + 0.1)
    assert catalogue.hourly("p3.2xlarge", Pricing.ON_DEMAND) == 3.06
    assert catalogue.hours("office").usual_hours == 60
    with pytest.raises(UsageError, match=r"g5\.xlarge has no on_demand price, only reserved"):
        catalogue.hourly("g5.xlarge", Pricing.ON_DEMAND)


def test_an_unknown_machine_is_not_the_nearest_one() -> None:
    """The sentence names a similar one; no price is taken from it."""
    with pytest.raises(UsageError, match=r"no instance 'g5\.xlrge' in the shipped prices; did you mean `g5\.xlarge`"):
        read_catalogue().hourly("g5.xlrge", Pricing.ON_DEMAND)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write `instances:"),
        ("- 1", "must be a mapping, such as"),
        ("instance: {}", "unknown key; did you mean `instances`?"),
        ("instances: {a: {source: x, on_demand: {usd_per_hour: 1}}}", "instances.a.date: is missing"),
        ("instances: {a: {date: soon, source: x, on_demand: {usd_per_hour: 1}}}", "'soon' is no date"),
        ("instances: {a: {date: 2026-11-30, source: x}}", "instances.a: needs a price, such as `on_demand:"),
        ("instances: {a: {date: 2026-11-30, source: x, on_demand: {usd_per_hour: 0}}}", "must be more than 0"),
        ("instances: {a: {date: 2026-11-30, source: x, on_demand: 1.2}}", "must be a mapping of keys, found 1.2"),
        ("instances: {a: {date: 2026-11-30, source: x, gpu_memory: 24, on_demand: {usd_per_hour: 1}}}", "no unit"),
        ("schedules: {a: weekdays}", "'weekdays' are no working hours"),
        ("instances: {a: {date: 2026-11-30", "is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """And with what to write instead."""
    with pytest.raises(ScenarioError) as found:
        read_catalogue(catalogue_of(tmp_path, text))
    assert message in str(found.value)
    assert all(problem.file == str(tmp_path / "prices.yaml") for problem in found.value.problems)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """So is a folder."""
    with pytest.raises(ScenarioError, match="no such file"):
        read_catalogue(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="is a folder"):
        read_catalogue(tmp_path)
