"""The cache of derived models: whole or not at all, built once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engines.base import ModelError
from engines.models import cache

REPOSITORY = Path(__file__).resolve().parents[3]
ASKER = """
import sys
from pathlib import Path
from engines.models.cache import build_once

def build(path):
    path.write_bytes(b"half")
    with open(sys.argv[1], "a") as log:
        log.write("built\\n")
    print("building", flush=True)
    sys.stdin.readline()
    path.write_bytes(b"whole")

print("asking", flush=True)
print(build_once("model.gguf", build).read_text())
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache folder of its own for every test."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def _write_model(path: Path) -> None:
    path.write_text("model")


def _ask(log: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", ASKER, str(log)], env=environment, stdin=pipe, stdout=pipe, text=True
    )


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_built_file_is_kept(folder: Path) -> None:
    """The second request does not build."""
    first = cache.build_once("a.gguf", _write_model)
    assert cache.build_once("a.gguf", lambda _: pytest.fail("built again")) == first == folder / "a.gguf"
    assert first.read_text() == "model"


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_builder_that_fails_half_way_leaves_nothing(folder: Path, error: BaseException) -> None:
    """An error or Ctrl-C leaves no partial model, and the next request builds."""

    def build(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        cache.build_once("a.gguf", build)
    assert _visible(folder) == []
    assert cache.build_once("a.gguf", _write_model).read_text() == "model"


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_full_disk_is_one_sentence_and_leaves_nothing(folder: Path) -> None:
    """When writing hits a limit, the user is told what to do and no partial file stays."""
    code = (
        "import resource\n"
        "from engines.base import ModelError\n"
        "from engines.models.cache import build_once\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: build_once('a.gguf', lambda path: path.write_bytes(bytes(1_000_000)) and None)\n"
        "except ModelError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "a.gguf could not be written: File too large; free space there or set HARNESS_CACHE" in done.stdout
    assert _visible(folder) == []


def test_folder_that_cannot_be_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache path that is a file is told as such."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set HARNESS_CACHE to another folder"):
        cache.build_once("a.gguf", lambda _: None)


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    """The second process waits for the first and takes its file."""
    log = tmp_path / "log"
    first = _ask(log)
    assert first.stdout is not None
    assert [first.stdout.readline(), first.stdout.readline()] == ["asking\n", "building\n"]
    second = _ask(log)
    assert second.stdout is not None
    assert second.stdout.readline() == "asking\n"
    assert first.communicate("go on\n", timeout=60)[0] == "whole\n"
    assert second.communicate("go on\n", timeout=60)[0] == "whole\n"
    assert log.read_text() == "built\n"


def test_files_of_a_killed_builder_are_removed(folder: Path, tmp_path: Path) -> None:
    """The half file of a dead process goes when the next model is built; that of a living one stays."""
    dead = _ask(tmp_path / "log")
    assert dead.stdout is not None
    assert [dead.stdout.readline(), dead.stdout.readline()] == ["asking\n", "building\n"]
    cache.build_once("other.gguf", _write_model)
    assert _visible(folder) == ["model.gguf.partial", "other.gguf"]
    dead.send_signal(signal.SIGKILL)
    dead.communicate(timeout=60)
    cache.build_once("third.gguf", _write_model)
    assert _visible(folder) == ["other.gguf", "third.gguf"]


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HARNESS_CACHE wins over XDG_CACHE_HOME, which wins over the home folder."""
    assert cache.directory() == tmp_path / "cache" / "models"
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.directory() == tmp_path / "xdg" / "harness" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.directory() == tmp_path / ".cache" / "harness" / "models"


def test_damaged_or_unwritable_digest_memory_costs_only_time(folder: Path, tmp_path: Path) -> None:
    """A digest that cannot be remembered is computed again."""
    path = tmp_path / "weights"
    path.write_bytes(b"x")
    first = cache.digest([path])
    for memory in (folder / "digests").iterdir():
        memory.write_text("{")
    assert cache.digest([path]) == first
