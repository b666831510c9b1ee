"""Files of a report stay in its folder, whatever links somebody has put there."""

from __future__ import annotations

from pathlib import Path

import pytest

import reports
from reports.data import ReportData
from reports.files import replace

ELSEWHERE = "of somebody else"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A file outside of the report's folder."""
    file = tmp_path / "elsewhere"
    file.write_text(ELSEWHERE)
    return file


def test_no_file_of_a_report_is_written_through_a_link(full: ReportData, tmp_path: Path, elsewhere: Path) -> None:
    """Each link is replaced by the file itself; also one that leads nowhere."""
    folder = tmp_path / "run"
    names = [file.relative_to(folder) for file in reports.write(full, folder)]
    for number, name in enumerate(names):
        (folder / name).unlink()
        (folder / name).symlink_to(elsewhere if number % 2 else tmp_path / "missing")
    assert [file.relative_to(folder) for file in reports.write(full, folder)] == names
    assert not any((folder / name).is_symlink() for name in names)
    assert elsewhere.read_text() == ELSEWHERE
    assert not (tmp_path / "missing").exists()


def test_a_linked_folder_in_a_report_is_refused(full: ReportData, tmp_path: Path) -> None:
    """Its files would be written where it leads."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plots").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="`plots` is a symbolic link, which no report follows"):
        reports.write(full, tmp_path / "run", ["plots"])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_folder_of_a_report_may_be_a_link(full: ReportData, tmp_path: Path) -> None:
    """The user named it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    reports.write(full, tmp_path / "run", ["csv", "plots"])
    assert (tmp_path / "real" / "summary.csv").exists()
    assert list((tmp_path / "real" / "plots").iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """And nothing else."""
    file = tmp_path / "report.md"
    replace(file, "old")
    with pytest.raises(UnicodeEncodeError):
        replace(file, "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
