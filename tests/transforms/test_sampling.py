"""One hash order: pulls follow on one another without gap or overlap, whatever the partitions and the rows' order."""

from __future__ import annotations

import random

import pytest

from equal.core.bandit import Pull
from equal.transforms.sampling import first_documents, hash_order, pulled_documents

ROWS = [(f"d{i:03d}", i % 3) for i in range(90)]
SCHEMA = "doc_id string, cluster_id int"


def ids(frame) -> set[str]:
    return {row.doc_id for row in frame.collect()}


@pytest.mark.parametrize("partitions", [1, 7])
def test_ranges_of_the_corpus_follow_on_one_another(spark, partitions: int):
    rows = random.Random(partitions).sample(ROWS, len(ROWS))
    frame = spark.createDataFrame(rows, SCHEMA).repartition(partitions)
    parts = [ids(first_documents(frame, key=hash_order(17), start=start, stop=start + 30)) for start in (0, 30, 60)]
    assert [len(part) for part in parts] == [30, 30, 30]
    assert set.union(*parts) == {doc_id for doc_id, _ in ROWS}
    assert parts[0] == ids(first_documents(spark.createDataFrame(ROWS, SCHEMA), key=hash_order(17), start=0, stop=30))
    assert parts[0] != ids(first_documents(frame, key=hash_order(18), start=0, stop=30))


@pytest.mark.parametrize("partitions", [1, 7])
def test_pulls_take_the_next_documents_of_their_arm_alone(spark, partitions: int):
    frame = spark.createDataFrame(ROWS, SCHEMA).repartition(partitions)
    first = pulled_documents(frame, [Pull(0, 0, 4), Pull(2, 0, 7)], key=hash_order(17)).collect()
    later = pulled_documents(frame, [Pull(0, 4, 30)], key=hash_order(17)).collect()
    arms = dict(ROWS)
    assert all(row.arm_id == arms[row.doc_id] for row in first + later)
    assert sorted(row.arm_id for row in first) == [0] * 4 + [2] * 7
    assert {row.doc_id for row in first + later if row.arm_id == 0} == {d for d, arm in ROWS if arm == 0}
    # an arm's order is the corpus's: the first of all documents is the first of its arm
    (top,) = ids(first_documents(frame, key=hash_order(17), start=0, stop=1))
    assert ids(pulled_documents(frame, [Pull(arms[top], 0, 1)], key=hash_order(17))) == {top}
    warm_up = pulled_documents(frame, [Pull(None, 0, 1)], key=hash_order(17)).collect()
    assert [(row.doc_id, row.arm_id) for row in warm_up] == [(top, arms[top])]
