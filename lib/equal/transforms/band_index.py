"""The part of the index of band keys that a small load has to do with, found where the index lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.schemas import DOC_ID

#: band keys that are sent to every task, 128 MB of them
DRIVER_KEYS = 1 << 24

_COLUMNS = ("bucket", "band_keys", "doc_keys", "fresh")
_INDEX = "bucket int, band_keys binary, doc_keys binary, fresh boolean"
_TYPES = (pa.int32(), pa.binary(), pa.binary(), pa.bool_())

#: (bucket, keys, owners, fresh) of a row of the index -> which of its keys stay
_Choice = Callable[[int, np.ndarray, np.ndarray, bool], np.ndarray]


def near_new(index: DataFrame, reopened: DataFrame, driver_keys: int = DRIVER_KEYS) -> DataFrame:
    """What `find_groups` needs of the index: the band keys that a new or reopened document has, and all who have them.

    One in a hundred of the keys goes through the shuffle where one in a hundred documents is new. Runs Spark jobs.

    Args:
        index: bucket, band_keys, doc_keys, fresh, as of `find_groups`.
        reopened: doc_id of the documents that are looked at again, as of `find_groups`.
        driver_keys: keys above which the index is left whole: most of it would stay.

    Returns:
        bucket, band_keys, doc_keys, fresh.
    """
    again = reopened.select(F.xxhash64(DOC_ID)).toPandas().to_numpy(np.int64)[:, 0]
    index = index.select(*_COLUMNS)
    # without reopened ones the files of earlier loads are not read for this
    asking = index.mapInArrow(_narrower(_of_owners(again)), _INDEX) if len(again) else index.where("fresh")
    asking = asking.select("bucket", "band_keys").persist()
    try:
        num_bytes = asking.agg(F.sum(F.length("band_keys"))).first()[0] or 0
        if num_bytes > driver_keys * 8:
            return index
        rows = asking.toPandas()
    finally:
        asking.unpersist()
    asked = {
        int(bucket): np.unique(np.frombuffer(b"".join(blobs), np.int64))
        for bucket, blobs in rows.groupby("bucket")["band_keys"]
    }
    return index.mapInArrow(_narrower(_of_keys(asked)), _INDEX)


def _of_owners(again: np.ndarray) -> _Choice:
    def chosen(_: int, keys: np.ndarray, owners: np.ndarray, fresh: bool) -> np.ndarray:
        return np.ones(len(keys), bool) if fresh else np.isin(owners, again)

    return chosen


def _of_keys(asked: dict[int, np.ndarray]) -> _Choice:
    def chosen(bucket: int, keys: np.ndarray, _: np.ndarray, __: bool) -> np.ndarray:
        table = asked.get(bucket, keys[:0])
        starts = np.zeros(1 << 16, bool)
        starts[_first_bits(table)] = True
        stay = starts[_first_bits(keys)]  # a tenth of a search's time for each; few are left to be searched for
        stay[stay] = np.isin(keys[stay], table)
        return stay

    return chosen


def _first_bits(keys: np.ndarray) -> np.ndarray:
    """The first 16 bits of each key."""
    return keys.view(np.uint64) >> np.uint64(48)


def _narrower(chosen: _Choice) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def narrow(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            buckets, keys, owners, fresh = (batch.column(name) for name in _COLUMNS)
            rows = []
            for row in range(len(batch)):
                row_keys, row_owners = (np.frombuffer(blob[row].as_buffer(), np.int64) for blob in (keys, owners))
                bucket, is_fresh = buckets[row].as_py(), fresh[row].as_py()
                stay = chosen(bucket, row_keys, row_owners, is_fresh)
                if stay.any():
                    rows.append((bucket, row_keys[stay].tobytes(), row_owners[stay].tobytes(), is_fresh))
            columns = list(zip(*rows)) or [()] * len(_COLUMNS)
            arrays = [pa.array(values, kind) for values, kind in zip(columns, _TYPES)]
            yield pa.RecordBatch.from_arrays(arrays, names=list(_COLUMNS))

    return narrow
