"""Entries of prompt files and traces, one at a time: JSON Lines, a JSON array, CSV or Parquet."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TextIO

HeaderFault = Callable[[list[str]], str | None]
"""Says what is wrong with the names of the columns; None if nothing is."""

Entry = tuple[int, Mapping[str, object] | str]
"""Line of an entry from 1, and its values; or the sentence that says why it cannot be read."""

_BLOCK = 1 << 16
_LARGEST_FIELD = 2**31 - 1
_NOT_BLANK = re.compile(r"[^ \t\n\r]")
_ROWS = 1024


class _NotText(ValueError):
    """Line that is not UTF-8, with its number."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits; raise OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entries(path: Path, fault_of: HeaderFault | None = None) -> Iterator[Entry]:
    """Yield the entries of a file; with `fault_of`, a file that does not begin like JSON is CSV.

    Files are read piece by piece. A byte order mark and any line ends are accepted. Raises OSError.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        opening = file.read(_BLOCK).lstrip()
        file.seek(0)
        if opening.startswith("["):
            yield from _array_items(file)
        elif fault_of is not None and not opening.startswith("{"):
            header = opening.partition("\n")[0]
            yield from _csv_rows(file, max(",\t;", key=header.count), fault_of)
        else:
            yield from _json_lines(file)


def _json_lines(file: TextIO) -> Iterator[Entry]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(_text(line, number).rstrip("\n"))
        except _NotText as error:
            yield number, str(error)
        except json.JSONDecodeError as error:
            yield number, f"is not JSON ({error.msg} at column {error.colno}); write one object a line"
        except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists without end
            yield number, "is JSON larger than can be read; write one object a line"
        else:
            yield number, entry if isinstance(entry, dict) else "is not a JSON object; write one a line"


def _array_items(file: TextIO) -> Iterator[Entry]:
    """Yield the items of one array; the text of an item is dropped when it has been read."""
    array = _Array(file)
    try:
        array.open()
        while (item := array.next_item()) is not None:
            yield item
        if array.rest():
            yield array.line, "has text after the end of its array; write one array, or one object a line"
    except _NotText as error:
        yield error.line, str(error)
    except json.JSONDecodeError as error:
        yield array.line, f"is not JSON ({error.msg}); write one array of objects"
    except (ValueError, RecursionError):
        yield array.line, "is JSON larger than can be read; write one object a line"


class _Array:
    """Array of a file that is read piece by piece.

    Attributes:
        line: Line of the item that is read next.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._decoder = file, json.JSONDecoder()
        self._text, self._at, self.line = "", 0, 1

    def open(self) -> None:
        """Pass the bracket with which the array begins."""
        self._seek("[")

    def next_item(self) -> Entry | None:
        """Return the next item, None after the last. Raises ValueError."""
        self._pass_blanks()
        if self._text[self._at : self._at + 1] == "]":
            self._pass(1)
            return None
        size = _BLOCK
        while True:
            try:
                item, end = self._decoder.raw_decode(self._text, self._at)
                break
            except json.JSONDecodeError:
                if not self._read(size):  # otherwise the item may go on in the next piece
                    raise
                size *= 2
        found = (self.line, item if isinstance(item, dict) else "is not a JSON object; write an array of objects")
        self._pass(end - self._at)
        self._seek(",")
        return found

    def rest(self) -> bool:
        """Return True if there is more text after the array."""
        self._pass_blanks()
        return self._at < len(self._text)

    def _seek(self, mark: str) -> None:
        self._pass_blanks()
        if self._text[self._at : self._at + 1] == mark:
            self._pass(1)

    def _pass_blanks(self) -> None:
        """Pass white space."""
        while True:
            rest = _NOT_BLANK.search(self._text, self._at)
            self._pass((len(self._text) if rest is None else rest.start()) - self._at)
            if rest is not None or not self._read(_BLOCK):
                return

    def _pass(self, characters: int) -> None:
        self.line += self._text.count("\n", self._at, self._at + characters)
        self._at += characters

    def _read(self, size: int) -> bool:
        """Append a piece of the file to what is left; return False at its end."""
        piece = self._file.read(size)
        line = self.line + self._text.count("\n", self._at)
        self._text, self._at = self._text[self._at :] + _text(piece, line), 0
        return bool(piece)


def _csv_rows(file: TextIO, delimiter: str, fault_of: HeaderFault) -> Iterator[Entry]:
    csv.field_size_limit(_LARGEST_FIELD)
    lines = (_text(line, number) for number, line in enumerate(file, start=1))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if header:
                yield reader.line_num, dict(zip_longest(header, cells[: len(header)], fillvalue=""))
                continue
            header = cells
            if (fault := fault_of(header)) is not None:
                yield reader.line_num, fault
                return
    except _NotText as error:
        yield error.line, str(error)
    except csv.Error as error:
        yield reader.line_num, f"is not CSV: {error}"


def _parquet_rows(path: Path) -> Iterator[Entry]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowInvalid as error:
        yield 1, f"is not a Parquet file: {str(error).splitlines()[0]}"


def _text(piece: str, line: int) -> str:
    """Return the piece; raise _NotText if its bytes are not UTF-8."""
    if piece.isascii():
        return piece
    try:
        piece.encode()
    except UnicodeEncodeError as error:
        before = piece[: error.start]
        place, begun = line + before.count("\n"), before[before.rfind("\n") + 1 :]
        why = f"is not UTF-8 text (byte {len(begun.encode()) + 1} of the line); save the file as UTF-8"
        raise _NotText(place, why) from error
    return piece
