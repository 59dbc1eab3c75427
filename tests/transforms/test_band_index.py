"""What stays of the index is what a look at every key leaves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from equal.transforms.band_index import _COLUMNS, _TYPES, _narrower, _of_keys, _of_owners

#: few different ones, so that they meet; some share their first bits, some are negative
KEYS = st.sampled_from([0, 1, 2, -1, -2, 1 << 62, (1 << 62) + 1, -(1 << 62), 1 << 40])
ROW = st.tuples(st.integers(0, 2), st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=6), st.booleans())


def batch(rows: list[tuple[int, list[tuple[int, int]], bool]]) -> pa.RecordBatch:
    """Rows of the index; of each its bucket, (band key, document) and whether it is fresh."""
    blobs = [
        (bucket, *(np.array([pair[side] for pair in pairs], np.int64).tobytes() for side in (0, 1)), fresh)
        for bucket, pairs, fresh in rows
    ]
    columns = list(zip(*blobs)) or [()] * len(_COLUMNS)
    return pa.RecordBatch.from_arrays([pa.array(c, t) for c, t in zip(columns, _TYPES)], names=list(_COLUMNS))


def unpacked(batches) -> list[tuple[int, int, int, bool]]:
    found = []
    for part in batches:
        for row in part.to_pylist():
            pairs = zip(*(np.frombuffer(row[name], np.int64).tolist() for name in ("band_keys", "doc_keys")))
            found += [(row["bucket"], key, owner, row["fresh"]) for key, owner in pairs]
    return found


@given(st.lists(ROW, max_size=8), st.dictionaries(st.integers(0, 2), st.lists(KEYS, min_size=1, unique=True)))
def test_the_keys_asked_for_stay_with_all_who_have_them(rows, asked):
    tables = {bucket: np.array(sorted(keys), np.int64) for bucket, keys in asked.items()}
    found = unpacked(_narrower(_of_keys(tables))([batch(rows[:3]), batch(rows[3:])]))
    assert found == [
        (bucket, key, owner, fresh)
        for bucket, pairs, fresh in rows for key, owner in pairs if key in asked.get(bucket, [])
    ]  # fmt: skip


@given(st.lists(ROW, max_size=8), st.lists(KEYS, min_size=1))
def test_the_keys_of_new_and_reopened_documents_are_asked_for(rows, again):
    found = unpacked(_narrower(_of_owners(np.array(again, np.int64)))([batch(rows)]))
    assert found == [
        (bucket, key, owner, fresh) for bucket, pairs, fresh in rows for key, owner in pairs if fresh or owner in again
    ]
