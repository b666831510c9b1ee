"""Where llama.cpp writes its log when it runs in this process."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

_INFORMATION, _ERROR, _CONTINUED = 2, 4, 5


class NativeLog:
    """llama.cpp's log in a file, or in this process' stderr; details for its makers are left out.

    There is one log for the whole process: the last one opened has it. What came until `loaded` is kept for `text`.
    """

    def __init__(self, path: Path | None) -> None:
        from llama_cpp import llama_cpp as bindings

        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = None if path is None else path.open("a", encoding="utf-8", errors="replace", buffering=1)
        self._kept: list[str] = []
        self._errors: list[str] = []
        self._keeping = True
        self._level = 0
        self._bindings: Any = bindings
        self._callback: Any = bindings.llama_log_callback(self._write)
        bindings.llama_log_set(self._callback, ctypes.c_void_p(0))

    @property
    def text(self) -> str:
        """What was written while the model was loaded."""
        return "".join(self._kept)

    @property
    def first_error(self) -> str | None:
        """The first error that was told while the model was loaded."""
        return self._errors[0].strip() if self._errors else None

    def loaded(self) -> None:
        """From now on nothing more is kept."""
        self._keeping = False

    def close(self) -> None:
        """Give the log back to llama-cpp-python, which writes errors to stderr. Idempotent."""
        if self._callback is None:
            return
        from llama_cpp import _logger

        self._bindings.llama_log_set(_logger.llama_log_callback, ctypes.c_void_p(0))
        self._callback = None
        if self._file is not None:
            self._file.close()

    def _write(self, level: int, data: bytes, _: object) -> None:
        self._level = level if level != _CONTINUED else self._level
        if self._level < _INFORMATION:
            return
        text = data.decode("utf-8", "replace")
        if self._keeping:
            self._kept.append(text)
            if level == _ERROR:
                self._errors.append(text)
        (self._file or sys.stderr).write(text)
