"""Texts to vectors, in Arrow batches, with one model per Python worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.schemas import DOC_ID, EMBEDDING, EMBEDDINGS, SCHEMAS, TEXT


class TextEncoder(Protocol):
    """What this transform asks of a model."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed n texts as (n, dim) float32 unit rows."""
        ...


def embed(documents: DataFrame, make_encoder: Callable[[], TextEncoder], num_partitions: int) -> DataFrame:
    """Embed every document.

    Args:
        documents: doc_id, text.
        make_encoder: picklable; called on the executors, expected to load its model once per process.
        num_partitions: tasks of the model stage. A number is needed: left to itself, adaptive execution
            coalesces a small input into one task.

    Returns:
        doc_id, embedding (array<float>, unit length).
    """
    placed = documents.select(F.col(DOC_ID), F.col(TEXT)).repartition(num_partitions, DOC_ID)

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        encoder = make_encoder()
        for batch in batches:
            vectors = encoder.encode(batch.column(1).to_pylist())
            yield pa.RecordBatch.from_arrays([batch.column(0), to_arrow(vectors)], names=[DOC_ID, EMBEDDING])

    return placed.mapInArrow(run, SCHEMAS[EMBEDDINGS]).select(DOC_ID, EMBEDDING)


def to_arrow(vectors: np.ndarray) -> pa.ListArray:
    """(n, dim) float32 as an Arrow list column, without a Python object per number."""
    n, dim = vectors.shape
    offsets = np.arange(0, n * dim + 1, dim, dtype=np.int32) if dim else np.zeros(n + 1, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(vectors, np.float32).ravel()))


def to_matrix(column: pa.Array) -> np.ndarray:
    """An Arrow list column of n vectors as (n, dim) float32, without a Python object per number."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(column), -1) if len(column) else np.empty((0, 0), np.float32)
