"""`llama-server` programs on this machine: inspection and command line.

The option `binary` names one instead of the embedded server. The build decides the speed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

from engines.base import StartFailed
from engines.llamacpp.options import LlamaServerOptions

_PATIENCE_S = 30.0
_VERSION = re.compile(r"^version: *(.+)$", re.MULTILINE)
_SYSTEM = re.compile(r"system_info: .*?\| *(\S.*)$", re.MULTILINE)
_NEEDED = ("--model", "--port", "--parallel", "--ctx-size", "--flash-attn")
_VERBOSE = "4"  # the lowest level that logs the instruction sets of the build


@dataclass(frozen=True, slots=True)
class Program:
    """`llama-server` program.

    Attributes:
        options: Long names of its options.
        system: Features of the build, "" if the program does not report them.
    """

    path: str
    version: str
    options: frozenset[str]
    system: str

    def arguments(
        self, options: LlamaServerOptions, gguf: Path, alias: str, context_tokens: int, lora: Path | None = None
    ) -> list[str]:
        """Return the command line, with {port} in the place of the port; `context_tokens` is that of one slot."""
        switch = {True: "on", False: "off", "auto": "auto"}
        given: dict[str, object] = {
            "--model": gguf,
            "--alias": alias,
            "--host": "127.0.0.1",
            "--port": "{port}",
            "--ctx-size": context_tokens * options.n_parallel,
            "--parallel": options.n_parallel,
            "--threads": options.threads,
            "--threads-batch": options.threads,
            "--batch-size": options.n_batch,
            "--ubatch-size": options.n_ubatch,
            "--flash-attn": switch[options.flash_attn],
            "--cache-type-k": options.cache_type_k,
            "--cache-type-v": options.cache_type_v,
            "--n-gpu-layers": 999 if options.n_gpu_layers == "all" else options.n_gpu_layers,
            "--cache-ram": options.cache_ram_mib if options.prefix_cache else 0,
            "--grammar": options.grammar,
            "--lora": lora,
        }
        if given["--cache-ram"] == 0 and "--cache-ram" not in self.options:  # an older one has no such cache
            del given["--cache-ram"]
        found = [part for name, value in given.items() if value is not None for part in (name, str(value))]
        return [self.path, *found, *self._switches(options)]

    def _switches(self, options: LlamaServerOptions) -> list[str]:
        mode = "+".join(["mmap"] * options.mmap + ["mlock"] * options.mlock) or "none"
        loading = [] if mode == "mmap" else ["--load-mode", mode]
        if "--load-mode" not in self.options:
            loading = ["--no-mmap"] * (not options.mmap) + ["--mlock"] * options.mlock
        quiet = [name for name in ("--no-webui", "--offline") if name in self.options]
        batching = [] if options.cont_batching else ["--no-cont-batching"]
        return ["--metrics", *quiet, *loading, *batching]


def program(binary: str) -> Program:
    """Return the program that the option names, by path or by a name on PATH.

    Raises StartFailed if it does not exist, cannot run, or is no llama-server.
    """
    named = os.path.expanduser(binary)
    if (path := shutil.which(named)) is None:
        what = "is not executable" if Path(named).exists() else "does not exist"
        raise StartFailed(f"option binary of llama-server is {binary!r}, which {what}; name llama.cpp's llama-server")
    return _inspected(os.path.abspath(path), binary)


@cache
def _inspected(path: str, binary: str) -> Program:
    version, help_text = _VERSION.search(_output(path, "--version")), _output(path, "--help")
    options = frozenset(re.findall(r"(?<!\S)--[a-z][a-z-]+", help_text))
    missing = [name for name in _NEEDED if name not in options]
    if version is None or missing:
        why = "does not report its version" if version is None else f"has no option {missing[0]}"
        what = f"option binary of llama-server is {binary!r}, which {why}"
        raise StartFailed(f"{what}; name llama.cpp's llama-server, of September 2025 or later")
    with tempfile.TemporaryDirectory() as folder:  # the program reports the features before it looks for its model
        system = _SYSTEM.search(_output(path, "--verbosity", _VERBOSE, "--model", str(Path(folder) / "none.gguf")))
    return Program(path, version[1].strip(), options, system[1].strip() if system else "")


def _output(path: str, *arguments: str) -> str:
    """Return the output of a program; "" if it cannot run, or does not end."""
    try:
        ended = subprocess.run([path, *arguments], stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.decode("utf-8", "replace")
