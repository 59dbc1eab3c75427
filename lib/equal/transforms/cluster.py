"""Documents to clusters, the arms of the bandit: cosine k-means, fitted on a hash sample, assigned in batches.

Arms are the clusters that documents were assigned to: one without any is a centroid and no arm. Tiny ones stay as they
are: a pull of one is its last partial batch, after which the arm is exhausted and leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.ml.clustering import KMeans
from pyspark.ml.functions import array_to_vector
from pyspark.ml.stat import Summarizer
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.errors import InputError
from equal.schemas import CLUSTER_ID, DISTANCE, DOC_ID, EMBEDDING
from equal.transforms.embed import to_matrix

#: rows a task while fitting; up to this many documents one task adds them all up, always in the same order
_ROWS_PER_TASK = 20_000
#: resolution of the hash draw
_DRAWS = 1 << 30
#: distances are rounded here, so that equal ones tie and the smaller cluster id wins
_DECIMALS = 7


@dataclass(frozen=True)
class Clustering:
    """A fitted k-means.

    Attributes:
        centroids: (k, dim) float32 unit rows; the row number is the cluster_id.
        cost: within-cluster sum of cosine distances of the fitted sample.
        iterations: passes made.
        converged: whether the centres stopped moving before the limit of passes.
    """

    centroids: np.ndarray
    cost: float
    iterations: int
    converged: bool


def candidates(k: int, grid: Sequence[int], *, num_docs: int, affordable: int | None) -> list[int]:
    """The numbers of clusters to try.

    Args:
        k: the number asked for; 0 leaves the choice to the elbow of `grid`.
        grid: numbers among which the elbow chooses.
        num_docs: documents to cluster.
        affordable: most arms whose first sweep the budget pays for; None is no limit.

    Returns:
        `[k]`; or the values of the grid within both bounds; or the bound itself when all are above it.

    Raises:
        InputError: there are no documents, or fewer than `k`.
    """
    if num_docs < 1:
        raise InputError("cluster: there is no document to cluster; see table removals for what was dropped and why")
    if k > num_docs:
        raise InputError(f"cluster.k: is {k}, above the number of documents; the largest k that fits is {num_docs}")
    if k:
        return [k]
    bound = num_docs if affordable is None else min(num_docs, affordable)
    return sorted({value for value in grid if 1 <= value <= bound}) or [max(1, bound)]


def elbow(ks: Sequence[int], costs: Sequence[float]) -> int:
    """The k after which a further cluster buys little: the point farthest below the chord of the cost curve.

    Args:
        ks: increasing numbers of clusters.
        costs: within-cluster cost of each.

    Returns:
        One of `ks`; the larger of two, as two points have no bend.

    Example:
        >>> elbow([1, 2, 4, 8], [10.0, 3.0, 2.5, 2.0])
        2
    """
    if len(ks) < 3 or costs[0] <= costs[-1]:
        return ks[0] if len(ks) < 2 or costs[0] <= costs[-1] else ks[-1]
    x = (np.asarray(ks, float) - ks[0]) / (ks[-1] - ks[0])
    y = (np.asarray(costs, float) - costs[-1]) / (costs[0] - costs[-1])
    return int(ks[int(np.argmax(1.0 - x - y))])


def sample_to_fit(embeddings: DataFrame, *, num_docs: int, fit_documents: int, seed: int) -> DataFrame:
    """The vectors that k-means is fitted on: about `fit_documents`, by hash of seed and doc_id, in a fixed order.

    Args:
        embeddings: doc_id, embedding.
        num_docs: rows of `embeddings`.
        fit_documents: rows to keep, 1 or more.
        seed: of the draw.

    Returns:
        doc_id, embedding, features (vector); partitioned by doc_id alone, whatever came in.
    """
    share = min(1.0, fit_documents / max(1, num_docs))
    drawn = F.pmod(F.xxhash64(F.lit(seed), F.col(DOC_ID)), F.lit(_DRAWS)) < int(share * _DRAWS)
    tasks = -(-min(num_docs, fit_documents) // _ROWS_PER_TASK)
    placed = embeddings.where(drawn).repartition(max(1, tasks), DOC_ID).sortWithinPartitions(DOC_ID)
    return placed.select(DOC_ID, EMBEDDING, array_to_vector(EMBEDDING).alias("features"))


def fit_centroids(sample: DataFrame, *, k: int, seed: int, max_iterations: int) -> Clustering:
    """Spherical k-means (MLlib, cosine distance).

    The sums of one task are made in doc_id order, so that up to 20,000 rows give the same centroids
    to the last bit; with more, tasks are added up as they finish and the last bit of a double may differ.

    Args:
        sample: from `sample_to_fit`, cached by the caller when it fits more than once.
        k: clusters; fewer come back when the sample has fewer distinct vectors.
        seed: of the k-means|| start.
        max_iterations: passes at most.
    """
    if k < 2:  # MLlib wants two clusters
        return _single(sample)
    means = KMeans(k=k, seed=seed, maxIter=max_iterations, distanceMeasure="cosine", solver="block", tol=1e-4)
    model = means.fit(sample)
    centers = np.asarray(model.clusterCenters(), dtype=np.float64)
    iterations = int(model.summary.numIter)
    return Clustering(_unit(centers), float(model.summary.trainingCost), iterations, iterations < max_iterations)


def choose_clustering(
    sample: DataFrame, ks: Sequence[int], *, seed: int, max_iterations: int
) -> tuple[Clustering, dict[int, Clustering]]:
    """Fit every k of `ks`; returns the elbow's and all."""
    fits = {k: fit_centroids(sample, k=k, seed=seed, max_iterations=max_iterations) for k in ks}
    return fits[elbow(list(fits), [fit.cost for fit in fits.values()])], fits


