"""Scenario of `harness run URL`: what the server speaks is detected, and the scenario shown, to be kept and changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engines.secrets import hide, masked
from harness.cli.output import say
from harness.errors import TrialFailed, UsageError

if TYPE_CHECKING:
    from harness.scenario.address import Wanted
    from harness.scenario.model import Scenario


def scenario_for(url: str, wanted: Wanted, sets: Sequence[str], labels: Sequence[str], *, quiet: bool) -> Scenario:
    """Return the scenario for a running server.

    Raises UsageError for a wrong option or an unset key, TrialFailed if the server does not answer or is no API.
    """
    from engines.base import EngineError
    from engines.http.detection import detect
    from harness.scenario.address import scenario_text
    from harness.scenario.reader import load_text

    scenario_text(url, "", None, wanted)  # a slip in an option is told before anything is sent
    stated = {"dialect": wanted.dialect, "served_model": wanted.served_model, "api_key": _key(wanted.api_key_env)}
    try:
        found = asyncio.run(detect(url, **stated))
    except ValueError as error:
        raise UsageError(f"{url}: {error}") from error
    except EngineError as error:
        raise TrialFailed(str(error)) from error
    text = scenario_text(url, found.dialect, _storable(found.served_model, wanted), wanted)
    if not quiet:
        indented = "".join(f"  {line}\n" for line in text.splitlines())
        say(f"the same as a scenario, to keep and to change:\n\n{indented}\n")
    return load_text(text, url, sets=sets, labels=labels)


def _storable(model: str | None, wanted: Wanted) -> str | None:
    """Return the model's name for the scenario, which is stored: None for a listed one that repeats a secret.

    The engine then takes it from the server's list, as the detection did.
    """
    return model if model is None or wanted.served_model is not None or masked(model) == model else None


def _key(name: str | None) -> str | None:
    """Return the key in an environment variable, which is hidden from now on."""
    if name is None:
        return None
    if not os.environ.get(name, "").strip():
        lacks = "empty" if name in os.environ else "not set"
        raise UsageError(f"--api-key-env {name}: this environment variable is {lacks}; set it to the key")
    hide(os.environ[name])
    return os.environ[name]
