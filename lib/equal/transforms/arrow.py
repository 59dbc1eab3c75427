"""Arrow columns as compiled loops read them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from equal.core.texts import Texts


def packed_texts(column: pa.Array) -> Texts:
    """The texts of a column without nulls, readable, without a Python object for each that is plain."""
    return raw_texts(column).readable()


def raw_texts(column: pa.Array) -> Texts:
    """The texts of a column without nulls, as they are."""
    column = column.cast(pa.large_string())
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    content = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    return Texts(content, bounds[:-1], bounds[1:])
