"""The fake NVML library of tests/nvml_fake.c: compiled, and put in the place of the real one.

In this process `fake_nvml(...)` gives pynvml the fake; a child process finds it with `environment(...)`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

SOURCE = Path(__file__).with_name("nvml_fake.c")
WORDS = "HARNESS_FAKE_NVML"


@functools.cache
def library() -> Path:
    """The compiled library, under the name that pynvml looks for; skips where nothing can compile it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler (cc) for the fake NVML library")
    if not sys.platform.startswith("linux"):
        pytest.skip("pynvml loads libnvidia-ml.so.1 on Linux only")
    folder = Path(tempfile.mkdtemp(prefix="fake-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = folder / "libnvidia-ml.so.1"
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", str(built)]
    subprocess.run([*command, str(SOURCE)], check=True)
    return built


def environment(**words: Any) -> dict[str, str]:
    """What a child needs in its environment so that it finds the fake with this state."""
    before = os.environ.get("LD_LIBRARY_PATH")
    path = f"{library().parent}{os.pathsep + before if before else ''}"
    return {"LD_LIBRARY_PATH": path, WORDS: _joined(words)}


class FakeNvml:
    """The fake as loaded into this process."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._loaded = loaded

    def set(self, **words: Any) -> None:
        """Change its state; see the source for the words."""
        self._loaded.fake_set(_joined(words).encode())


@contextlib.contextmanager
def fake_nvml(**words: Any) -> Iterator[FakeNvml]:
    """pynvml speaks with a fresh copy of the fake for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="fake-nvml-") as folder:
        copy = shutil.copy(library(), Path(folder) / "libnvidia-ml.so.1")  # the state of a library is its process's
        before, pointers = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)
        pynvml.nvmlLib = ctypes.CDLL(str(copy))
        pynvml._nvmlGetFunctionPointer_cache.clear()
        fake = FakeNvml(pynvml.nvmlLib)
        fake.set(**words)
        try:
            yield fake
        finally:
            pynvml.nvmlLib = before
            pynvml._nvmlGetFunctionPointer_cache.clear()
            pynvml._nvmlGetFunctionPointer_cache.update(pointers)


def _joined(words: dict[str, Any]) -> str:
    return " ".join(f"{key}={int(value) if isinstance(value, bool) else value}" for key, value in words.items())
