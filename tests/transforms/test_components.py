"""Star operations on executors give the components that the driver finds, whatever the edges look like."""

from __future__ import annotations

import numpy as np
import pytest

from equal.transforms.components import driver_components, star_components

EDGES = "left long, right long"


def graphs() -> tuple[np.ndarray, np.ndarray]:
    """Edges of a long chain, a hub, a ring, loops and random ones; and stars known from before, touched and not."""
    rng = np.random.default_rng(3)
    chain = rng.permutation(300)
    hub = np.column_stack([np.full(400, 1_200), 1_000 + np.arange(400)])
    ring = 2_000 + np.column_stack([np.arange(50), (np.arange(50) + 1) % 50])
    sparse, dense = 3_000 + rng.integers(0, 300, (150, 2)), 4_000 + rng.integers(0, 60, (400, 2))
    loop = np.array([[5_000, 5_000]])
    found = np.concatenate([np.column_stack([chain[:-1], chain[1:]]), hub, ring, sparse, dense, loop])
    known = np.concatenate(
        [np.column_stack([6_000 + 10 * k + np.arange(9), np.full(9, 6_009 + 10 * k)]) for k in range(20)]
    )
    bridges = np.array(
        [[6_003, 6_027], [6_059, 150], [6_044, 9_999]]
    )  # three stars by a leaf or a hub, two of them joined
    spread = rng.permutation(10_000) * 7_919 - 30_000_000  # keys are hashes, so negative too
    return spread[rng.permutation(np.concatenate([found, bridges]))], spread[known]


@pytest.mark.parametrize("partitions", [1, 7])
def test_both_ways_give_the_same_components(spark, partitions):
    edges, known = (spark.createDataFrame(rows.tolist(), EDGES).repartition(partitions).persist() for rows in graphs())
    expected = {tuple(row) for row in driver_components(edges, known).collect()}
    assert {tuple(row) for row in star_components(edges, known).collect()} == expected
    groups = {group for _, group in expected}
    assert 40 < len(groups) < len(expected) / 10
    assert len({key for key, _ in expected}) == len(expected)
    edges.unpersist()
    known.unpersist()


def test_no_edges_are_no_groups(spark):
    nothing = spark.createDataFrame([], EDGES)
    known = spark.createDataFrame([(1, 2)], EDGES)
    for join in (driver_components, star_components):
        assert join(nothing, known).collect() == []