def assign_clusters(embeddings: DataFrame, centroids: np.ndarray) -> DataFrame:
    """Give every document its nearest centroid; later documents are assigned without a new fit.

    Args:
        embeddings: doc_id, embedding.
        centroids: (k, dim) unit rows.

    Returns:
        doc_id, cluster_id, distance = 1 - cosine, in [0, 2]; equal distances go to the smaller cluster_id.
    """
    transposed = np.ascontiguousarray(centroids.T, dtype=np.float64)

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            if not batch.num_rows:
                continue
            distances = np.round(1.0 - _unit(to_matrix(batch.column(1)).astype(np.float64)) @ transposed, _DECIMALS)
            nearest = distances.argmin(axis=1)
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column(0),
                    pa.array(nearest.astype(np.int32)),
                    pa.array(np.clip(distances[np.arange(len(nearest)), nearest], 0.0, 2.0)),
                ],
                names=[DOC_ID, CLUSTER_ID, DISTANCE],
            )

    columns = embeddings.select(DOC_ID, EMBEDDING)
    schema = f"{DOC_ID} string, {CLUSTER_ID} int, {DISTANCE} double"
    return columns.mapInArrow(run, schema).select(DOC_ID, CLUSTER_ID, DISTANCE)


def centroid_rows(clustering: Clustering, sizes: Mapping[int, int], fingerprint: str) -> list[dict[str, object]]:
    """Rows of table centroids: each cluster with the documents assigned to it and the configuration it stands for."""
    return [
        {"cluster_id": i, "num_documents": sizes.get(i, 0), "fingerprint": fingerprint, "centroid": vector.tolist()}
        for i, vector in enumerate(clustering.centroids)
    ]


def _single(sample: DataFrame) -> Clustering:
    """All in one cluster: the mean direction."""
    mean = sample.select(Summarizer.mean(F.col("features"))).first()
    centroid = _unit(np.asarray(mean[0].toArray())[None, :])
    cost = assign_clusters(sample, centroid).agg(F.sum(DISTANCE)).first()
    return Clustering(centroid, float(cost[0]), 1, True)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)
