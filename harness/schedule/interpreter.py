"""Other Python interpreters for the process of a cell: their requirements, and the packages of the harness for them.

An engine in process may need a library from another environment. The cell's process then runs in the interpreter of
that environment, with the packages of the harness and the libraries of the environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from functools import cache
from pathlib import Path

from engines.models.cache import directory

OLDEST = (3, 11)
MODULES = ("filelock", "gguf", "httptools", "numpy", "orjson", "psutil", "pyarrow", "pydantic", "ruamel.yaml")
PACKAGES = ("harness", "engines", "reports")
PATIENCE_S = 60.0
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
        ended = subprocess.run(
            [python, "-c", _LOOK % (MODULES,)], capture_output=True, check=True, timeout=PATIENCE_S, text=True
        )
        found = json.loads(ended.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = error.strerror if isinstance(error, OSError) else "no answer"
        return f"`python` names {python}, which cannot be run: {why}"
    if tuple(found["version"]) < OLDEST:
        version = ".".join(map(str, found["version"]))
        return f"`python` names {python}, which is Python {version}; the harness needs 3.11 or later"
    if found["missing"]:
        lacking = ", ".join(found["missing"])
        return f"{python} lacks {lacking}; run `{python} -m pip install inference-harness`"
    return None


def own_packages() -> Path:
    """Return a folder with links to the packages of the harness alone.

    Their own folder also contains packages of this interpreter, which another interpreter cannot use.
    """
    home = Path(__file__).absolute().parents[2]
    folder = directory().parent / f"packages-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        link = folder / name
        if not link.exists():
            temporary = folder / f".{name}.{os.getpid()}"
            temporary.symlink_to(home / name, target_is_directory=True)
            temporary.replace(link)
    return folder
