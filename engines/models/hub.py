"""Snapshots of the Hugging Face hub: in its cache, or fetched; every way in which that fails as a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines.base import ModelError


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked from the hub.

    Attributes:
        noun: What it is, for sentences; `instead`: what a user names to do without the hub.
        files: Patterns of files to fetch; `without`: patterns to leave out.
    """

    name: str
    noun: str
    kind: Literal["model", "dataset"]
    revision: str | None
    files: Sequence[str]
    instead: str
    without: Sequence[str] = ()

    @property
    def at(self) -> str:
        """Name with its revision."""
        return f"{self.name} at revision {self.revision}" if self.revision else self.name


def snapshot(wanted: Wanted) -> Path:
    """Return the folder of a snapshot. Raises ModelError with the fix."""
    try:
        from huggingface_hub import constants, errors, snapshot_download
    except ImportError as error:
        raise ModelError(
            f"{wanted.noun} {wanted.name} needs the package huggingface_hub; run `pip install huggingface_hub`"
        ) from error
    fetch: Callable[..., str] = snapshot_download
    name, noun, patterns = wanted.name, wanted.noun, {"allow_patterns": [*wanted.files]}
    if wanted.without:
        patterns["ignore_patterns"] = [*wanted.without]
    try:
        return Path(fetch(name, repo_type=wanted.kind, revision=wanted.revision, **patterns))
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{noun} {name} requires its terms to be accepted; do so on the hub and set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        fix = "name an existing branch, tag or commit"
        raise ModelError(f"{noun} {name} has no revision {wanted.revision!r}; {fix}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no {noun} {name}; check the id, and set HF_TOKEN if it is private") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        why, fix = "the hub cannot be reached", f"connect, or name {wanted.instead}"
        if constants.HF_HUB_OFFLINE:
            why, fix = "HF_HUB_OFFLINE is set", f"unset it, or fetch the {noun} once"
        raise ModelError(f"{noun} {wanted.at} is not in the local hub cache and {why}; {fix}") from error
    except Exception as error:  # of the hub, of a file, or of any transport below
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{noun} {wanted.at} could not be fetched from the hub: {reason}") from error
