"""summary.parquet: the same rows as summary.csv, with types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reports.data import ReportData
from reports.summaries import with_validity

if TYPE_CHECKING:
    import pyarrow as pa

_FLOATS = ("value", "low", "high", "n_eff")


def schema() -> pa.Schema:
    """The columns with their types."""
    import pyarrow as pa

    from reports.summaries import COLUMNS

    def kind(name: str) -> pa.DataType:
        return pa.float64() if name in _FLOATS else pa.int64() if name == "n" else pa.string()

    return pa.schema([(name, kind(name)) for name in COLUMNS])


def write(data: ReportData, file: Path) -> Path:
    """Write the file, over an earlier one; what is not known is null, an open end of an interval infinite."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(with_validity(data), schema=schema(), preserve_index=False)
    pq.write_table(table, file, compression="zstd")
    return file
