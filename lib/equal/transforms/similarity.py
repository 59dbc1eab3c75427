"""Documents in the order of their similarity to the reference, for the strategies that need no model to look at them.

The similarity of a document is its mean cosine to the reference items. The warm-up's documents, read before by hash,
stay first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from equal.schemas import CLUSTER_ID, DOC_ID, EMBEDDING
from equal.transforms.embed import to_matrix
from equal.transforms.sampling import first_documents, hash_order

_SIMILARITY, _WARM = "similarity", "warm"


def with_similarity(
    assignments: DataFrame, embeddings: DataFrame, reference: np.ndarray, *, seed: int, warm_up_documents: int
) -> DataFrame:
    """What `similarity_order` sorts by, beside every document's arm.

    Args:
        assignments: doc_id, cluster_id.
        embeddings: doc_id, embedding (unit length).
        reference: (m, d) unit vectors.
        seed: of the hash order.
        warm_up_documents: the first ones of the hash order, read before all others.

    Returns:
        doc_id, cluster_id, similarity, warm.
    """
    centre = reference.astype(np.float64).mean(axis=0)

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            # row by row: a matrix product may round a row otherwise in other company
            cosines = (to_matrix(batch.column(1)).astype(np.float64) * centre).sum(axis=1)
            yield pa.RecordBatch.from_arrays([batch.column(0), pa.array(cosines)], names=[DOC_ID, _SIMILARITY])

    similarities = embeddings.select(DOC_ID, EMBEDDING).mapInArrow(run, f"{DOC_ID} string, {_SIMILARITY} double")
    arms = assignments.select(DOC_ID, CLUSTER_ID)
    warm = first_documents(arms, key=hash_order(seed), start=0, stop=warm_up_documents)
    marked = arms.join(warm.select(DOC_ID, F.lit(True).alias(_WARM)), DOC_ID, "left").join(similarities, DOC_ID)
    return marked.select(DOC_ID, CLUSTER_ID, _SIMILARITY, F.coalesce(_WARM, F.lit(False)).alias(_WARM))


def similarity_order(seed: int) -> Column:
    """The key that sorts the rows of `with_similarity`: the warm-up's by hash, then the most similar, ties by hash."""
    falling = F.when(F.col(_WARM), 0.0).otherwise(-F.col(_SIMILARITY))
    return F.struct((~F.col(_WARM)).alias("after"), falling.alias("falling"), hash_order(seed).alias("hash"))


def similarities_by_arm(documents: DataFrame, *, seed: int) -> dict[int, np.ndarray]:
    """(size,) similarities of every arm in `similarity_order`, on the driver: eight bytes a document."""
    keyed = F.struct(similarity_order(seed).alias("key"), DOC_ID, _SIMILARITY)
    ordered = F.transform(F.sort_array(F.collect_list(keyed)), lambda row: row[_SIMILARITY])
    rows = documents.groupBy(CLUSTER_ID).agg(ordered.alias(_SIMILARITY)).collect()
    return {row[CLUSTER_ID]: np.array(row[_SIMILARITY]) for row in rows}
