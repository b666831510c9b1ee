"""Other Python interpreters for the process of a cell, if an engine in process needs a library of their environment."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from functools import cache
from pathlib import Path

from engines.models.cache import directory

MODULES = ("filelock", "gguf", "httptools", "numpy", "orjson", "psutil", "pyarrow", "pydantic", "ruamel.yaml")
_LOOK = """
import json, sys
sys.path[:] = [folder for folder in sys.path if folder]
from importlib.util import find_spec
def lacks(name):
    try:
        return find_spec(name) is None
    except ImportError:
        return True
print(json.dumps({"version": sys.version_info[:2], "missing": [name for name in %r if lacks(name)]}))
"""


@cache
def cannot_run_trials(python: str) -> str | None:
    """Return a sentence if an interpreter cannot run the process of a cell."""
    try:
        command = [python, "-c", _LOOK % (MODULES,)]
        ended = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True)
        found = json.loads(ended.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = error.strerror if isinstance(error, OSError) else "no answer"
        return f"`python` names {python}, which cannot be run: {why}"
    if tuple(found["version"]) < (3, 11):
        version = ".".join(map(str, found["version"]))
        return f"`python` names {python}, which is Python {version}; the harness needs 3.11 or later"
    if found["missing"]:
        return f"{python} lacks {', '.join(found['missing'])}; run `{python} -m pip install inference-harness`"
    return None


def own_packages() -> Path:
    """Return a folder with links to the packages of the harness, without others that only this interpreter can use."""
    home = Path(__file__).absolute().parents[2]
    folder = directory().parent / f"packages-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("harness", "engines", "reports"):
        link = folder / name
        if not link.exists():
            temporary = folder / f".{name}.{os.getpid()}"
            temporary.symlink_to(home / name, target_is_directory=True)
            temporary.replace(link)
    return folder
