"""The order by similarity: the warm-up's documents first, then the most similar, whatever the partitions."""

from __future__ import annotations

import numpy as np
import pytest

from equal.core.bandit import Pull
from equal.transforms.sampling import first_documents, hash_order, pulled_documents
from equal.transforms.similarity import similarities_by_arm, similarity_order, with_similarity

RNG = np.random.default_rng(5)
VECTORS = RNG.normal(size=(40, 3)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
REFERENCE = np.eye(3, dtype=np.float32)[:2]
IDS = [f"d{i:02d}" for i in range(len(VECTORS))]
COSINES = dict(zip(IDS, (VECTORS @ REFERENCE.T).mean(axis=1).tolist()))
WARM = 6


@pytest.mark.parametrize("partitions", [1, 7])
def test_pulls_read_the_warm_up_by_hash_and_then_the_most_similar(spark, partitions: int):
    arms = spark.createDataFrame([(doc, i % 3) for i, doc in enumerate(IDS)], "doc_id string, cluster_id int")
    embeddings = spark.createDataFrame(
        [(doc, row.tolist()) for doc, row in zip(IDS, VECTORS)], "doc_id string, embedding array<float>"
    )
    documents = with_similarity(
        arms, embeddings.repartition(partitions), REFERENCE, seed=17, warm_up_documents=WARM
    ).cache()  # fmt: skip
    key = similarity_order(17)

    def read(*pulls: Pull) -> set[str]:
        return {row.doc_id for row in pulled_documents(documents, pulls, key=key).collect()}

    warm = {row.doc_id for row in first_documents(arms, key=hash_order(17), start=0, stop=WARM).collect()}
    rest = sorted(set(IDS) - warm, key=lambda doc: -COSINES[doc])
    assert read(Pull(None, 0, WARM)) == warm
    assert read(Pull(None, WARM, WARM + 5)) == set(rest[:5])
    of_arm = [doc for doc in rest if IDS.index(doc) % 3 == 1]
    known = similarities_by_arm(documents, seed=17)
    taken = len(known[1]) - len(of_arm)
    assert read(Pull(1, taken, taken + 4)) == set(of_arm[:4])
    # what the loop believes of the next documents is of those that it then reads
    assert known[1][taken:] == pytest.approx([COSINES[doc] for doc in of_arm], abs=1e-6)
    assert {arm: len(values) for arm, values in known.items()} == {0: 14, 1: 13, 2: 13}
