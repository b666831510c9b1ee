"""Text columns with few distinct values as categories: pandas compares texts slowly."""

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
    """Return a table as a frame with texts as categories. Columns are moved one by one, to free memory early."""
    import pandas as pd

    columns: dict[str, pd.Series[Any]] = {}
    while table.num_columns:
        columns[table.column_names[0]] = table.column(0).to_pandas(strings_to_categorical=True)
        table = table.remove_column(0)
    return pd.DataFrame(columns, copy=False)


def one_of(texts: pd.Series[Any] | ExtensionArray, names: Sequence[str]) -> NDArray[np.bool_]:
    """Return whether each text is one of these names, shape (n,)."""
    import pandas as pd

    held = texts.array if isinstance(texts, pd.Series) else texts
    wanted = {str(name) for name in names}
    if not isinstance(held, pd.Categorical):
        return np.fromiter((text in wanted for text in held), dtype=np.bool_, count=len(held))
    known = [str(name) in wanted for name in held.categories]
    found: NDArray[np.bool_] = np.array([*known, False], dtype=np.bool_)[held.codes]  # no text has the code -1
    return found


def counts_of(texts: pd.Series[Any]) -> dict[str, int]:
    """Return the number of occurrences of each text, the most frequent first."""
    import pandas as pd

    held = texts.array if isinstance(texts.array, pd.Categorical) else pd.Categorical(texts)
    counts = np.bincount(held.codes[held.codes >= 0], minlength=len(held.categories))
    found = {str(name): int(n) for name, n in zip(held.categories, counts, strict=True) if n}
    return dict(sorted(found.items(), key=lambda one: -one[1]))
