"""Files of a report, replaced as a whole: never written through a link, which may lead out of the run."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def replace(file: Path, content: str | bytes) -> Path:
    """Replace a file; a link in its place is replaced itself. Readers see the old content or the new. Return the file.

    Raises OSError if it cannot be written.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as opened:  # follows no link either
            opened.write(content.encode() if isinstance(content, str) else content)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def folder_in(folder: Path, name: str) -> Path:
    """Return the folder of this name in another; make it if it is missing. Raises OSError if it is a link."""
    made = folder / name
    if made.is_symlink():
        raise OSError(errno.ELOOP, f"`{name}` is a symbolic link, which no report follows; remove the link")
    made.mkdir(exist_ok=True)
    return made
