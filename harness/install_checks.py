"""What is installed: engines, libraries, where our own packages come from, what the environment adds."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from engines.models.cache import directory
from harness import __version__, provenance
from harness.engine_support import supported
from harness.machine_checks import Check, State

PACKAGES = ("harness", "engines", "reports")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def install_checks() -> Iterator[Check]:
    """Every check of the installation."""
    yield packages()
    yield python()
    yield from engine_checks()
    yield libraries()
    yield cache_folder()
    yield proxies(os.environ)


def packages(folders: Mapping[str, Path] | None = None) -> Check:
    """Where our packages were loaded from: a folder named `engines` in the working directory may stand before ours."""
    found = folders or {name: _folder(name) for name in PACKAGES}
    homes = {folder.parent for folder in found.values()}
    text = f"harness {__version__} from {', '.join(map(shown, sorted(homes)))}"
    if len(homes) > 1:
        where = "; ".join(f"{name} from {shown(folder.parent)}" for name, folder in found.items())
        advice = (
            "Parts of different installations are mixed: leave the folder that holds the wrong one, or install again."
        )
        return Check("packages", State.BAD, where, advice)
    return Check("packages", State.OK, text)


def _folder(name: str) -> Path:
    file = import_module(name).__file__ if name != "reports" else _origin(name)
    return Path(file or ".").resolve().parent


def _origin(name: str) -> str | None:
    spec = find_spec(name)
    return None if spec is None else spec.origin


def python() -> Check:
    """The interpreter, and the event loop that measuring goes through."""
    loop = "uvloop" if find_spec("uvloop") else "asyncio's own loop"
    found = f"{platform.python_implementation()} {platform.python_version()}, {loop}"
    if hasattr(sys, "gettotalrefcount") or sys.flags.dev_mode:
        return Check("Python", State.WARN, f"{found}, with debugging", "Use a build for production, without -X dev.")
    if loop != "uvloop":
        return Check("Python", State.WARN, found, "`pip install uvloop`: the client needs less time with it.")
    return Check("Python", State.OK, found)


def engine_checks() -> Iterator[Check]:
    """One for each engine that a scenario can name."""
    for one in supported():
        name = f"engine {one.name}"
        if one.broken is not None:
            yield Check(name, State.WARN, one.broken, "Install what it needs, or use another engine.")
        elif one.missing is not None:
            what, _, how = one.missing.partition(": ")
            yield Check(name, State.WARN, what, f"To use it: {how}.")
        else:
            yield Check(name, State.OK, f"{len(one.levels)} levels" if one.levels else "levels are the server's")


def libraries() -> Check:
    """Versions of what generates tokens or carries them."""
    found = provenance.under_test()["libraries"]
    return Check("libraries", State.OK, ", ".join(f"{name} {version}" for name, version in found.items()) or "none")


def cache_folder() -> Check:
    """Where derived models and calibrations are kept."""
    folder = directory().parent
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(there, os.W_OK):
        return Check("cache", State.OK, shown(folder))
    advice = "Set HARNESS_CACHE to a folder that can be written: models are built there."
    return Check("cache", State.WARN, f"{shown(there)} cannot be written", advice)


def shown(path: Path) -> str:
    """A path for people; their home is theirs."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def proxies(environment: Mapping[str, str]) -> Check:
    """Variables that send requests another way. Their values may hold passwords and are not shown."""
    named = [name for name in (*PROXIES, *map(str.lower, PROXIES)) if environment.get(name)]
    if not named:
        return Check("proxies", State.OK, "none in the environment")
    found = f"{', '.join(named)} set" + (", NO_PROXY too" if environment.get("NO_PROXY") else "")
    advice = "What goes through a proxy is measured with it: unset them, or name the target in NO_PROXY."
    return Check("proxies", State.WARN, found, advice)
