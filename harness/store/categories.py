"""Texts: columns in which few texts differ, as categories. Trials are many, and pandas compares texts slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pandas.api.extensions import ExtensionArray


def frame_of(table: pa.Table) -> pd.DataFrame:
    """The columns of a table, one by one, so that the table can be given up meanwhile; texts as categories."""
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, Any] = {}
    while table.num_columns:
        name, column = table.column_names[0], table.column(0)
        table = table.remove_column(0)
        columns[name] = _categories(column) if pa.types.is_string(column.type) else column.to_numpy()
    return pd.DataFrame(columns, copy=False)


def _categories(column: pa.ChunkedArray) -> pd.Categorical:
    import pandas as pd

    encoded = column.dictionary_encode().unify_dictionaries()
    known = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    every = np.concatenate([*codes, np.empty(0, dtype=np.int32)])
    found: pd.Categorical = pd.Categorical.from_codes(every, pd.Index(known, dtype=object))
    return found


def one_of(texts: pd.Series[Any] | ExtensionArray, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which texts are one of these, shape (n,); by their codes where they are categories."""
    import pandas as pd

    held = texts.array if isinstance(texts, pd.Series) else texts
    wanted = {str(name) for name in names}
    if not isinstance(held, pd.Categorical):
        return np.fromiter((text in wanted for text in held), dtype=np.bool_, count=len(held))
    known = [str(name) in wanted for name in held.categories]
    found: NDArray[np.bool_] = np.array([*known, False], dtype=np.bool_)[held.codes]  # no text has the code -1
    return found


def counts_of(texts: pd.Series[Any]) -> dict[str, int]:
    """How often each text occurs, the most frequent first."""
    import pandas as pd

    held = texts.array if isinstance(texts.array, pd.Categorical) else pd.Categorical(texts)
    counts = np.bincount(held.codes[held.codes >= 0], minlength=len(held.categories))
    found = {str(name): int(n) for name, n in zip(held.categories, counts, strict=True) if n}
    return dict(sorted(found.items(), key=lambda one: -one[1]))
