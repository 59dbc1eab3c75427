"""Connected components of edges between 64-bit keys: on the driver while they fit there, by star operations above it.

Source of the star operations: Kiveris et al. 2014, Connected Components in MapReduce and Beyond, section 3.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from equal.core.minhash import candidate_groups

#: edges, those known from before too, that the driver joins by itself, about 1 GB of its memory
DRIVER_EDGES = 1 << 24
#: labelled keys that every executor holds for a join, about 250 MB; of more, texts are shuffled to them
_BROADCAST_KEYS = 1 << 22

LABELLED = "doc_key long, group long"


def driver_components(edges: DataFrame, settled: DataFrame) -> DataFrame:
    """Label the components of edges, all of them collected.

    Args:
        edges: left, right: int64 keys.
        settled: left, right: a component known from before as edges to one `right`; it joins in when edges touch it.

    Returns:
        doc_key, group: the smallest key of its component.
    """
    found, known = (frame.toPandas().to_numpy(np.int64).reshape(-1, 2) for frame in (edges, settled))
    touched = np.isin(known, found).any(axis=1)
    whole = known[np.isin(known[:, 1], known[touched, 1])]
    left, right = np.concatenate([found, whole]).T
    keys, labels = candidate_groups(left, right)
    labelled = edges.sparkSession.createDataFrame(pd.DataFrame({"doc_key": keys, "group": labels}), LABELLED)
    return F.broadcast(labelled) if len(keys) <= _BROADCAST_KEYS else labelled  # Spark does not know how few they are


def star_components(edges: DataFrame, settled: DataFrame) -> DataFrame:
    """Label the components of edges without collecting any; arguments and result as of `driver_components`.

    Large-star and small-star by turns until nothing changes; a round halves a chain.
    """
    members = settled.select("right", F.explode(F.array("left", "right")).alias("doc_key"))
    touched = members.join(_nodes(edges), "doc_key", "left_semi").select("right").distinct()
    whole = settled.join(touched, "right", "left_semi").select("left", "right")
    edges = edges.union(whole).localCheckpoint()
    stars, before = _downwards(edges, F.col("left"), F.col("right")).localCheckpoint(), None
    while (now := _checksum(stars)) != before:
        stars, before = _small_star(_large_star(stars)).localCheckpoint(), now
    labelled = _nodes(edges).join(stars.withColumnRenamed("high", "doc_key"), "doc_key", "left")
    return labelled.select("doc_key", F.coalesce("low", "doc_key").alias("group")).localCheckpoint()


def _nodes(edges: DataFrame) -> DataFrame:
    return edges.select(F.explode(F.array("left", "right")).alias("doc_key")).distinct()


def _downwards(edges: DataFrame, one: Column, other: Column) -> DataFrame:
    """Distinct edges as high, low; a key's edge to itself goes."""
    return (
        edges.select(F.greatest(one, other).alias("high"), F.least(one, other).alias("low"))
        .where("high > low")
        .distinct()
    )


def _large_star(edges: DataFrame) -> DataFrame:
    """Every key connects its larger neighbours to its smallest one, itself counted."""
    both = edges.select(F.col("high").alias("key"), F.col("low").alias("other")).union(edges.select("low", "high"))
    smallest = both.groupBy("key").agg(F.least(F.min("other"), F.col("key")).alias("smallest"))
    return _downwards(both.where("other > key").join(smallest, "key"), F.col("other"), F.col("smallest"))


def _small_star(edges: DataFrame) -> DataFrame:
    """Every key connects its smaller neighbours and itself to the smallest of them."""
    smallest = edges.groupBy("high").agg(F.min("low").alias("smallest"))
    joined = edges.join(smallest, "high")
    member = F.explode(F.array("high", "low")).alias("member")
    return _downwards(joined.select(member, "smallest"), F.col("member"), F.col("smallest"))


def _checksum(edges: DataFrame) -> tuple[int, ...]:
    return tuple(edges.agg(F.count("*"), F.bit_xor(F.xxhash64("high", "low"))).first())
