"""Clustering: planted groups are found, bounds are kept, and neither order nor partitions leave a trace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from equal.core.bandit import ArmState, choose_pulls, ds_scores
from equal.errors import InputError
from equal.schemas import ASSIGNMENTS, CLUSTERING, SCHEMAS
from equal.transforms.cluster import (
    assign_clusters,
    candidates,
    centroid_rows,
    choose_clustering,
    elbow,
    fit_centroids,
    sample_to_fit,
)
from equal.transforms.sampling import hash_order, pulled_documents

DIM, PLANTED, EACH = 16, 5, 40


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    centers = _unit(rng.normal(size=(PLANTED, DIM)))
    labels = np.repeat(np.arange(PLANTED), EACH)
    return _unit(centers[labels] + 0.08 * rng.normal(size=(len(labels), DIM))), labels


@pytest.fixture(scope="module")
def embeddings(spark, planted):
    rows = [(f"{i:032x}", vector.tolist()) for i, vector in enumerate(planted[0])]
    return spark.createDataFrame(rows, "doc_id string, embedding array<float>").cache()


def _fit(frame, k: int):
    sample = sample_to_fit(frame, num_docs=PLANTED * EACH, fit_documents=1000, seed=3)
    return fit_centroids(sample, k=k, seed=3, max_iterations=20)


@pytest.fixture(scope="module")
def fit(embeddings):
    return _fit(embeddings, PLANTED)


def test_planted_groups_are_found(embeddings, planted, fit):
    assigned = assign_clusters(embeddings, fit.centroids)
    assert {CLUSTERING, *assigned.columns} == set(SCHEMAS[ASSIGNMENTS].fieldNames())
    found = {row.doc_id: row.cluster_id for row in assigned.collect()}
    table = np.zeros((PLANTED, PLANTED), dtype=int)
    for i, label in enumerate(planted[1]):
        table[label, found[f"{i:032x}"]] += 1
    assert table[linear_sum_assignment(-table)].sum() == PLANTED * EACH
    assert fit.converged
    np.testing.assert_allclose(np.linalg.norm(fit.centroids, axis=1), 1.0, atol=1e-6)


def test_partitions_and_order_change_nothing(embeddings, fit):
    shuffled = embeddings.orderBy("embedding").repartition(7)
    again = _fit(shuffled, PLANTED)
    assert again.centroids.tobytes() == fit.centroids.tobytes()
    first = assign_clusters(embeddings.coalesce(1), fit.centroids).collect()
    assert sorted(first) == sorted(assign_clusters(shuffled, fit.centroids).collect())


def test_distance_is_one_minus_cosine_to_the_nearest_centroid(embeddings, planted, fit):
    rows = sorted(assign_clusters(embeddings, fit.centroids).collect())
    distances = 1.0 - planted[0].astype(float) @ fit.centroids.T.astype(float)
    np.testing.assert_allclose([row.distance for row in rows], distances.min(axis=1), atol=1e-6)
    assert [row.cluster_id for row in rows] == distances.argmin(axis=1).tolist()


def test_equal_distances_go_to_the_smaller_cluster(embeddings, fit):
    twice = np.concatenate([fit.centroids, fit.centroids[::-1]])
    assert max(row.cluster_id for row in assign_clusters(embeddings, twice).collect()) < PLANTED


def test_the_elbow_of_planted_groups_is_their_number(embeddings, fit):
    sample = sample_to_fit(embeddings, num_docs=PLANTED * EACH, fit_documents=1000, seed=3).cache()
    chosen, fits = choose_clustering(sample, [1, 2, PLANTED, 12], seed=3, max_iterations=20)
    costs = {k: tried.cost for k, tried in fits.items()}
    assert len(chosen.centroids) == PLANTED
    assert list(costs) == [1, 2, PLANTED, 12]
    assert costs[1] > costs[2] > costs[PLANTED] > costs[12] > 0


def test_one_cluster_is_the_mean_direction(embeddings, planted):
    single = _fit(embeddings, 1)
    np.testing.assert_allclose(single.centroids, _unit(planted[0].mean(axis=0, keepdims=True)), atol=1e-6)


def test_a_large_input_is_fitted_on_a_draw_that_depends_on_ids_alone(embeddings):
    def draw(frame) -> set[str]:
        sample = sample_to_fit(frame, num_docs=PLANTED * EACH, fit_documents=60, seed=3)
        return {row.doc_id for row in sample.collect()}

    assert draw(embeddings) == draw(embeddings.repartition(7))
    assert 35 < len(draw(embeddings)) < 85


def test_a_cluster_of_one_document_is_read_whole_and_one_of_none_is_no_arm(spark, embeddings, planted, fit):
    alone = _unit(np.eye(DIM)[:1] - 10 * planted[0].mean(axis=0))
    rows = spark.createDataFrame([("f" * 32, alone[0].tolist())], embeddings.schema)
    centroids = np.concatenate([fit.centroids, -fit.centroids.mean(axis=0, keepdims=True), alone])
    assigned = assign_clusters(embeddings.unionByName(rows), _unit(centroids)).cache()
    sizes = {row[0]: row[1] for row in assigned.groupBy("cluster_id").count().collect()}
    assert sizes == {**dict.fromkeys(range(PLANTED), EACH), PLANTED + 1: 1}
    arms = [ArmState(arm_id, size, 0, 0, 0, None, None) for arm_id, size in sizes.items()]
    scores = ds_scores(arms, schedule="paper", alpha=0.0)
    how = {"arms_per_iteration": 10, "docs_per_pull": 5, "documents_left": None}
    pulls = [pull for pull, _ in choose_pulls(arms, scores, **how)]
    assert [pull.stop for pull in pulls] == [5] * PLANTED + [1]
    read = pulled_documents(assigned, pulls[-1:], key=hash_order(3)).collect()
    assert [tuple(row) for row in read] == [("f" * 32, PLANTED + 1)]


def test_rows_of_the_centroids_carry_sizes_and_the_fingerprint(fit):
    rows = centroid_rows(fit, {0: 3}, "abc")
    assert [row["num_documents"] for row in rows] == [3, 0, 0, 0, 0]
    assert {row["fingerprint"] for row in rows} == {"abc"}


def test_more_clusters_than_documents_names_the_largest_k():
    with pytest.raises(InputError, match="largest k that fits is 7"):
        candidates(8, [], num_docs=7, affordable=None)
    with pytest.raises(InputError, match="no document"):
        candidates(0, [8], num_docs=0, affordable=None)


@given(
    grid=st.lists(st.integers(1, 2000), max_size=6),
    num_docs=st.integers(1, 3000),
    affordable=st.none() | st.integers(0, 3000),
)
def test_the_elbow_never_tries_more_than_the_bounds_allow(grid, num_docs, affordable):
    tried = candidates(0, grid, num_docs=num_docs, affordable=affordable)
    bound = num_docs if affordable is None else min(num_docs, affordable)
    assert tried == sorted(set(tried))
    assert all(1 <= k <= max(1, bound) for k in tried)
    assert set(tried) == {k for k in grid if k <= bound} or tried == [max(1, bound)]


@given(costs=st.lists(st.floats(0.0, 1e6), min_size=1, max_size=8))
def test_the_elbow_is_one_of_the_candidates(costs):
    ks = [2**i for i in range(len(costs))]
    assert elbow(ks, sorted(costs, reverse=True)) in ks


def test_the_elbow_of_a_bent_line_is_its_bend():
    assert elbow([1, 2, 3, 4, 5, 6], [100, 60, 20, 19, 18, 17]) == 3
    assert elbow([8], [1.0]) == 8
    assert elbow([4, 8], [2.0, 1.0]) == 8
    assert elbow([4, 8, 16], [2.0, 2.0, 2.0]) == 4
