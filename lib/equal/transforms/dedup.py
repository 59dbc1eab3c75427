"""Exact and near duplicates: MinHash LSH proposes, exact Jaccard decides, one document of each group stays.

Nothing large is shuffled twice: the first pass sends band keys only, their candidate groups are joined on the
driver as 64-bit numbers, and the second pass brings each group's texts together once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from equal.core.minhash import Permutations, candidate_groups, shingles, verify_duplicates
from equal.schemas import DOC_ID, EVIDENCE, REASON, REMOVALS, SCHEMAS, SOURCE_FILE, STAGE, TEXT

EXACT_DUPLICATE, NEAR_DUPLICATE = "exact_duplicate", "near_duplicate"


def find_duplicates(
    documents: DataFrame,
    *,
    shingle_words: int,
    bands: int,
    rows: int,
    threshold: float,
    seed: int,
    num_partitions: int,
) -> DataFrame:
    """Name every document that repeats another; of each group the longest text stays, then the smallest doc_id.

    Runs one Spark job for the candidate groups; the result does not depend on partitioning or order.

    Args:
        documents: doc_id, content_hash, num_chars, source_file, text.
        shingle_words: words a shingle.
        bands: LSH bands of `rows` signature rows each.
        rows: rows a band.
        threshold: exact Jaccard of shingle sets from which two documents are one.
        seed: of the hash functions.
        num_partitions: tasks of both passes.

    Returns:
        Rows of `removals`. Evidence holds `kept`, the document that stays, and `jaccard` to it; where a document
        is tied to it only through others, so that the Jaccard lies below the threshold, it says `chained`.
    """
    exact = _exact_duplicates(documents)
    texts = documents.join(exact.select(DOC_ID), DOC_ID, "left_anti").select(
        DOC_ID, "num_chars", TEXT, F.xxhash64(DOC_ID).alias("doc_key")
    )
    permutations = Permutations.seeded(bands=bands, rows=rows, seed=seed)
    groups = _candidate_groups(texts, shingle_words, permutations, num_partitions)
    near = (
        texts.join(groups, "doc_key")
        .repartition(num_partitions, "group")
        .groupBy("group")
        .applyInPandas(_verifier(shingle_words, permutations, threshold), "doc_id string, kept string, jaccard double")
    )
    return _removals(documents, exact, near, threshold)


def _exact_duplicates(documents: DataFrame) -> DataFrame:
    """doc_id, kept of every document whose normalised text another one has."""
    first = F.min(F.struct((-F.col("num_chars")).alias("rank"), F.col(DOC_ID).alias("kept"))).alias("first")
    groups = documents.groupBy("content_hash").agg(first, F.count("*").alias("size")).where("size > 1")
    members = documents.select("content_hash", DOC_ID).join(groups, "content_hash")
    return members.select(DOC_ID, F.col("first.kept").alias("kept")).where(F.col(DOC_ID) != F.col("kept"))


def _candidate_groups(
    texts: DataFrame, shingle_words: int, permutations: Permutations, num_partitions: int
) -> DataFrame:
    """doc_key, group of every document that shares a band with another, directly or through others.

    Two documents may share a doc_key by chance; that only puts more documents into a group.
    """
    banded = (
        texts.select("doc_key", TEXT)
        .repartition(num_partitions, "doc_key")
        .mapInArrow(_bander(shingle_words, permutations), "doc_key long, band_key long")
    )
    met = banded.groupBy("band_key").agg(F.min("doc_key").alias("left"), F.collect_set("doc_key").alias("members"))
    edges = met.where(F.size("members") > 1).select("left", F.explode("members").alias("right")).distinct().toPandas()
    keys, labels = candidate_groups(edges["left"].to_numpy(np.int64), edges["right"].to_numpy(np.int64))
    found = pd.DataFrame({"doc_key": keys, "group": labels})
    return texts.sparkSession.createDataFrame(found, "doc_key long, group long")


def _bander(
    shingle_words: int, permutations: Permutations
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def band(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            doc_keys = batch.column("doc_key").to_numpy(zero_copy_only=False)
            keys = [permutations.band_keys(shingles(text, shingle_words)) for text in batch.column(TEXT).to_pylist()]
            owners = np.repeat(doc_keys, [len(k) for k in keys])
            flat = np.concatenate(keys) if keys else np.empty(0, np.int64)
            yield pa.RecordBatch.from_arrays([pa.array(owners), pa.array(flat)], names=["doc_key", "band_key"])

    return band


def _verifier(
    shingle_words: int, permutations: Permutations, threshold: float
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def verify(group: pd.DataFrame) -> pd.DataFrame:
        group = group.sort_values(["num_chars", DOC_ID], ascending=[False, True], ignore_index=True)
        sets = [shingles(text, shingle_words) for text in group[TEXT]]
        keys = [permutations.band_keys(s) for s in sets]
        ids = group[DOC_ID].tolist()
        found = verify_duplicates(sets, keys, np.arange(len(ids)), threshold)
        rows = [(ids[d.dropped], ids[d.kept], d.jaccard) for d in found]
        return pd.DataFrame(rows, columns=[DOC_ID, "kept", "jaccard"])

    return verify


def _removals(documents: DataFrame, exact: DataFrame, near: DataFrame, threshold: float) -> DataFrame:
    """Tie each removed document to one that stays: a copy of a near duplicate is a near duplicate too."""
    final = near.select(F.col(DOC_ID).alias("kept"), F.col("kept").alias("final"), "jaccard")
    copies = exact.join(final, "kept", "left").select(
        DOC_ID,
        F.coalesce("final", "kept").alias("kept"),
        F.coalesce("jaccard", F.lit(1.0)).alias("jaccard"),
        F.when(F.col("final").isNull(), EXACT_DUPLICATE).otherwise(NEAR_DUPLICATE).alias(REASON),
    )
    removed = copies.unionByName(near.withColumn(REASON, F.lit(NEAR_DUPLICATE)))
    chained = F.when(F.col("jaccard") < threshold, F.lit(True)).alias("chained")
    evidence = F.to_json(F.struct("kept", F.round("jaccard", 6).alias("jaccard"), chained))
    rows = removed.withColumn(EVIDENCE, evidence).withColumn(STAGE, F.lit("deduplicate"))
    return rows.join(documents.select(DOC_ID, SOURCE_FILE), DOC_ID).select(*SCHEMAS[REMOVALS].fieldNames())
