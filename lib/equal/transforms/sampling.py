"""Which documents a pull reads: the next ones of an order that is the same for the corpus and inside every arm."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from equal.core.bandit import Pull
from equal.schemas import ARM_ID, CLUSTER_ID, DOC_ID


def hash_order(seed: int) -> Column:
    """The sampling key of a document; it knows nothing of files, partitions or arrival."""
    return F.xxhash64(F.lit(seed), F.col(DOC_ID))


def first_documents(documents: DataFrame, *, key: Column, start: int, stop: int) -> DataFrame:
    """Documents [start, stop) of the order by a key such as `hash_order`, with the columns they came with.

    Two top-k selections instead of a global window: nothing is sorted in one partition.
    """
    ranked = documents.withColumn("_key", key)
    head = ranked.orderBy(F.asc("_key"), F.asc(DOC_ID)).limit(stop)
    return head.orderBy(F.desc("_key"), F.desc(DOC_ID)).limit(stop - start).drop("_key")


def pulled_documents(assignments: DataFrame, pulls: Sequence[Pull], *, key: Column) -> DataFrame:
    """The documents of the given pulls.

    Args:
        assignments: doc_id, cluster_id, and what the key is made of.
        pulls: ranges of an arm's order, or of the corpus's when arm_id is None.
        key: of the order, such as `hash_order`.

    Returns:
        doc_id, arm_id.
    """
    arms = assignments.select(DOC_ID, F.col(CLUSTER_ID).alias(ARM_ID), key.alias("_key"))
    parts = [
        first_documents(arms, key=F.col("_key"), start=pull.start, stop=pull.stop)
        for pull in pulls
        if pull.arm_id is None
    ]
    ranges = {pull.arm_id: (pull.start, pull.stop) for pull in pulls if pull.arm_id is not None}
    if ranges:
        window = Window.partitionBy(ARM_ID).orderBy("_key", DOC_ID)
        ranked = arms.where(F.col(ARM_ID).isin(list(ranges))).withColumn("_rank", F.row_number().over(window) - 1)
        bounds = F.create_map(*[F.lit(v) for arm_id, (start, _) in ranges.items() for v in (arm_id, start)])
        ends = F.create_map(*[F.lit(v) for arm_id, (_, stop) in ranges.items() for v in (arm_id, stop)])
        inside = (F.col("_rank") >= bounds[F.col(ARM_ID)]) & (F.col("_rank") < ends[F.col(ARM_ID)])
        parts.append(ranked.where(inside).drop("_rank"))
    frame, *others = (part.select(DOC_ID, ARM_ID) for part in parts)
    for other in others:
        frame = frame.unionByName(other)
    return frame
