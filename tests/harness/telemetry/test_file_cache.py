"""Result of dropping files from the file cache: measured, not assumed."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.telemetry.file_cache import dropped_share, resident_bytes
from harness.verdict.thresholds import COLD_SHARE

PAGES = 512
SIZE = PAGES * mmap.PAGESIZE
IN_MEMORY = Path("/dev/shm")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mincore(2) and fadvise(2) are Linux's")


def resident(path: Path) -> int | None:
    """Return the resident bytes of a file."""
    with path.open("rb") as file:
        return resident_bytes(file.fileno())


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file on a disk, just written and not synced; skips where the folder for tests is in memory."""
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(SIZE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if resident_bytes(file.fileno()) != 0:
            pytest.skip("the folder for tests is on a file system that keeps files in memory")
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A file on a file system that has no disk."""
    if not os.access(IN_MEMORY, os.W_OK):
        pytest.skip(f"needs {IN_MEMORY}")
    path = IN_MEMORY / f"weights-{os.getpid()}"
    path.write_bytes(os.urandom(SIZE))
    yield path
    path.unlink()


def test_a_file_that_was_just_written_is_forgotten_whole(weights: Path) -> None:
    """The file is synced first, because dirty pages cannot be dropped; then none of it is left."""
    assert resident(weights) == SIZE
    assert dropped_share([weights]) == 1.0
    assert resident(weights) == 0


def test_only_what_is_in_memory_counts(weights: Path) -> None:
    """Pages that were read again are resident, the rest is not."""
    dropped_share([weights])
    with weights.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        for page in range(8):
            os.pread(file.fileno(), 1, page * mmap.PAGESIZE)
        assert resident_bytes(file.fileno()) == 8 * mmap.PAGESIZE


def test_a_file_in_memory_stays_there(in_memory: Path) -> None:
    """A cache on tmpfs: the system takes the advice, and every page stays."""
    assert dropped_share([in_memory]) == 0.0


def test_a_file_that_somebody_has_mapped_stays(weights: Path) -> None:
    """Another server on the same weights: what it has mapped and touched is not forgotten."""
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) > 0
        assert dropped_share([weights]) == 0.0
        del mapped


def test_shares_are_of_the_bytes_of_all_files(weights: Path, in_memory: Path) -> None:
    """Dropping one of two files of the same size gives half, which is not cold."""
    assert dropped_share([weights, in_memory]) == 0.5
    assert COLD_SHARE.value > 0.5


def test_nothing_is_known_of_nothing(tmp_path: Path) -> None:
    """Without files, with empty ones, or with one that is gone there is no share."""
    (tmp_path / "empty").touch()
    assert dropped_share([]) is None
    assert dropped_share([tmp_path / "empty"]) is None


def test_what_the_system_hides_is_unknown_and_not_resident(weights: Path, tmp_path: Path) -> None:
    """Linux reports files that the process may not write to as resident."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    weights.chmod(0o644)
    program = (
        "import os, sys\n"
        "from harness.telemetry.file_cache import dropped_share\n"
        "from pathlib import Path\n"
        "file = open(sys.argv[1], 'rb')\n"
        "os.setuid(65534)\n"
        "print(dropped_share([Path(f'/proc/self/fd/{file.fileno()}')]))\n"
    )
    said = subprocess.run([sys.executable, "-c", program, str(weights)], capture_output=True, text=True, check=False)
    assert said.stdout == "None\n", said.stderr
