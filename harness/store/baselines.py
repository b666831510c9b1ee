"""Baselines: runs that are kept under a name for later comparisons, in a folder to cache or to commit.

`baselines/NAME/<time>-<run>/` is a run beside a `baseline.json`. The newest run of a name is the baseline, the others
are its history. No file says which is the newest, so that two writers at once lose nothing, and the folders of two
branches can be merged.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.errors import RunUnreadable, UsageError

MARK = "baseline.json"
FORMAT = 1
PREFIX = "baseline:"
ENVIRONMENT = "HARNESS_BASELINES"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(r"(?P<name>[^/~]+)(?:/(?P<entry>[^/]+)|~(?P<before>[0-9]+))?")
_TIME = "%Y%m%dT%H%M%SZ"
_LATEST = "latest"
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Kept:
    """Run that is kept under a name.

    Attributes:
        run: Name of the folder that it was copied from.
        damaged: Why it cannot be used, "" if it can. Its time is that of its folder then.
    """

    name: str
    path: Path
    set_utc: datetime
    run: str
    damaged: str = ""

    @property
    def reference(self) -> str:
        """Return what names exactly this run, also when another one is newer."""
        return f"{self.name}/{self.path.name}"

    @property
    def size_bytes(self) -> int:
        """Size of its files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def default_folder() -> Path:
    """Return the folder of the baselines: as HARNESS_BASELINES says, else `baselines`."""
    return Path(os.environ.get(ENVIRONMENT) or "baselines")


def is_kept(run: Path) -> bool:
    """Return whether a folder is a baseline, to which nothing is written any more."""
    return (run / MARK).exists()


def check_name(name: str) -> None:
    """Raise UsageError for a name that no baseline can have."""
    if _NAME.fullmatch(name) is None or name == _LATEST or name.endswith("."):
        fixed = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:64]
        hint = f", such as {fixed}" if _NAME.fullmatch(fixed) and fixed != _LATEST else ", such as main"
        raise UsageError(f"{name!r} cannot name a baseline: write letters, digits, dot, dash and underscore{hint}")


def names(folder: Path) -> list[str]:
    """Return the names that have a baseline."""
    if not folder.is_dir():
        return []
    return sorted(one.name for one in folder.iterdir() if _NAME.fullmatch(one.name) and _has_some(one))


def history(name: str, folder: Path) -> list[Kept]:
    """Return the runs that are kept under a name, the newest last, also damaged ones."""
    return sorted((_read(entry, name) for entry in _entries(folder / name)), key=_age)


def find(reference: str, folder: Path) -> Kept:
    """Return the baseline of `NAME`, the one before of `NAME~1`, or one of its history by `NAME/ENTRY`.

    Raises UsageError if there is none, RunUnreadable if it is damaged: no older one takes its place.
    """
    found = named(reference, folder)
    if found.damaged:
        fix = f"remove it with `harness baseline rm {found.reference}`, or set the name again"
        raise RunUnreadable(f"{found.path} cannot be used: {found.damaged}; {fix}")
    return found


def named(reference: str, folder: Path) -> Kept:
    """Return a baseline as `find` does, also a damaged one."""
    asked = _REFERENCE.fullmatch(reference)
    kept = history(asked["name"], folder) if asked is not None and _NAME.fullmatch(asked["name"]) else []
    if asked is None or not kept:
        known = ", ".join(names(folder)) or "none yet; make one with `harness baseline set NAME latest`"
        raise UsageError(f"there is no baseline {reference!r}; {folder}/ has {known}")
    if asked["entry"] is not None:
        found = [one for one in kept if one.path.name == asked["entry"]]
        if not found:
            listed = ", ".join(one.reference for one in kept[-3:])
            raise UsageError(f"there is no baseline {reference!r}; the newest of {asked['name']} are {listed}")
        return found[0]
    before = int(asked["before"] or 0)
    if before >= len(kept):
        raise UsageError(f"{reference}: {asked['name']} has {len(kept)} run{'' if len(kept) == 1 else 's'}")
    return kept[-1 - before]


def newest_in(path: Path) -> Path | None:
    """Return the baseline in a folder that is that of a name, such as `ci/baselines/main`; None if it is none."""
    return find(path.name, path.parent).path if _has_some(path) else None


def add(name: str, run: str, folder: Path, fill: Callable[[Path], None], *, now: datetime | None = None) -> Kept:
    """Keep a run under a name, as the newest; nothing that is there changes.

    It is made beside its place and renamed into it: readers see all of it or nothing.

    Args:
        run: Name of the folder that it is copied from.
        fill: Copies the run into a new folder. If it raises, nothing is kept.
    """
    check_name(name)
    home = folder / name
    new = _new_folder(home, run)
    try:
        fill(new)
        before = [one.set_utc for one in history(name, folder) if one.set_utc < _NEVER]
        at = now or datetime.now(UTC)
        if before:  # a clock that is behind must not make an older baseline the newest
            at = max(at, before[-1] + timedelta(microseconds=1))
        mark = {"format": FORMAT, "name": name, "run": run, "set_utc": at.isoformat()}
        _write(new / MARK, json.dumps(mark, indent=1).encode() + b"\n")
        return Kept(name, _into_place(new, home, f"{at:{_TIME}}-{run}"), at, run)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def remove(kept: Sequence[Kept]) -> None:
    """Delete some runs, each at once for its readers, and folders of names that are empty then."""
    for one in kept:
        gone = one.path.with_name(f".gone-{one.path.name}-{os.urandom(6).hex()}")
        one.path.rename(gone)
        shutil.rmtree(gone)
    for home in {one.path.parent for one in kept}:
        with contextlib.suppress(OSError):  # another run is kept, or is just being added
            home.rmdir()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into a folder that may be new."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, source.read_bytes())


def _write(path: Path, content: bytes) -> None:
    """Write a file so that a loss of power after the renaming leaves it whole."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _new_folder(home: Path, run: str) -> Path:
    """Return a new hidden folder in the folder of a name, which another process may be removing."""
    new = home / f".new-{run}-{os.urandom(6).hex()}"
    while True:
        home.mkdir(parents=True, exist_ok=True)
        try:
            new.mkdir()
        except FileNotFoundError:
            continue
        return new


def _into_place(new: Path, home: Path, wanted: str) -> Path:
    number = 1
    while True:
        place = home / (wanted if number == 1 else f"{wanted}-{number}")
        try:
            return new.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            number += 1  # another baseline of the same second, which may be gone already


def _entries(home: Path) -> list[Path]:
    return [one for one in home.iterdir() if one.is_dir() and one.name[0] != "."] if home.is_dir() else []


def _has_some(home: Path) -> bool:
    """Return whether a folder has a baseline; folders of the same name may be somebody else's."""
    return any(is_kept(entry) for entry in _entries(home))


def _read(entry: Path, name: str) -> Kept:
    try:
        stored = json.loads((entry / MARK).read_bytes())
        if stored["format"] > FORMAT:
            return Kept(name, entry, _time_of(entry), "", f"its {MARK} is of a newer version of harness")
        return Kept(name, entry, datetime.fromisoformat(stored["set_utc"]).astimezone(UTC), str(stored["run"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"its {MARK} cannot be read: {type(error).__name__}: {error}"
        return Kept(name, entry, _time_of(entry), "", why)


def _time_of(entry: Path) -> datetime:
    """Return the time in the name of a folder; the last of all if it has none."""
    try:
        return datetime.strptime(entry.name.partition("-")[0], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return _NEVER


def _age(one: Kept) -> tuple[datetime, str]:
    return one.set_utc, one.path.name
