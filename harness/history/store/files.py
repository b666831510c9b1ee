"""Files of a store: each is written whole beside its place, then renamed into it, and never changed afterwards."""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import FileUnreadable, RunUnreadable, StorageFailed, shortened
from harness.history.store.night import Night, Row, Setup, What
from harness.store.streams import reading_errors, sync_folder

FORMAT = 1
"""Version of the files. A column that changes raises it."""
_MARK, _CHECK = b"harness.history", b"harness.history.crc32"
_NEW = ".new-"
_STALE_S = 86_400.0
_NUMBERS = {"value": pa.float64(), "low": pa.float64(), "high": pa.float64(), "n": pa.int64(), "starts": pa.int32()}
_TEXTS = (*What._fields, "doubt", *Setup._fields)


@cache
def _schema() -> pa.Schema:
    texts = [(name, pa.dictionary(pa.int32(), pa.string())) for name in _TEXTS]
    return pa.schema([*texts, *_NUMBERS.items()])


def put(path: Path, content: bytes) -> None:
    """Write a file so that others see all of it or nothing. Raises StorageFailed.

    Several writers of the same path write the same content, for its name follows from the content.
    """
    new = path.with_name(f"{_NEW}{os.urandom(8).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        why = f"{shortened(str(path.parent))}: cannot write: {error.strerror or error}"
        raise StorageFailed(f"{why}; choose another folder with --store") from error
    sync_folder(path.parent)


def remove_stale(folder: Path) -> None:
    """Remove files that killed writers left, a day later."""
    for path in folder.glob(f"{_NEW}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()


def visible(folder: Path, ending: str) -> list[Path]:
    """Return the files of a folder that are whole, in the order of their names."""
    with suppress(FileNotFoundError):
        return sorted(one for one in folder.iterdir() if one.suffix == ending and one.name[0] != ".")
    return []


def as_parquet(night: Night, added: datetime) -> bytes:
    """Return the content of a night's file."""
    columns: dict[str, list[Any]] = {name: [] for name in _schema().names}
    for row in sorted(night.rows):
        values = zip(
            (*What._fields, *Row._fields[1:-1], *Setup._fields), (*row.what, *row[1:-1], *row.setup), strict=True
        )
        for name, value in values:
            columns[name].append(value)
    arrays = [_array(columns[one.name], one.type) for one in _schema()]
    mark = json.dumps(_about(night) | {"added_utc": added.isoformat(timespec="microseconds")}).encode()
    metadata = {_MARK: mark, _CHECK: _sum(mark)}
    table = pa.Table.from_arrays(arrays, schema=_schema().with_metadata(metadata))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    found = pa.array(values, _plain(type_), from_pandas=True)  # NaN is null there
    return found.dictionary_encode() if pa.types.is_dictionary(type_) else found


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _about(night: Night) -> dict[str, Any]:
    """Return all of a night but its rows."""
    return {
        "format": FORMAT,
        "at": night.at.isoformat(),
        "run": night.run,
        "identity": night.identity,
        "scenario": night.scenario,
        "machine": night.machine,
        "method": night.method,
        "labels": dict(night.labels),
        "state": dict(night.state),
        "sessions": night.sessions,
        "tool": night.tool,
        "harness_version": night.harness_version,
    }


class Reader:
    """Reader of many nights. Equal texts and setups are one object in all of them, which keeps a year small."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._whats: dict[tuple[str, ...], What] = {}
        self._setups: dict[tuple[str, ...], Setup] = {}
        self._states: dict[str, Mapping[str, str]] = {}

    def night(self, path: Path) -> Night:
        """Return the night of a file.

        Raises RunUnreadable, one sentence, if it is damaged, of another program, or of a newer version;
        FileNotFoundError if it is gone.
        """
        content = path.read_bytes()
        with reading_errors(path):
            file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
            table = file.read(use_threads=False)
        about = _checked(path, table.schema.metadata or {})
        try:
            _check_columns(table.schema)
            return self._night(about, table)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, pa.ArrowException) as error:
            why = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            raise FileUnreadable(f"{path} cannot be read: {why[:120]}") from error

    def _night(self, about: dict[str, Any], table: pa.Table) -> Night:
        return Night(
            at=datetime.fromisoformat(about["at"]),
            run=str(about["run"]),
            identity=str(about["identity"]),
            scenario=self._text(about["scenario"]),
            machine=self._text(about["machine"]),
            method=int(about["method"]),
            rows=tuple(self._rows(table)),
            labels={self._text(key): self._text(value) for key, value in about["labels"].items()},
            state=self._state(about["state"]),
            sessions=int(about["sessions"]),
            tool=self._text(about["tool"]),
            harness_version=self._text(about["harness_version"]),
            added_utc=str(about["added_utc"]),
        )

    def _rows(self, table: pa.Table) -> Iterator[Row]:
        texts = {name: self._column(table, name) for name in _TEXTS}
        numbers = {name: _numbers(table, name) for name in _NUMBERS}
        names = zip(*(texts[name] for name in What._fields), strict=True)
        setups = zip(*(texts[name] for name in Setup._fields), strict=True)
        rest = (numbers["value"], numbers["low"], numbers["high"], numbers["n"], numbers["starts"], texts["doubt"])
        for what, setup, value, low, high, n, starts, doubt in zip(names, setups, *rest, strict=True):
            yield Row(self._what(what), value, low, high, n, starts, doubt, self._setup(setup))

    def _what(self, fields: tuple[str, ...]) -> What:
        found = self._whats.get(fields)
        return self._whats.setdefault(fields, What(*fields)) if found is None else found

    def _setup(self, fields: tuple[str, ...]) -> Setup:
        found = self._setups.get(fields)
        return self._setups.setdefault(fields, Setup(*fields)) if found is None else found

    def _state(self, facts: Mapping[str, Any]) -> Mapping[str, str]:
        state = {str(name): str(value) for name, value in facts.items()}
        return self._states.setdefault(json.dumps(state, sort_keys=True), state)

    def _text(self, value: Any) -> str:
        text = str(value)
        return self._texts.setdefault(text, text)

    def _column(self, table: pa.Table, name: str) -> list[str]:
        column = table.column(name).combine_chunks()
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        words = [self._text(word) for word in column.dictionary.to_pylist()]
        return [words[place] for place in column.indices.to_pylist()]


def _numbers(table: pa.Table, name: str) -> list[Any]:
    values: list[Any] = table.column(name).to_pylist()  # to_numpy would import pandas, for half a second
    return values if name in ("n", "starts") else [math.nan if value is None else value for value in values]


def _check_columns(found: pa.Schema) -> None:
    """Raise ValueError for a table that lacks a column, or has one of another type."""
    for wanted in _schema():
        if wanted.name not in found.names:
            raise ValueError(f"it has no column {wanted.name}")
        if (type_ := _plain(found.field(wanted.name).type)) != _plain(wanted.type):
            raise ValueError(f"its column {wanted.name} has the type {type_}")


def _sum(mark: bytes) -> bytes:
    return f"{zlib.crc32(mark):08x}".encode()


def _checked(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return what a file says of itself. Raises RunUnreadable for a file of another program or a newer version."""
    mark = metadata.get(_MARK)
    if mark is None:
        raise RunUnreadable(f"{path} is no night of a history")
    if metadata.get(_CHECK, _sum(mark)) != _sum(mark):
        raise FileUnreadable(f"{path} cannot be read: its facts do not fit their checksum")
    try:
        about = json.loads(mark)
        version = int(about["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise FileUnreadable(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if version > FORMAT:
        raise RunUnreadable(f"{path} is of a newer version of harness; use that")
    return dict(about)
